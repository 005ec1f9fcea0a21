"""How a recipe does on every training picture, each asked of a network that has not seen it.

python benchmarks/cross_validation.py --data-dir DIR --folds RUN_1 … RUN_N

The RUNs are the N folds of one recipe and seed (`run --fold K/N`). IoU at own size, mean ± standard error over the
images, of all and of the groups that pictures can be told apart by (`isic_smp/data/groups.py`, diagnoses), asked in
the ways of `networks.py`; the share under .65 is of the preset's own. Nothing is trained, and no test image is looked
at. Writes results/cross_validation.json and docs/images/cross_validation.jpg, the worst masks.
"""

import argparse
import dataclasses
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
from common import as_score, iou, predictors_of_folds, report
from networks import WAYS

SHOWN = 12
WAY = "two looks, faint ones raised and wrapped"
"""That of the preset: failures are counted and the worst masks are drawn by it."""
PICTURE = Path(__file__).parent.parent / "docs" / "images" / "cross_validation.jpg"


def main() -> None:
    """Predict, score, print, draw, and write results/cross_validation.json."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    words.add_argument("--data-dir", type=Path, required=True)
    words.add_argument("--folds", nargs="+", required=True, metavar="RUN")
    options = words.parse_args()

    import torch

    torch.set_num_threads(1)
    from isic_smp.data.isic2016 import load_isic2016
    from isic_smp.data.pairs import read_pair
    from isic_smp.inference.predictor import Predictor

    data = load_isic2016(options.data_dir)
    asked = predictors_of_folds(data, options.folds)
    pairs = {pair.id: pair for pair in (*data.train, *data.val)}
    if missing := sorted(pairs.keys() - asked.keys()):
        words.error(f"no fold validates on {missing[0]}: name all of them")
    scores: dict[str, dict[str, float]] = {way: {} for way in WAYS}
    for id, pair in pairs.items():
        image, mask = read_pair(pair)
        for way, settings in WAYS.items():
            finish = dataclasses.replace(asked[id].preprocessing, **settings)
            [chance] = Predictor(asked[id].model, finish).predict([image])
            scores[way][id] = iou(chance > finish.threshold, mask > 0)
    groups = groups_of(data)
    rows = [as_row(name, ids, scores) for name, ids in groups.items()]
    report("cross_validation", {f"IoU, mean ± standard error; {len(options.folds)} folds": rows})
    worst = sorted(scores[WAY], key=scores[WAY].__getitem__)[:SHOWN]
    draw({id: (pairs[id], asked[id]) for id in worst})


def groups_of(data: Any) -> dict[str, set[str]]:
    """The ids of the training pictures in each group; the first one is of all."""
    from isic_smp.data.diagnoses import read_diagnoses
    from isic_smp.data.held_out import hold_out
    from isic_smp.data.names import Group
    from isic_smp.data.source import default_cache_dir

    every = {pair.id for pair in (*data.train, *data.val)}
    found = {"all": every}
    for group in get_args(Group):
        held = hold_out(data, group, cache_dir=default_cache_dir())
        found[group] = {pair.id for pair in held.val}
    found["not hard"] = every - found["hard"]
    for id, diagnosis in (read_diagnoses(data.root) or {}).items():
        if id in every:
            found.setdefault(diagnosis, set()).add(id)
    return found


def as_row(name: str, ids: Iterable[str], scores: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """A group's scores in each way of asking."""
    of_way = {way: np.array([found[id] for id in ids]) for way, found in scores.items()}
    return {
        "pictures": name,
        "images": len(of_way[WAY]),
        **{
            way: as_score(found.mean(), found.std(ddof=1) / np.sqrt(len(found)))
            for way, found in of_way.items()
        },
        "failed": f"{(of_way[WAY] < 0.65).mean():.1%}",
    }


def draw(cases: Mapping[str, tuple[Any, Any]]) -> None:
    """The pairs of these ids as their predictors see them, with both outlines."""
    from PIL import Image

    from isic_smp.inference.predictor import Predictor
    from isic_smp.tracking.case_pictures import draw_case
    from isic_smp.tracking.figures import case_grid, overlay

    drawn = []
    for id, (pair, asked) in cases.items():
        finish = dataclasses.replace(asked.preprocessing, **WAYS[WAY])
        drawn.append(draw_case(partial(overlay, side=288), pair, Predictor(asked.model, finish), id))
    Image.fromarray(case_grid(drawn)).save(PICTURE, quality=85)


if __name__ == "__main__":
    main()
