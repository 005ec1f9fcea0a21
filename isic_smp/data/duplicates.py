"""Pictures of the same lesion, in another light, crop, scale or turn.

Blobs on skin all look alike when small, so likeness of thumbnails alone raises hundreds of false
alarms (`look_alikes` gives the likest, for the eye to judge). A near duplicate is confirmed by detail,
in the way of image retrieval:

1. Up to 100 SIFT features an image (Lowe 2004; root-normalised as in Arandjelović and Zisserman
   2012), and their mirror images, look for their nearest neighbours among the features of all images.
   Images whose features meet often become candidates: the work grows with N log N, not N².
2. A candidate's features are matched one to one, and must agree on one similarity transform (RANSAC).
3. The picture, moved by that transform, must then correlate with the other one, pixel by pixel.

On ISIC 2016 this found 24 pairs, all of them true to the eye.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from tqdm import tqdm

_FEATURES = 100
_SIDE = 256  # of the square that features are found in, in pixels
_SMALL = 96  # of the square that is correlated after alignment
_THUMB = 32  # of the square that look-alikes are judged by

_CANDIDATES = 8  # per image; the true ones of ISIC 2016 come first or second
_VOTES = 4  # features that must meet for an image to become a candidate
_RATIO = 0.64  # of squared distances: Lowe's 0.8
_SURE_MATCHES, _SURE_CORRELATION = 8, 0.3
_FEW_MATCHES, _HIGH_CORRELATION = 5, 0.7


@dataclass(frozen=True)
class Sketch:
    """What is kept of an image to compare it with others; about 25 kB.

    Attributes:
        points: float32 (K, 2), x and y of the features, in pixels of a square of 256.
        descriptors: uint8 (K, 128).
        grey: uint8 (96, 96).
        thumbnail: uint8 RGB (32, 32, 3).
    """

    points: np.ndarray
    descriptors: np.ndarray
    grey: np.ndarray
    thumbnail: np.ndarray


@dataclass(frozen=True)
class Likeness:
    """Two images, by their positions in the sequence given, that show the same lesion.

    Attributes:
        matches: features that agree on one transform.
        correlation: of the two pictures' detail after alignment, -1 to 1.
        mirrored: whether one is like the other's mirror image.
    """

    first: int
    second: int
    matches: int
    correlation: float
    mirrored: bool


def sketch(image: np.ndarray) -> Sketch:
    """Features and small versions of a uint8 RGB image (H, W, 3)."""
    square = cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(square, cv2.COLOR_RGB2GRAY)
    # Equalised locally, so that a pale or badly lit lesion has features too.
    even = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(4, 4)).apply(grey)
    finder = cv2.SIFT_create(nfeatures=_FEATURES, contrastThreshold=0.01)  # type: ignore[attr-defined]  # the stubs lack it
    found, raw = finder.detectAndCompute(even, None)
    raw = np.zeros((0, 128), np.float32) if raw is None else raw[:_FEATURES]
    roots = np.sqrt(raw / np.maximum(raw.sum(axis=1, keepdims=True), 1e-9))
    return Sketch(
        points=np.array([key.pt for key in found[:_FEATURES]], np.float32).reshape(-1, 2),
        descriptors=np.round(255 * roots).astype(np.uint8),
        grey=cv2.resize(grey, (_SMALL, _SMALL), interpolation=cv2.INTER_AREA),
        thumbnail=cv2.resize(square, (_THUMB, _THUMB), interpolation=cv2.INTER_AREA),
    )


def near_duplicates(sketches: Sequence[Sketch], *, progress: bool = False) -> list[Likeness]:
    """All pairs of `sketches` that show the same lesion, the surest first.

    Flips, turns by any angle, crops, scales from one half to two, and other light are seen through;
    a picture without detail (evenly dark, or blurred) may be missed.

    Args:
        sketches: of the pictures.
        progress: show bars on stderr; a thousand pictures take a minute or two.
    """
    found: dict[tuple[int, int], Likeness] = {}
    as_is, turned = _candidates(sketches, progress)
    candidates = [*((pair, False) for pair in as_is), *((pair, True) for pair in turned)]
    bar = tqdm(candidates, desc="comparing", unit=" pairs", disable=not progress)
    for (first, second), mirrored in bar:
        if (first, second) not in found and (
            likeness := _compare(sketches, first, second, mirrored=mirrored)
        ):
            found[first, second] = likeness
    return sorted(found.values(), key=lambda it: (-it.matches, it.first, it.second))


def look_alikes(
    ones: Sequence[Sketch], others: Sequence[Sketch], *, at_least: float = 0.9
) -> list[tuple[int, int, float]]:
    """Pairs whose thumbnails are alike, the likest first: position in `ones`, in `others`, and correlation.

    Colour and place count, turns and flips are not seen through; most are different lesions.
    """
    if not ones or not others:
        return []
    right = np.stack([_outline(it.thumbnail) for it in others])
    pairs = []
    for i, it in enumerate(ones):
        likeness = right @ _outline(it.thumbnail)
        pairs += [(i, int(j), float(likeness[j])) for j in np.flatnonzero(likeness >= at_least)]
    return sorted(pairs, key=lambda pair: -pair[2])


def _outline(thumbnail: np.ndarray) -> np.ndarray:
    """A unit vector of what stands out from its surroundings, less towards the frame's edge."""
    picture = thumbnail.astype(np.float32)
    picture = picture - cv2.GaussianBlur(picture, (0, 0), _THUMB / 8)
    window = np.sqrt(np.hanning(_THUMB + 2)[1:-1]).astype(np.float32)
    picture = (picture - picture.mean(axis=(0, 1))) * np.outer(window, window)[..., None]
    return (picture / max(float(np.linalg.norm(picture)), 1e-9)).ravel()


