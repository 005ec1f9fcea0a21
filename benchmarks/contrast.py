"""What more contrast for faint lesions gives: several least contrasts in the second look, on pictures left out.

python benchmarks/contrast.py --data-dir DIR                                              # the shipped model, validation images
python benchmarks/contrast.py --data-dir DIR --models RUN_A RUN_B RUN_C --hold-out hard   # one recipe's seeds, made with --hold-out hard

IoU at own size of each model, its mean change against the first row with the standard error over images, over all and
over the faint lesions among them; the share under .65; the passes an image takes. No test image is looked at. Writes
results/contrast.json, and of pictures held out docs/images/contrast.jpg.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from common import (
    columns_of_scores,
    draw_outlines,
    in_group,
    iou,
    options_of_models,
    report,
    validation_pictures,
)

LEAST = (0.0, 0.16, 0.24, 0.32)
"""What is raised to, as `Preprocessing.least_contrast`: 0.16 is what a model of all training pictures has, 0.24 one that
was trained without the hard ones; 0 leaves pictures as they are."""
DRAWN = 0.24
SHOWN = 4
PICTURE = Path(__file__).parent.parent / "docs" / "images" / "contrast.jpg"


def main() -> None:
    """Score, print, draw, and write results/contrast.json."""
    options = options_of_models(__doc__).parse_args()

    import torch

    torch.set_num_threads(1)
    from isic_smp.data.resize import resize_image, upsample_probabilities
    from isic_smp.inference.open_predictor import open_predictor
    from isic_smp.inference.predictor import Predictor
    from isic_smp.inference.second_look import FINER

    images, masks = validation_pictures(options.data_dir, options.hold_out)
    faint = in_group("faint", images, masks)
    opened = {model: open_predictor(model).predictor for model in options.models}
    size = next(iter(opened.values())).preprocessing.size * FINER
    shrunk = np.stack([resize_image(image, size) for image in images])
    passes: list[int] = []
    for asked in opened.values():
        asked.model.register_forward_pre_hook(lambda _, inputs: passes.append(len(inputs[0])))

    rows, seen = [], {}
    for flips in (False, True):
        for least in LEAST[:3] if flips else LEAST:
            passes.clear()
            scores, chances = [], []
            for asked in opened.values():
                settings = dataclasses.replace(
                    asked.preprocessing,
                    test_time_flips=flips,
                    second_look=True,
                    least_contrast=least,
                    wrap_below=0.0,
                )
                predictor = Predictor(asked.model, settings)
                maps = [
                    predictor.probabilities(shrunk[n : n + 32]).numpy() for n in range(0, len(shrunk), 32)
                ]
                found = [
                    upsample_probabilities(m, mask.shape)
                    for m, mask in zip(np.concatenate(maps), masks, strict=True)
                ]
                scores.append([iou(c > settings.threshold, m > 0) for c, m in zip(found, masks, strict=True)])
                chances = chances or found  # of the first model, to be drawn
            seen[least, flips] = np.array(scores), chances
            row = {"least contrast": least, "flips": flips}
            row |= columns_of_scores(opened, seen[least, flips][0], seen[0.0, flips][0], faint)
            row |= {"passes": round(sum(passes) / len(images) / len(opened) / (8 if flips else 1), 2)}
            print(row, flush=True)
            rows.append(row)
    title = f"IoU, {len(images)} images, {int(faint.sum())} of them of faint lesions"
    report("contrast", {title: rows}, models=options.models, hold_out=options.hold_out)
    if options.hold_out:  # the usual images have few faint lesions
        draw(images, masks, seen[0.0, False], seen[DRAWN, False], np.flatnonzero(faint))


def draw(images: Sequence, masks: Sequence, plain: tuple, raised: tuple, faint: np.ndarray) -> None:
    """Faint lesions by the first model: the one that lost most by it, and those that gained most."""
    order = faint[np.argsort((raised[0] - plain[0])[0, faint])]
    picked = order[[0, *range(1 - SHOWN, 0)]]
    draw_outlines(PICTURE, images, masks, picked, {"as it is": plain[1], "raised": raised[1]})


if __name__ == "__main__":
    main()
