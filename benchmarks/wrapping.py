"""How experts outline faint lesions, and what it gives to draw masks so: on pictures left out, or on folds.

python benchmarks/wrapping.py --data-dir DIR                                              # the shipped model, validation images
python benchmarks/wrapping.py --data-dir DIR --models RUN_A RUN_B RUN_C --hold-out hard   # one recipe's seeds, made with --hold-out hard
python benchmarks/wrapping.py --data-dir DIR --folds RUN_1 … RUN_N                        # each picture asked of the fold that has not seen it

The first table is of the experts' masks of all training pictures, by tenths of their contrast: the share of its convex
hull that a mask fills. The second is IoU at own size of each model where lesions fainter than some contrast are wrapped,
and its mean change with the standard error over images, over all and over the faint lesions among them; the share under
.65. No test image is looked at. Writes results/wrapping.json, and of pictures held out docs/images/wrapping.jpg.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from common import (
    asked_pictures,
    columns_of_scores,
    draw_outlines,
    in_group,
    iou,
    options_of_models_or_folds,
    report,
    with_error,
)

PARTS = (0.0, 0.75, 1.0, 1.25)
"""Lesions fainter than this are wrapped, in parts of a model's own `wrap_below`; 0: none."""
SHOWN = 4
PICTURE = Path(__file__).parent.parent / "docs" / "images" / "wrapping.jpg"


def main() -> None:
    """Score, print, draw, and write results/wrapping.json."""
    options = options_of_models_or_folds(__doc__).parse_args()

    import torch

    torch.set_num_threads(1)
    images, masks, asked = asked_pictures(options)
    faint = in_group("faint", images, masks)
    rows, seen = [], {}
    for flips in (False, True):
        answers = {model: Answers(predictors, images, flips=flips) for model, predictors in asked.items()}
        for part in PARTS:
            found = [answer.masks(part) for answer in answers.values()]
            scores = np.array(
                [[iou(f, m > 0) for f, m in zip(by_one, masks, strict=True)] for by_one in found]
            )
            seen[part, flips] = scores, found[0]
            plain = seen[0.0, flips][0]
            row = {"wrapped below": part, "flips": flips}
            row |= columns_of_scores(asked, scores, plain, faint)
            row |= {"redrawn": f"{(scores != plain).mean():.0%}"}
            print(row, flush=True)
            rows.append(row)
    title = f"IoU, {len(images)} images, {int(faint.sum())} of them of faint lesions"
    tables = {"Experts' masks": experts(options.data_dir), title: rows}
    report("wrapping", tables, models=options.models, hold_out=options.hold_out, folds=options.folds)
    if options.hold_out:  # the usual images have few faint lesions
        draw(images, masks, seen[0.0, False], seen[1.0, False])


class Answers:
    """What predictors, one an image, say of images, asked once for all the masks that are made of it."""

    def __init__(self, predictors: Sequence, images: Sequence, *, flips: bool) -> None:
        import torch

        from isic_smp.data.resize import resize_image
        from isic_smp.inference.predictor import Predictor

        self.sizes = [image.shape[:2] for image in images]
        self.parts = []
        for one in dict.fromkeys(predictors):
            settings = dataclasses.replace(one.preprocessing, test_time_flips=flips)
            own = [n for n, predictor in enumerate(predictors) if predictor is one]
            shrunk = np.stack([resize_image(images[n], settings.input_size) for n in own])
            asked = Predictor(one.model, settings)
            logits = torch.cat([asked.logits(shrunk[n : n + 32]) for n in range(0, len(own), 32)])
            self.parts.append((asked, own, shrunk, logits))

    def masks(self, part: float) -> list[np.ndarray]:
        """Bool (H, W) each, `part` being one of `PARTS`."""
        from isic_smp.data.resize import upsample_probabilities
        from isic_smp.inference.predictor import Predictor

        found = {}
        for asked, own, shrunk, logits in self.parts:
            settings = asked.preprocessing
            settings = dataclasses.replace(settings, wrap_below=part * settings.wrap_below)
            maps = Predictor(asked.model, settings).from_logits(logits, shrunk).numpy()
            for n, chance in zip(own, maps, strict=True):
                found[n] = upsample_probabilities(chance, self.sizes[n]) > settings.threshold
        return [found[n] for n in range(len(found))]


def experts(data_dir: Path) -> list[dict]:
    """The share of its convex hull that the mask of a training picture fills, by tenths of their contrast."""
    import torch

    from isic_smp.data.isic2016 import load_isic2016
    from isic_smp.data.pairs import read_pair
    from isic_smp.data.resize import resize_image, resize_mask
    from isic_smp.inference.contrast import difference
    from isic_smp.inference.wrapping import wrap

    data = load_isic2016(data_dir)
    found = []
    for pair in (*data.train, *data.val):
        image, mask = (
            resize(p, 128) for p, resize in zip(read_pair(pair), (resize_image, resize_mask), strict=True)
        )
        colours = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
        contrast = difference(colours, torch.from_numpy(mask)[None, None].float(), (1.0, 1.0, 1.0)).contrast
        found.append((contrast.item(), mask.sum() / (wrap(mask.astype(np.float32), 0.5) > 0.5).sum()))
    contrasts, filled = np.array([one for one in found if not np.isnan(one[0])]).T
    ends = np.quantile(contrasts, np.linspace(0, 1, 11))
    rows = []
    for low, high in itertools.pairwise(ends):
        share = filled[(contrasts >= low) & (contrasts <= high)]
        rows.append(
            {
                "contrast": f"{low:.2f} to {high:.2f}",
                "images": len(share),
                "of its hull": with_error(share).lstrip("+").replace("0.", "."),
            }
        )
    return rows


def draw(images: Sequence, masks: Sequence, plain: tuple, wrapped: tuple) -> None:
    """By the first model: the lesion that lost most by it, and those that gained most."""
    order = np.argsort((wrapped[0] - plain[0])[0])
    picked = order[[0, *range(1 - SHOWN, 0)]]
    as_maps = [[np.float32(mask) for mask in by_one[1]] for by_one in (plain, wrapped)]
    draw_outlines(PICTURE, images, masks, picked, dict(zip(("as seen", "wrapped"), as_maps, strict=True)))


if __name__ == "__main__":
    main()
