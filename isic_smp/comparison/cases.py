"""The images on which two groups differ most, predicted again by their saved models, side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from isic_smp.comparison.effects import METRIC_NAMES, Comparison
from isic_smp.comparison.groups import Group
from isic_smp.comparison.runs import Metric, ScoredRun
from isic_smp.data.isic2016 import LesionData
from isic_smp.data.pairs import Pair, read_pair
from isic_smp.inference.load import load_bundle
from isic_smp.inference.predictor import Predictor
from isic_smp.tracking.figures import overlay, plain
from isic_smp.training.metrics import confusion, per_image

SIDE, HEADER, GAP = 384, 32, 4
SAME_SCORE = 0.02
"""How far a score computed again may lie from the recorded one: runs may have been scored in bfloat16."""


@dataclass(frozen=True)
class Case:
    """An image, and the run of each group that stands for the group on it."""

    index: int
    """Place among the scored images."""
    image_id: str
    runs: tuple[ScoredRun, ScoredRun]


def pick_cases(comparison: Comparison, count: int) -> list[Case]:
    """Up to `count` images on which b gains most, then up to `count` on which it loses most.

    Of each group, the run is shown whose score on the image is nearest to the group's mean.
    """
    difference = comparison.difference
    order = np.argsort(-difference, kind="stable")
    gains = [int(i) for i in order[:count] if difference[i] > 0]
    losses = [int(i) for i in order[::-1][:count] if difference[i] < 0]
    a, b = comparison.a, comparison.b
    return [Case(i, a.runs[0].ids[i], (_typical(a, i), _typical(b, i))) for i in gains + losses]


def draw_cases(
    comparison: Comparison,
    cases: Sequence[Case],
    data: LesionData,
    path: Path,
    *,
    diagnosis: Mapping[str, str] | None = None,
    tracking_uri: str | None = None,
) -> list[str]:
    """Draw a row a case: the image, then with true and predicted outlines of a's model and of b's.

    Args:
        comparison: what is compared.
        cases: at least one, of `pick_cases`.
        data: the data that the runs were scored on.
        path: PNG file to write.
        diagnosis: of each image id, where known.
        tracking_uri: MLflow store of the models.

    Returns:
        A sentence for each run whose saved model does not give the recorded scores any more.

    Raises:
        UserError: a model or an image that cannot be read.
    """
    pairs = {pair.id: pair for pair in (*data.test, *data.val, *data.train)}
    shown = [pairs[case.image_id] for case in cases]
    panels, changed = _overlays(cases, shown, comparison, tracking_uri)
    rows = []
    for case, panel in zip(cases, panels, strict=True):
        image_id = case.image_id
        area = comparison.a.runs[0].lesion_area[case.index]
        words = [image_id, f"lesion {area:.1%} of the image"]
        if diagnosis and diagnosis.get(image_id):
            words.append(diagnosis[image_id])
        gain = f"{comparison.difference[case.index]:+.3f} {METRIC_NAMES[comparison.metric]}"
        words.append(f"{comparison.b.label} {gain}" + " on the mean of seeds" * _has_seeds(comparison))
        rows.append(_row(panel, "   ·   ".join(words)))
    gap = np.full((GAP * 2, rows[0].shape[1], 3), 255, np.uint8)
    stacked = [part for row in rows for part in (row, gap)][:-1]
    Image.fromarray(np.concatenate(stacked)).save(path, optimize=True)
    return [
        f"The saved model of {name} does not give its recorded scores any more: its outlines are not what was compared."
        for name in changed
    ]


def _has_seeds(comparison: Comparison) -> bool:
    return len(comparison.a.runs) > 1 or len(comparison.b.runs) > 1


def _typical(group: Group, index: int) -> ScoredRun:
    distance = np.abs(group.scores[:, index] - group.per_image[index])
    run = group.runs[int(distance.argmin())]
    return run.member_for(run.ids[index])


def _overlays(
    cases: Sequence[Case], pairs: Sequence[Pair], comparison: Comparison, tracking_uri: str | None
) -> tuple[list[list[np.ndarray]], list[str]]:
    """Of each case the plain image and the two overlays, and the names of runs whose models have changed.

    Each model is loaded once, one at a time.
    """
    # The runs were scored on these masks already, so grey values have been dealt with one way or the other.
    pictures = [read_pair(pair, binarize_masks=True) for pair in pairs]
    panels, changed = [[plain(image, side=SIDE)] for image, _ in pictures], []
    for side, group in enumerate((comparison.a, comparison.b)):
        for run in (member for whole in group.runs for member in whole.members):
            chosen = [n for n, case in enumerate(cases) if case.runs[side] is run]
            if not chosen:
                continue
            bundle = load_bundle(run.model, tracking_uri=tracking_uri)
            found = Predictor(bundle.model, bundle.preprocessing).predict([pictures[n][0] for n in chosen])
            seed = f" (seed {run.seed})" if len(group.runs) > 1 else ""
            for n, probability in zip(chosen, found, strict=True):
                image, mask = pictures[n]
                threshold = bundle.preprocessing.threshold
                again = _score(mask > 0, probability > threshold, comparison.metric)
                recorded = run.score_of(cases[n].image_id)
                if abs(again - recorded) > SAME_SCORE and run.name not in changed:
                    changed.append(run.name)
                panels[n].append(
                    overlay(image, mask, probability, f"{group.label}{seed}", threshold=threshold, side=SIDE)
                )
    return panels, changed


def _score(truth: np.ndarray, predicted: np.ndarray, metric: Metric) -> float:
    counts = confusion(torch.from_numpy(predicted)[None], torch.from_numpy(truth)[None])
    return float(per_image(counts)[metric])


def _row(panels: Sequence[np.ndarray], words: str) -> np.ndarray:
    """Panels side by side under a line of words."""
    gap = np.full((SIDE, GAP, 3), 255, np.uint8)
    line = np.concatenate([part for panel in panels for part in (panel, gap)][:-1], axis=1)
    header = Image.new("RGB", (line.shape[1], HEADER), (255, 255, 255))
    font = ImageFont.load_default(17)
    ImageDraw.Draw(header).text((6, HEADER / 2), words, fill=(0, 0, 0), font=font, anchor="lm")
    return np.concatenate([np.asarray(header), line])
