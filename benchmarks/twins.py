"""How well two experts' masks of one lesion agree: the pictures that show a lesion twice, laid upon each other.

python benchmarks/twins.py --data-dir DIR                    # the shipped model beside the experts
python benchmarks/twins.py --data-dir DIR --model RUN
python benchmarks/twins.py --data-dir DIR --folds RUN_1 … RUN_N     # of each lesion a model that has not seen it

ISIC 2016 shows some lesions twice, in other light, crop and turn, each with a mask of its own
(isic_smp/data/splits/near_duplicates.txt). Of each pair the second picture is moved onto the first, with its mask and
with the mask that a model draws of it; scores are of the part that both show. What the model's two masks differ by
tells how much of what the experts' differ by is due to the moving. With the runs of a cross-validation (`run --fold
K/N`), which keeps both pictures of a lesion in one fold, each pair is asked of the run that has seen neither; pairs of
test pictures alone are left out then. Nothing is trained or chosen. Writes results/twins.json and docs/images/twins.jpg.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from common import as_score, iou, predictors_of_folds, report

SIDE = 512
"""Of the square that pairs are laid upon each other in, in pixels."""
SHOWN = 8
PICTURE = Path(__file__).parent.parent / "docs" / "images" / "twins.jpg"
FIRST, SECOND = (0, 220, 120), (230, 40, 40)
"""Colours of the outlines drawn for the first and for the second picture."""


@dataclass
class Twin:
    """One lesion in two pictures, both as the first shows it: SIDE × SIDE."""

    ids: tuple[str, str]
    tested: tuple[bool, bool]
    """Whether each is a test picture."""
    pictures: tuple[np.ndarray, np.ndarray]
    experts: tuple[np.ndarray, np.ndarray]
    drawn: tuple[np.ndarray, np.ndarray]
    """The model's masks."""
    own: tuple[float, float]
    """IoU of the model's mask with the expert's, of each whole picture at its own size."""


def main() -> None:
    """Align, score, print, draw, and write results/twins.json."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    words.add_argument("--data-dir", type=Path, required=True)
    who = words.add_mutually_exclusive_group()
    who.add_argument("--model", default="isic2016", help="default: the one that comes with the package")
    who.add_argument("--folds", nargs="+", default=[], metavar="RUN")
    options = words.parse_args()

    import torch

    torch.set_num_threads(1)
    twins = found_twins(options.data_dir, options.model, options.folds)
    tested = [twin for twin in twins if any(twin.tested)]
    rows = [as_row("all pairs", twins), as_row("a test picture and one of training", tested)]
    title = f"{len(twins)} lesions in two pictures; mean ± standard error, of the part that both show"
    report("twins", {title: rows}, model=options.folds or options.model)
    of_test = [score for twin in tested for score, test in zip(twin.own, twin.tested, strict=True) if test]
    print(f"\nthe model on the {len(of_test)} test pictures among them: IoU {as_text(of_test)}")
    print(f"experts' IoU under .65: {sum(iou(*twin.experts) < 0.65 for twin in twins)} of {len(twins)}")
    print(f"larger than the model's mask, one expert's against the other's: correlation {habit(twins):+.2f}")
    draw(sorted(twins, key=lambda twin: iou(*twin.experts)))


def found_twins(data_dir: Path, model: str, folds: Sequence[str]) -> list[Twin]:
    """The pairs of which both pictures are there, aligned, and predicted by `model` or by whichever of `folds` saw neither."""
    from isic_smp.data.isic2016 import lesions_seen_twice, load_isic2016
    from isic_smp.data.pairs import read_pair
    from isic_smp.inference.open_predictor import open_predictor

    data = load_isic2016(data_dir)
    here = {pair.id: pair for pair in (*data.train, *data.val, *data.test)}
    test = {pair.id for pair in data.test}
    asked = predictors_of_folds(data, folds) or dict.fromkeys(here, open_predictor(model).predictor)
    twins = []
    for ids in lesions_seen_twice():
        predictor = asked.get(ids[0]) or asked.get(ids[1])
        if predictor is None or not here.keys() >= set(ids):
            continue
        images, masks = zip(*(read_pair(here[id]) for id in ids), strict=True)
        drawn = [chance > predictor.preprocessing.threshold for chance in predictor.predict(images)]
        experts = [mask > 0 for mask in masks]
        one, other = (square(image) for image in images)
        move = movement(one, other)
        twins.append(
            Twin(
                ids=ids,
                tested=(ids[0] in test, ids[1] in test),
                pictures=(one, moved(other, move)),
                experts=laid_together(experts, move),
                drawn=laid_together(drawn, move),
                own=(iou(drawn[0], experts[0]), iou(drawn[1], experts[1])),
            )
        )
    return twins


def laid_together(masks: Sequence[np.ndarray], move: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The masks of the first and the second picture, bool (SIDE, SIDE) each, where both pictures are."""
    first, second = (square(mask.astype(np.float32)) for mask in masks)
    both = moved(np.ones((SIDE, SIDE)), move) > 0.99
    return (first > 0.5) & both, (moved(second, move) > 0.5) & both


