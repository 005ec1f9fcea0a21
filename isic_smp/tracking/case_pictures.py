"""Masks of a scored split for a person to look at: the worst ones, and some from the best to the worst."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from isic_smp.assessment.assess import Assessment
from isic_smp.data.pairs import Pair, read_pair
from isic_smp.inference.predictor import Predictor
from isic_smp.tracking.figures import case_grid, overlay, panel

WORST = 4
BETWEEN = 9
"""As many masks from the best to the worst, evenly spaced by rank."""
_QUALITY = 85

Drawing = Callable[..., np.ndarray]
"""`overlay` or `panel`."""


def draw_case(
    how: Drawing, pair: Pair, predictor: Predictor, caption: str, *, binarize_masks: bool = False
) -> np.ndarray:
    """One image with its mask and what `predictor` says of it, drawn by `how`: uint8 (side, side, 3), RGB."""
    image, mask = read_pair(pair, binarize_masks=binarize_masks)
    [probability] = predictor.predict([image])
    return how(image, mask, probability, caption, threshold=predictor.preprocessing.threshold)


def draw_cases(
    found: Assessment,
    pairs: Sequence[Pair],
    predictor: Predictor,
    folder: Path,
    split: str,
    *,
    binarize_masks: bool = False,
) -> None:
    """Write `worst_<split>.jpg`, with each mask's difference, and `range_<split>.jpg`, outlines from the best to the worst.

    Args:
        found: the scores, and which IoU was to be expected.
        pairs: the images that were scored.
        predictor: what predicted them; asked again about the few that are drawn.
        folder: where to write.
        split: named in the files.
        binarize_masks: as it was for the scores.
    """
    from_worst = found.scores.picks("worst", len(pairs))
    places = {name: place for place, name in enumerate(found.scores.ids)}
    by_id = {pair.id: pair for pair in pairs}

    def drawn(name: str, how: Drawing, caption: str) -> np.ndarray:
        return draw_case(how, by_id[name], predictor, caption, binarize_masks=binarize_masks)

    def expected(name: str) -> str:
        return "" if found.expected_iou is None else f"  expected IoU {found.expected_iou[places[name]]:.3f}"

    worst = [drawn(name, panel, f"{name}{expected(name)}") for name in from_worst[:WORST]]
    _save(case_grid(worst), folder / f"worst_{split}.jpg")
    ranks = np.unique(np.linspace(1, len(pairs), BETWEEN).round().astype(int))
    between = [drawn(from_worst[-rank], overlay, f"rank {rank} of {len(pairs)}") for rank in ranks.tolist()]
    _save(case_grid(between), folder / f"range_{split}.jpg")


def _save(picture: np.ndarray, path: Path) -> None:
    Image.fromarray(picture).save(path, quality=_QUALITY)
