"""Recipes against one another, on the pictures that all of them were trained without.

python benchmarks/candidates.py --data-dir DIR --hold-out hard --base BASE_0 BASE_1 --runs A_0 A_1 B_0

Every run was made with `--hold-out GROUP`. Each is held against the base of its own seed, image by image: runs of one
seed begin with the same decoder and see the same views. IoU at own size, asked in one look, as the preset finishes its
masks, and with --flips averaged besides, which takes eight times as long: of all held-out pictures, of the groups among
them, and of the validation pictures that were not held out (*others*), with the mean change and its standard error over
images; *failed* is the share of held-out pictures under .65. Nothing is trained, and no test image is looked at. Writes
results/candidates.json.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import as_score, in_group, iou, predicted, report, validation_pictures, with_error

WAYS: dict[str, dict[str, bool | float]] = {
    "one look": {"second_look": False, "wrap_below": 0.0, "test_time_flips": False},
    "finished": {"test_time_flips": False},
    "finished, flips": {"test_time_flips": True},
}
"""How a run is asked, by the settings of `Preprocessing` that differ from its own."""


@dataclasses.dataclass(frozen=True)
class Pictures:
    """What the runs are asked about."""

    images: Sequence[Any]
    masks: Sequence[Any]
    held_out: np.ndarray
    """Which of them were held out, bool (N,); the others are usual validation pictures."""
    groups: dict[str, np.ndarray]
    """Which of them belong to a group and were held out, bool (N,)."""


def main() -> None:
    """Score, print, and write results/candidates.json."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    words.add_argument("--data-dir", type=Path, required=True)
    words.add_argument(
        "--hold-out", default="hard", help="the group that all were trained without; default: hard"
    )
    words.add_argument("--base", nargs="+", required=True, metavar="RUN", help="one of each seed")
    words.add_argument("--runs", nargs="*", default=[], metavar="RUN", help="of the same seeds")
    words.add_argument("--flips", action="store_true", help="ask with flips averaged too")
    options = words.parse_args()

    import torch

    torch.set_num_threads(1)
    pictures = pictures_of(options.data_dir, options.hold_out)
    ways = {way: asking for way, asking in WAYS.items() if options.flips or not asking["test_time_flips"]}
    bases: dict[int, dict[str, np.ndarray]] = {}
    rows: list[dict] = []
    for run in (*options.base, *options.runs):
        seed, found = asked(run, pictures, ways)
        if run in options.base:
            bases[seed] = found
        elif seed not in bases:
            words.error(f"{run} has seed {seed}: expected one of the bases' ({', '.join(map(str, bases))})")
        base = None if run in options.base else bases[seed]
        new = [row(run, way, found[way], base and base[way], pictures) for way in ways]
        rows += new
        print(*new, sep="\n", flush=True)
    held = int(pictures.held_out.sum())
    title = f"IoU at own size, {held} pictures left out and {len(pictures.images) - held} others"
    report("candidates", {title: rows}, hold_out=options.hold_out)


def pictures_of(data_dir: Path, group: str) -> Pictures:
    """Those of the group, then the validation pictures that are not."""
    images, masks = validation_pictures(data_dir, group)
    usual = [
        (image, mask)
        for image, mask in zip(*validation_pictures(data_dir, None), strict=True)
        if not in_group(group, [image], [mask])[0]
    ]
    images, masks = [*images, *(image for image, _ in usual)], [*masks, *(mask for _, mask in usual)]
    held_out = np.arange(len(images)) < len(images) - len(usual)
    groups = {name: in_group(name, images, masks) & held_out for name in ("faint", "small", "cut", "cool")}
    return Pictures(images, masks, held_out, groups)


def asked(
    run: str, pictures: Pictures, ways: dict[str, dict[str, bool | float]]
) -> tuple[int, dict[str, np.ndarray]]:
    """A run's seed, and of each way the IoU of every picture, (N,)."""
    from isic_smp.inference.load import load_bundle
    from isic_smp.inference.predictor import Predictor

    bundle = load_bundle(run)
    predictors = [Predictor(bundle.model, bundle.preprocessing)] * len(pictures.images)
    found = {}
    for way, settings in ways.items():
        masks = predicted(predictors, pictures.images, **settings)
        found[way] = np.array([iou(mask, true > 0) for mask, true in zip(masks, pictures.masks, strict=True)])
    return bundle.info["recipe"]["seed"], found


def row(
    run: str, way: str, scores: np.ndarray, base: np.ndarray | None, pictures: Pictures
) -> dict[str, str]:
    """A line of the table; of a base itself without changes."""
    held_out = pictures.held_out
    change = None if base is None else scores - base
    return {
        "run": Path(run).name,
        "asked": way,
        "left out": as_score(scores[held_out].mean()),
        "change": "" if change is None else with_error(change[held_out]),
        "failed": f"{(scores[held_out] < 0.65).mean():.1%}",
        **{name: as_score(scores[members].mean()) for name, members in pictures.groups.items()},
        "others": as_score(scores[~held_out].mean()),
        "others' change": "" if change is None else with_error(change[~held_out]),
    }


if __name__ == "__main__":
    main()
