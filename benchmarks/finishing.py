"""What each step after the network brings to its masks: all of them, each left out, and flips averaged as well.

python benchmarks/finishing.py --data-dir DIR                                              # the shipped model, validation images
python benchmarks/finishing.py --data-dir DIR --models RUN_A RUN_B RUN_C --hold-out hard   # one recipe's seeds, made with --hold-out hard
python benchmarks/finishing.py --data-dir DIR --folds RUN_1 … RUN_N                        # each picture asked of the fold that has not seen it

IoU at own size of each model, its mean change against the first row with the standard error over images, over all and
over the faint lesions among them, and the share under .65. Nothing is trained, and no test image is looked at. Writes
results/finishing.json.
"""

import numpy as np
from common import (
    asked_pictures,
    columns_of_scores,
    in_group,
    iou,
    options_of_models_or_folds,
    predicted,
    report,
)

STEPS = ("second_look", "largest_piece", "close_bays")
NUMBERS = ("least_contrast", "wrap_below")
"""Steps that are measured on each model's training pictures; 0 is without."""
WAYS: dict[str, dict[str, bool | float]] = {
    "all": dict.fromkeys(STEPS, True),
    **{f"without {step}": dict.fromkeys(STEPS, True) | {step: False} for step in STEPS},
    **{f"without {number}": dict.fromkeys(STEPS, True) | {number: 0.0} for number in NUMBERS},
    "none": dict.fromkeys(STEPS, False) | dict.fromkeys(NUMBERS, 0.0),
    "all, flips averaged": dict.fromkeys(STEPS, True) | {"test_time_flips": True},
}
"""How masks are finished, by the settings of `Preprocessing`; flips are averaged in the last row alone."""


def main() -> None:
    """Score, print, and write results/finishing.json."""
    options = options_of_models_or_folds(__doc__).parse_args()

    import torch

    torch.set_num_threads(1)
    images, masks, asked = asked_pictures(options)
    faint = in_group("faint", images, masks)

    rows: list[dict] = []
    plain = np.zeros(0)
    for way, settings in WAYS.items():
        scores = []
        for predictors in asked.values():
            found = predicted(predictors, images, **{"test_time_flips": False} | settings)
            scores.append([iou(f, m > 0) for f, m in zip(found, masks, strict=True)])
        plain = plain if len(plain) else np.array(scores)  # the first row's
        row = {"finished by": way} | columns_of_scores(asked, np.array(scores), plain, faint)
        rows.append(row)
        print(row, flush=True)
    title = f"IoU, {len(images)} images, {int(faint.sum())} of them of faint lesions"
    report("finishing", {title: rows}, models=options.models, hold_out=options.hold_out, folds=options.folds)


if __name__ == "__main__":
    main()