def _candidates(
    sketches: Sequence[Sketch], progress: bool
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Pairs (first < second) of images whose features are often nearest neighbours; as is, and mirrored."""
    owner = np.repeat(np.arange(len(sketches)), [len(it.descriptors) for it in sketches])
    if len(owner) < 16:  # the index wants more features than the neighbours it is asked for
        return [], []
    features = np.concatenate([it.descriptors for it in sketches]).astype(np.float32)
    randomised_trees = {"algorithm": 1, "trees": 8}
    index = cv2.flann_Index(features, randomised_trees)  # type: ignore[attr-defined]

    stop = threading.Event()

    def meet(mirrored: bool) -> list[tuple[int, int]]:
        pairs: set[tuple[int, int]] = set()
        # Both threads take the same time: the bar of one speaks for both.
        for this, it in enumerate(
            tqdm(sketches, "searching", unit=" pictures", disable=mirrored or not progress)
        ):
            if stop.is_set():
                break
            if not len(it.descriptors):
                continue
            query = (_mirror(it.descriptors) if mirrored else it.descriptors).astype(np.float32)
            neighbours, _ = index.knnSearch(query, 8, params={"checks": 64})
            votes = np.bincount(
                owner[np.clip(neighbours.ravel(), 0, len(owner) - 1)], minlength=len(sketches)
            )
            votes[this] = 0
            likely = np.argsort(-votes, kind="stable")[:_CANDIDATES]
            pairs |= {(min(this, int(it)), max(this, int(it))) for it in likely if votes[it] >= _VOTES}
        return sorted(pairs)

    with ThreadPoolExecutor(2) as pool:  # a search lets go of the interpreter lock
        try:
            as_is, mirrored = pool.map(meet, (False, True))
        finally:
            stop.set()  # else an interruption would wait until all is searched
    return as_is, mirrored


def _mirror(descriptors: np.ndarray) -> np.ndarray:
    """Descriptors of the mirrored picture: 4 × 4 cells flipped across the axis, 8 directions negated."""
    cells = descriptors.reshape(-1, 4, 4, 8)
    return cells[:, ::-1][..., [0, 7, 6, 5, 4, 3, 2, 1]].reshape(-1, 128)


def _compare(sketches: Sequence[Sketch], first: int, second: int, *, mirrored: bool) -> Likeness | None:
    one, two = sketches[first], sketches[second]
    descriptors, points, grey = two.descriptors, two.points, two.grey
    if mirrored:
        descriptors, grey = _mirror(descriptors), grey[:, ::-1]
        points = np.array([_SIDE - 1, 0], np.float32) + points * np.array([-1, 1], np.float32)
    here, there = _match(one.descriptors.astype(np.float32), descriptors.astype(np.float32))
    if len(here) < _FEW_MATCHES:
        return None
    transform, agree = cv2.estimateAffinePartial2D(one.points[here], points[there], ransacReprojThreshold=4)
    if transform is None or not 0.5 < np.hypot(transform[0, 0], transform[0, 1]) < 2:
        return None
    matches = int(agree.sum())
    if matches < _FEW_MATCHES:
        return None
    correlation = _aligned_correlation(one.grey, grey, transform)
    enough = _SURE_CORRELATION if matches >= _SURE_MATCHES else _HIGH_CORRELATION
    return Likeness(first, second, matches, correlation, mirrored) if correlation >= enough else None


def _match(one: np.ndarray, two: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions in `one` and in `two` of features that match far better than any other, one to one."""
    if len(two) < 2:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    distance = (one**2).sum(1)[:, None] + (two**2).sum(1) - 2 * one @ two.T
    nearest, second = np.partition(distance, 1, axis=1)[:, :2].T
    best = distance.argmin(1)
    rows = np.flatnonzero(nearest < _RATIO * second)
    taken: dict[int, int] = {}
    for row in rows[np.argsort(nearest[rows])]:
        taken.setdefault(int(best[row]), int(row))
    return np.array(list(taken.values()), np.int64), np.array(list(taken), np.int64)


def _aligned_correlation(one: np.ndarray, two: np.ndarray, transform: np.ndarray) -> float:
    """Correlation of two grey pictures' detail, after `two` is moved by `transform`, refined."""
    scale = _SMALL / _SIDE
    move: np.ndarray = (transform * [[1, 1, scale], [1, 1, scale]]).astype(np.float32)
    a, b = one.astype(np.float32), np.ascontiguousarray(two, np.float32)
    try:
        ending = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 1e-3)
        everywhere = np.ones(a.shape, np.uint8)
        _, move = cv2.findTransformECC(
            _detail(a, 12), _detail(b, 12), move, cv2.MOTION_AFFINE, ending, everywhere, 5
        )
    except cv2.error:  # it did not converge: the transform stands as the features gave it
        pass
    backwards = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(b, move, (_SMALL, _SMALL), flags=backwards)
    inside = cv2.warpAffine(np.ones_like(b), move, (_SMALL, _SMALL), flags=backwards) > 0.99
    if inside.sum() < _SMALL**2 / 10:
        return -1.0
    return float(np.corrcoef(_detail(a, 6)[inside], _detail(moved, 6)[inside])[0, 1])


def _detail(picture: np.ndarray, coarsest: float) -> np.ndarray:
    """What is larger than a pixel and smaller than `coarsest` pixels."""
    return cv2.GaussianBlur(picture, (0, 0), 1) - cv2.GaussianBlur(picture, (0, 0), coarsest)
