"""The report that `python -m isic_smp.data check` prints and writes."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from isic_smp.data.audit import Audit, Twins, audit
from isic_smp.data.contact_sheet import sheet, tile
from isic_smp.data.isic2016 import FOLDERS, SPLIT_NAMES, split_lists
from isic_smp.data.pairs import passed_over, read_pair, some
from isic_smp.errors import UserError

DUPLICATES = "duplicates.png"
_TILES = 48
_COLUMNS = 8
_TWIN_ROWS = 60
_LISTED = 40


def check(root: Path, out: Path, *, binarize_masks: bool = False) -> int:
    """Audit the data under `root`, print the findings, and write check.json and two pictures into `out`.

    Returns:
        0 where loading would accept the data and no image is on both sides of the split, else 1.

    Raises:
        UserError: as `audit`, or `out` cannot be written.
    """
    found = audit(root, binarize_masks=binarize_masks)
    print("\n".join(_lines(found)))
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "check.json").write_text(json.dumps(found.to_dict(), indent=1), encoding="utf-8")
        if found.files:
            _save(_overview(found, binarize_masks), out / "contact_sheet.png")
        (out / DUPLICATES).unlink(missing_ok=True)  # of other data
        if rows := list(_twin_rows(found, binarize_masks)):
            _save(_two_columns(rows), out / DUPLICATES)
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror or error}") from None
    written = ["check.json", *(["contact_sheet.png"] if found.files else []), *([DUPLICATES] if rows else [])]
    print(f"written to {out}: {', '.join(written)}")
    return 1 if found.problems else 0


def _lines(found: Audit) -> Iterator[str]:
    totals = {name: len(ids) for name, ids in split_lists().items()}
    yield f"{found.root}"
    yield "pairs: " + (", ".join(f"{side} {count}" for side, count in found.pairs.items()) or "none")
    if any(found.official.values()):
        official = ", ".join(
            f"{SPLIT_NAMES[name]} {found.official[name]} of {totals[name]}" for name in totals
        )
        yield f"of ISIC 2016 part 1: {official}"
    elif found.pairs:
        yield "of ISIC 2016 part 1: none, other data in its layout"
    shown = list(found.sizes.items())[:8]
    yield (
        "sizes: "
        + ", ".join(f"{size}: {count}" for size, count in shown)
        + (f", and {len(found.sizes) - 8} other sizes" if len(found.sizes) > 8 else "")
    )
    for folder in FOLDERS:
        if (found.root / folder).is_dir() and (names := passed_over(found.root / folder)):
            yield f"not looked at in {folder}: {len(names)} ({some(names)}); images in subfolders are not found"
    if found.areas:
        areas = np.array(list(found.areas.values()))
        low, middle, high = 100 * np.array([areas.min(), np.median(areas), areas.max()])
        empty, full = int((areas == 0).sum()), int((areas == 1).sum())
        yield f"lesion area: {low:.1f} % to {high:.1f} %, median {middle:.1f} %"
        yield f"masks: {empty} empty, {full} full"
    yield f"equal images: {len(found.exact)} pairs"
    yield from _twin_lines(found.exact)
    yield f"the same lesion twice: {len(found.near)} pairs (features that agree, correlation after alignment)"
    yield from _twin_lines(found.near)
    yield (
        f"alike at a glance, between training and test: {len(found.alike)} pairs "
        f"(correlation of thumbnails{f'; mostly different lesions, see {DUPLICATES}' if found.alike else ''})"
    )
    yield from _twin_lines(found.alike)
    yield f"problems: {len(found.problems) or 'none'}"
    yield from (f"  {problem}" for problem in found.problems)


def _twin_lines(twins: Sequence[Twins]) -> Iterator[str]:
    for it in twins[:_LISTED]:
        matches = f"  {it.matches:3d} features" if it.matches else ""
        mirrored = ", mirrored" if it.mirrored else ""
        yield f"  {it.ids[0]} = {it.ids[1]}  {'/'.join(it.sides)}{matches}  {it.correlation:.2f}{mirrored}"
    if len(twins) > _LISTED:
        yield f"  … and {len(twins) - _LISTED} more in check.json"


def _overview(found: Audit, binarize_masks: bool) -> np.ndarray:
    """Images from the smallest lesion to the largest, with the mask's contour."""
    keys = sorted(found.files, key=lambda key: (found.areas[found.files[key].id], key))
    picked = [keys[i] for i in np.linspace(0, len(keys) - 1, min(_TILES, len(keys))).round().astype(int)]
    tiles = [
        _tile(found, key, f"{100 * found.areas[found.files[key].id]:.1f} %", binarize_masks) for key in picked
    ]
    return sheet(tiles[i : i + _COLUMNS] for i in range(0, len(tiles), _COLUMNS))


def _twin_rows(found: Audit, binarize_masks: bool) -> Iterator[list[np.ndarray]]:
    kinds = [*((it, "equal") for it in found.exact), *((it, "same") for it in found.near)]
    kinds += [(it, "alike") for it in found.alike]
    for it, kind in kinds[:_TWIN_ROWS]:
        notes = f"{kind} {it.correlation:.2f}", ""
        yield [
            _tile(found, f"{side}/{id}", note, binarize_masks)
            for side, id, note in zip(it.sides, it.ids, notes, strict=True)
        ]


def _two_columns(rows: list[list[np.ndarray]]) -> np.ndarray:
    """Pairs side by side, four pairs a row, a gap between pairs."""
    gap = np.full((rows[0][0].shape[0], 12, 3), 255, np.uint8)
    couples = [np.concatenate([*row, gap], axis=1) for row in rows]
    return sheet(couples[i : i + 4] for i in range(0, len(couples), 4))


def _tile(found: Audit, key: str, note: str, binarize_masks: bool) -> np.ndarray:
    pair = found.files[key]
    return tile(*read_pair(pair, binarize_masks=binarize_masks), f"{pair.id} {key.split('/')[0][:5]} {note}")


def _save(picture: np.ndarray, file: Path) -> None:
    Image.fromarray(picture).save(file)