def square(image: np.ndarray) -> np.ndarray:
    """A picture or mask at SIDE × SIDE."""
    return cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)


def moved(image: np.ndarray, move: np.ndarray) -> np.ndarray:
    """A second picture as the first shows it; black where it ends."""
    return cv2.warpAffine(image, move, (SIDE, SIDE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def movement(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The affine map, (2, 3), from places in one picture to the same places in the other.

    Features that agree on a similarity (RANSAC) give the start, the pictures' detail the rest (Evangelidis and Psarakis,
    10.1109/TPAMI.2008.113); finer than `isic_smp.data.duplicates`, which need only tell whether two show one lesion.
    """
    grey = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (one, other)]
    even = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(4, 4))
    finder = cv2.SIFT_create(nfeatures=1500, contrastThreshold=0.01)  # type: ignore[attr-defined]  # the stubs lack it
    (here, first), (there, second) = (finder.detectAndCompute(even.apply(picture), None) for picture in grey)
    likest = cv2.BFMatcher().knnMatch(first, second, k=2)
    sure = [best for best, next_best in likest if best.distance < 0.8 * next_best.distance]
    start, _ = cv2.estimateAffinePartial2D(
        np.array([here[match.queryIdx].pt for match in sure], np.float32),
        np.array([there[match.trainIdx].pt for match in sure], np.float32),
        ransacReprojThreshold=6,
    )
    detail = [
        cv2.GaussianBlur(p.astype(np.float32), (0, 0), 1) - cv2.GaussianBlur(p.astype(np.float32), (0, 0), 24)
        for p in grey
    ]
    ending = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 100, 1e-5)
    everywhere = np.ones((SIDE, SIDE), np.uint8)
    _, move = cv2.findTransformECC(
        detail[0], detail[1], start.astype(np.float32), cv2.MOTION_AFFINE, ending, everywhere, 5
    )
    return move


def as_row(name: str, twins: Sequence[Twin]) -> dict[str, Any]:
    """Agreement of the experts, of the model with itself, and of the model with the experts."""
    experts = [iou(*twin.experts) for twin in twins]
    return {
        "lesions": name,
        "pairs": len(twins),
        "experts: IoU": as_text(experts),
        "experts: Dice": as_text([2 * value / (1 + value) for value in experts]),
        "the model's two masks: IoU": as_text([iou(*twin.drawn) for twin in twins]),
        "model and expert: IoU": as_text([float(np.mean(twin.own)) for twin in twins]),
    }


def habit(twins: Sequence[Twin]) -> float:
    """Whether a lesion that one expert draws larger than the model does is drawn larger by the other too: 1 if so, 0 if not.

    Correlation of the logarithms of their areas' ratios.
    """
    larger = [
        [np.log(expert.sum() / drawn.sum()) for expert, drawn in zip(twin.experts, twin.drawn, strict=True)]
        for twin in twins
    ]
    return float(np.corrcoef(np.array(larger).T)[0, 1])


def as_text(values: Sequence[float]) -> str:
    """Mean ± standard error."""
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    return as_score(float(np.mean(values)), error, ".3f")


def draw(twins: Sequence[Twin]) -> None:
    """Pairs from the least to the best agreement, evenly spaced: both pictures with both experts' outlines."""
    picked = [twins[i] for i in np.linspace(0, len(twins) - 1, SHOWN).round().astype(int)]
    tiles = []
    for twin in picked:
        panels = []
        for picture in twin.pictures:
            shown = np.ascontiguousarray(picture)
            for mask, colour in zip(twin.experts, (FIRST, SECOND), strict=True):
                outlines, _ = cv2.findContours(
                    mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
                )
                cv2.drawContours(shown, outlines, -1, colour, 4)
            panels.append(cv2.resize(shown, (200, 200), interpolation=cv2.INTER_AREA))
        caption = np.full((22, 400, 3), 255, np.uint8)
        text = f"{twin.ids[0]}, {twin.ids[1]}: IoU {iou(*twin.experts):.2f}"
        cv2.putText(caption, text, (4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
        tile = np.concatenate([np.concatenate(panels, axis=1), caption])
        tiles.append(np.pad(tile, ((4, 4), (4, 4), (0, 0)), constant_values=255))
    sheet = np.concatenate([np.concatenate(tiles[i : i + 2], axis=1) for i in range(0, len(tiles), 2)])
    cv2.imwrite(str(PICTURE), sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])


if __name__ == "__main__":
    main()
