"""Which pictures one camera may have made, told from the size of their frames.

Nothing beside the pictures names a camera, but each writes frames of a size of its own, so pictures whose frames
differ in size come from other cameras, or from other clinics' ways of cutting them. One size may hide two cameras.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from isic_smp.data.images import frame_size
from isic_smp.data.manifest import MANIFEST, read_columns
from isic_smp.data.pairs import Pair
from isic_smp.errors import UserError

Frame = tuple[int, int]
"""Longer and shorter side, in pixels."""

_DIGITS = 9
"""Of a side; Python refuses to convert numbers of thousands of digits."""
_ALIKE = 1.05
"""Frames whose sides differ by this factor at most are one camera's, cut by hand a little more or less."""


def frames(pairs: Sequence[Pair], root: Path) -> dict[str, Frame]:
    """The frame of each id.

    Args:
        pairs: pictures and their ids.
        root: where a `manifest.csv` may say of which size a shrunken picture was (`original_width` and
            `original_height`). Where it does not, the file's own size counts.

    Raises:
        UserError: a manifest or an image that cannot be read.
    """
    originals = _originals(root / MANIFEST)
    return {pair.id: originals.get(pair.id) or _frame(*frame_size(pair.image)) for pair in pairs}


def cameras(pairs: Sequence[Pair], root: Path) -> list[tuple[str, ...]]:
    """The ids of `pairs`, those with frames of about one size together; the most pictures first.

    Raises:
        UserError: as `frames`.
    """
    found = frames(pairs, root)
    camera = _as_cameras(found.values())
    groups: dict[int, list[str]] = {}
    for id in sorted(found):
        groups.setdefault(camera[found[id]], []).append(id)
    return sorted(map(tuple, groups.values()), key=lambda ids: (-len(ids), ids))


def _originals(manifest: Path) -> dict[str, Frame]:
    """The frames that a manifest knows."""
    rows = read_columns(manifest, ["original_width", "original_height"]) if manifest.is_file() else None
    found = {}
    for id, sides in (rows or {}).items():
        if all(side.isdecimal() and len(side) <= _DIGITS and int(side) > 0 for side in sides):
            found[id] = _frame(*map(int, sides))
        elif any(sides):
            raise UserError(
                f"{manifest} gives {id} an original size of {sides[0] or 'nothing'} × {sides[1] or 'nothing'}: "
                "expected two whole numbers of pixels, or nothing where it is not known"
            )
    return found


def _frame(width: int, height: int) -> Frame:
    """Upright or lying, it is the same camera."""
    return max(width, height), min(width, height)


def _as_cameras(frames: Iterable[Frame]) -> dict[Frame, int]:
    """A number for each frame; frames that are alike, or are both like a third one, have the same."""
    number: dict[Frame, int] = {}
    for frame in sorted(set(frames)):
        alike = {number[other] for other in number if _alike(frame, other)}
        number[frame] = min(alike, default=len(number))
        number |= {other: number[frame] for other, its in number.items() if its in alike}
    return number


def _alike(one: Frame, other: Frame) -> bool:
    return all(max(a, b) <= _ALIKE * min(a, b) for a, b in zip(one, other, strict=True))
