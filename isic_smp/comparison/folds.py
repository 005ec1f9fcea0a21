"""The runs of a cross-validation, taken together: one score for each training image, by a network that has not seen it."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from isic_smp.comparison.runs import ScoredRun
from isic_smp.data.folds import CAMERAS, FOLD, Fold, parse_fold
from isic_smp.errors import UserError

FOLDS = "folds"
"""What the data of joined runs have in place of a fold: `3`, or `3:cameras`."""


def join_folds(runs: Sequence[ScoredRun]) -> list[ScoredRun]:
    """`runs`, those that trained on folds (`run --fold`) of the same data by the same recipe, seed included, as one.

    Raises:
        UserError: a fold is missing or there twice, or the parts do not make up one set of images.
    """
    found: list[ScoredRun | list[ScoredRun]] = []
    for run in runs:
        if "fold" not in run.data:
            found.append(run)
            continue
        for other in found:
            if isinstance(other, list) and _kind(other[0]) == _kind(run):
                other.append(run)
                break
        else:
            found.append([run])
    return [_joined(run) if isinstance(run, list) else run for run in found]


def in_words(folds: str) -> str:
    """`3:cameras` as 3 folds of whole cameras."""
    count, of_cameras, _ = folds.partition(CAMERAS)
    return f"{count} folds" + " of whole cameras" * bool(of_cameras)


def _kind(run: ScoredRun) -> tuple:
    """What the folds of one cross-validation have in common."""
    return run.recipe, replace(_fold(run), number=1), _whole(run)


def _fold(run: ScoredRun) -> Fold:
    return parse_fold(str(run.data["fold"]))


def _whole(run: ScoredRun) -> str:
    """The fingerprint of the data that the folds are parts of."""
    return run.data.get("fingerprint", "").partition(FOLD)[0]


def _joined(parts: list[ScoredRun]) -> ScoredRun:
    first = parts[0]
    fold = _fold(first)
    count, ending = fold.of, CAMERAS * fold.by_camera
    numbers = [_fold(run).number for run in parts]
    if twice := sorted({n for n in numbers if numbers.count(n) > 1}):
        same = [run.name for run, n in zip(parts, numbers, strict=True) if n == twice[0]]
        raise UserError(
            f"fold {twice[0]}/{count}{ending} is there twice, as {same[0]} and {same[1]}, by one recipe and seed: name one of them"
        )
    if missing := sorted(set(range(1, count + 1)) - set(numbers)):
        have = ", ".join(map(str, sorted(numbers)))
        raise UserError(
            f"a comparison over folds needs all {count} of each recipe and seed; of {first.name}'s there are {have}: "
            f"train the others (run --fold {missing[0]}/{count}{ending}, …) and name them too"
        )
    ids = [id for run in parts for id in run.ids]
    if len(set(ids)) < len(ids):
        raise UserError(
            f"the folds of {first.name} share images: they were made by other releases, train them again"
        )
    order = np.argsort(np.array(ids), kind="stable")
    return replace(
        first,
        name=f"{first.name} and its other folds",
        run_id=None,
        model="",
        data={
            "name": first.data.get("name", ""),
            "fingerprint": _whole(first),
            "description": f"{first.data.get('name')}: {len(ids)} training images in {in_words(f'{count}{ending}')}",
            FOLDS: f"{count}{ending}",
        },
        ids=tuple(ids[i] for i in order),
        sizes=np.concatenate([run.sizes for run in parts])[order],
        lesion_area=np.concatenate([run.lesion_area for run in parts])[order],
        scores=np.concatenate([run.scores for run in parts])[order],
        parts=tuple(parts),
    )
