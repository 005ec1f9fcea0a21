"""What each step after the network brings to its masks: all of them, each left out, and flips averaged as well.

python benchmarks/finishing.py --data-dir DIR                                              # the shipped model, validation images
python benchmarks/finishing.py --data-dir DIR --models RUN_A RUN_B RUN_C --hold-out hard   # one recipe's seeds, made with --hold-out hard

IoU at own size of each model, its mean change against the first row with the standard error over images, and the share
under .65. Nothing is trained, and no test image is looked at. Writes results/finishing.json.
"""

import dataclasses
from pathlib import Path

import numpy as np
from common import iou, options_of_models, report, validation_pictures

STEPS = ("second_look", "largest_piece", "close_bays")
PLAIN = {"least_contrast": 0.0}
WAYS: dict[str, dict[str, bool | float]] = {
    "all": dict.fromkeys(STEPS, True),
    **{f"without {step}": dict.fromkeys(STEPS, True) | {step: False} for step in STEPS},
    "without least_contrast": dict.fromkeys(STEPS, True) | PLAIN,
    "none": dict.fromkeys(STEPS, False) | PLAIN,
    "all, flips averaged": dict.fromkeys(STEPS, True) | {"test_time_flips": True},
}
"""How masks are finished, by the settings of `Preprocessing`; flips are averaged in the last row alone."""


def main() -> None:
    """Score, print, and write results/finishing.json."""
    options = options_of_models(__doc__).parse_args()

    import torch

    torch.set_num_threads(1)
    from isic_smp.inference.open_predictor import open_predictor
    from isic_smp.inference.predictor import Predictor

    images, masks = validation_pictures(options.data_dir, options.hold_out)
    opened = {model: open_predictor(model).predictor for model in options.models}

    rows: list[dict] = []
    first = np.zeros(0)
    for way, settings in WAYS.items():
        scores = []
        for asked in opened.values():
            finish = dataclasses.replace(asked.preprocessing, **{"test_time_flips": False} | settings)
            chances = Predictor(asked.model, finish).predict(images)
            scores.append([iou(c > finish.threshold, m > 0) for c, m in zip(chances, masks, strict=True)])
        found = np.array(scores)
        first = first if len(first) else found.mean(0)
        change = found.mean(0) - first
        row = {"finished by": way}
        row |= {
            Path(m).name: f"{s.mean():.4f}".replace("0.", ".") for m, s in zip(opened, found, strict=True)
        }
        row |= {
            "change": f"{change.mean():+.4f} ± {change.std() / np.sqrt(len(change)):.4f}",
            "failed": f"{(found < 0.65).mean():.1%}",
        }
        rows.append(row)
        print(row, flush=True)
    title = f"IoU, {len(images)} images"
    report("finishing", {title: rows}, models=options.models, hold_out=options.hold_out)


if __name__ == "__main__":
    main()
