"""What a second look gives and costs: one model, asked once and twice, closer and less close, on pictures left out.

python benchmarks/second_look.py --data-dir DIR                                    # the shipped model, validation images
python benchmarks/second_look.py --data-dir DIR --model RUN --hold-out hard        # a run that was made with --hold-out hard

IoU at own size, over all images and over the small lesions among them; the share of images that are looked at again; and
the time of a prediction, in parts of that without a second look, on one thread. No test image is looked at. Writes
results/second_look.json and docs/images/second_look.jpg.
"""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from common import as_score, draw_outlines, in_group, iou, options_of_a_model, report, validation_pictures

ROOMS = (None, 2.2, 1.6, 1.3)
"""Side of the part that is looked at again, in parts of the lesion's; None is one look."""
SHOWN = 4
PICTURE = Path(__file__).parent.parent / "docs" / "images" / "second_look.jpg"


def main() -> None:
    """Score, print, draw, and write results/second_look.json."""
    options = options_of_a_model(__doc__).parse_args()

    import torch

    torch.set_num_threads(1)
    from isic_smp.inference import second_look
    from isic_smp.inference.open_predictor import open_predictor
    from isic_smp.inference.predictor import Predictor

    images, masks = validation_pictures(options.data_dir, options.hold_out)
    small = in_group("small", images, masks)
    opened = open_predictor(options.model).predictor
    passes: list[int] = []
    opened.model.register_forward_pre_hook(lambda _, inputs: passes.append(len(inputs[0])))
    chosen, rows, seen = second_look.ROOM, [], {}
    for room in ROOMS:
        found: dict = {"part looked at again": f"{room} times the lesion" if room else "none"}
        for flips in (False, True):
            settings = dataclasses.replace(
                opened.preprocessing,
                test_time_flips=flips,
                second_look=room is not None,
                least_contrast=0.0,  # which asks for second looks of its own
                wrap_below=0.0,
            )
            second_look.ROOM = room or chosen
            predictor = Predictor(opened.model, settings)
            predictor.predict(images[:8])
            passes.clear()
            start = time.perf_counter()
            chances = predictor.predict(images)
            seconds = time.perf_counter() - start
            scores = np.array(
                [iou(c > settings.threshold, m > 0) for c, m in zip(chances, masks, strict=True)]
            )
            seen[room, flips] = scores, chances, seconds
            label = ", flips" if flips else ""
            found[f"IoU{label}"] = as_score(scores.mean())
            found[f"small{label}"] = as_score(scores[small].mean())
            if not flips:
                found["looked at again"] = f"{100 * (sum(passes) / len(images) - 1):.0f} %"
                found["time"] = round(seconds / seen[None, False][2], 2)
        rows.append(found)
    title = f"{options.model}, {len(images)} images, {int(small.sum())} of them small lesions"
    report("second_look", {title: rows}, model=options.model, hold_out=options.hold_out)
    if options.hold_out:
        return  # the picture is of the usual images
    once, twice = seen[None, True], seen[chosen, True]
    draw(images, masks, once, twice, np.flatnonzero(small))


def draw(images: Sequence, masks: Sequence, once: tuple, twice: tuple, small: np.ndarray) -> None:
    """Small lesions, from the one that lost most by the second look to the one that gained most."""
    order = small[np.argsort((twice[0] - once[0])[small])]
    picked = order[np.linspace(0, len(order) - 1, SHOWN).round().astype(int)]
    draw_outlines(PICTURE, images, masks, picked, {"one look": once[1], "two looks": twice[1]})


if __name__ == "__main__":
    main()
