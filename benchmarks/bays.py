"""What closing the bays of masks gives: one model, discs of several sizes, on pictures left out.

python benchmarks/bays.py --data-dir DIR                                    # the shipped model, validation images
python benchmarks/bays.py --data-dir DIR --model RUN --hold-out hard        # a run that was made with --hold-out hard

IoU at own size, its change with the standard error over images, and the share under .65. No test image is looked at.
Writes results/bays.json, and of the shipped model docs/images/bays.jpg.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from common import as_score, draw_outlines, iou, options_of_a_model, report, validation_pictures

REACHES = (0.0, 0.2, 0.3, 0.4, 0.5)
"""Radius of the disc, in parts of the lesion's; 0 leaves masks as they are."""
SHOWN = 4
PICTURE = Path(__file__).parent.parent / "docs" / "images" / "bays.jpg"


def main() -> None:
    """Score, print, draw, and write results/bays.json."""
    options = options_of_a_model(__doc__).parse_args()

    import torch

    torch.set_num_threads(1)
    from isic_smp.data.resize import resize_image, upsample_probabilities
    from isic_smp.inference import bays
    from isic_smp.inference.open_predictor import open_predictor
    from isic_smp.inference.predictor import Predictor

    images, masks = validation_pictures(options.data_dir, options.hold_out)
    opened = open_predictor(options.model).predictor
    chosen, rows, seen = bays.REACH, [], {}
    for flips in (False, True):
        settings = dataclasses.replace(opened.preprocessing, test_time_flips=flips, wrap_below=0.0)
        size, model = settings.input_size, opened.model
        looked = Predictor(model, settings)
        shrunk = np.stack([resize_image(image, size) for image in images])
        logits = torch.cat([looked.logits(image[None]) for image in shrunk])
        for reach in REACHES:
            bays.REACH = reach or chosen
            finish = dataclasses.replace(settings, close_bays=reach > 0)
            shaped = Predictor(model, finish).from_logits(logits, shrunk)
            chances = [
                upsample_probabilities(m.numpy(), mask.shape) for m, mask in zip(shaped, masks, strict=True)
            ]
            scores = np.array(
                [iou(c > settings.threshold, m > 0) for c, m in zip(chances, masks, strict=True)]
            )
            seen[reach, flips] = scores, chances
            change = scores - seen[0.0, flips][0]
            error = change.std() / np.sqrt(len(change))
            row = {"disc": reach, "flips": flips, "IoU": as_score(scores.mean())}
            row |= {
                "change": f"{change.mean():+.4f} ± {error:.4f}",
                "failed": f"{(scores < 0.65).mean():.1%}",
            }
            print(row, flush=True)
            rows.append(row)
    title = f"{options.model}, {len(images)} images"
    report("bays", {title: rows}, model=options.model, hold_out=options.hold_out)
    if not options.hold_out:  # the picture is of the usual images
        draw(images, masks, seen[0.0, True], seen[chosen, True])


def draw(images: Sequence, masks: Sequence, open_: tuple, closed: tuple) -> None:
    """From the mask that lost most by closing its bays to the one that gained most."""
    order = np.argsort(closed[0] - open_[0])
    picked = order[[0, 1, *range(2 - SHOWN, 0)]]
    draw_outlines(PICTURE, images, masks, picked, {"as seen": open_[1], "bays closed": closed[1]})


if __name__ == "__main__":
    main()
