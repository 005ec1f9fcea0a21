"""Finding one lesion in two pictures, and not finding it in pictures that are merely alike."""

import dataclasses
import signal
import threading
import time

import cv2
import numpy as np
import pytest

from isic_smp.data.duplicates import look_alikes, near_duplicates, sketch
from isic_smp.data.isic2016 import TEST, TRAINING
from isic_smp.data.make_split import LISTS
from isic_smp.data.pairs import find_pairs, read_image


@pytest.fixture(scope="module")
def images(isic_dir):
    """Every picture that has a known near duplicate, and some that have none, by id."""
    twins = set((LISTS / "near_duplicates.txt").read_text().split())
    pairs = [*find_pairs(*(isic_dir / it for it in TRAINING)), *find_pairs(*(isic_dir / it for it in TEST))]
    others = [pair for pair in pairs if pair.id not in twins][::24]
    # These share a ruler with each other, and nothing else.
    rulers = {"ISIC_0000480", "ISIC_0000487", "ISIC_0000488", "ISIC_0000500", "ISIC_0000547"}
    chosen = {pair.id: pair for pair in [*others, *(it for it in pairs if it.id in twins | rulers)]}
    return {id: read_image(pair.image) for id, pair in sorted(chosen.items())}


@pytest.mark.slow
def test_the_pairs_of_isic_2016_are_found_and_no_others(images):
    ids = list(images)
    found = near_duplicates([sketch(image) for image in images.values()])
    expected = {
        tuple(sorted(pair))
        for pair in (line.split() for line in (LISTS / "near_duplicates.txt").read_text().splitlines())
        if set(pair) <= set(ids)
    }
    assert len(expected) > 10
    assert {(ids[it.first], ids[it.second]) for it in found} == expected
    assert not any(it.mirrored for it in found)


def relit(image):
    """The same scene under another light, saved again."""
    coarse = np.clip(image * np.array([0.85, 0.95, 0.8]) + 15, 0, 255).astype(np.uint8)
    return cv2.imdecode(cv2.imencode(".jpg", coarse, [cv2.IMWRITE_JPEG_QUALITY, 70])[1], cv2.IMREAD_COLOR)


CHANGES = {
    "relit": relit,
    "quarter turn": lambda image: np.rot90(relit(image)),
    "mirrored": lambda image: relit(image)[:, ::-1],
    "mirrored and turned": lambda image: np.rot90(relit(image)[:, ::-1]),
    "cropped": lambda image: relit(image)[20:-8, 10:-20],
    "turned and nearer": lambda image: cv2.warpAffine(
        relit(image), cv2.getRotationMatrix2D((128, 128), 30, 1.2), (256, 256), borderMode=cv2.BORDER_REFLECT
    ),
}


def changes():
    """The names of `CHANGES`; slow: those that another one does as well, with more besides."""
    for name in CHANGES:
        yield pytest.param(name, marks=pytest.mark.slow if name in ("quarter turn", "mirrored") else ())


@pytest.mark.parametrize("change", changes())
def test_changed_copies_are_found(images, change):
    twins = set((LISTS / "near_duplicates.txt").read_text().split())
    originals = [image for id, image in images.items() if id not in twins][:16]
    copies = [np.ascontiguousarray(CHANGES[change](image)) for image in originals]
    found = near_duplicates([sketch(image) for image in originals + copies])
    count = len(originals)
    right = [it for it in found if it.second == it.first + count]
    assert len(right) == len(found), "different lesions were taken for one"
    assert len(right) >= 0.85 * count
    assert sum(it.mirrored == ("mirrored" in change) for it in right) >= 0.9 * len(right)


def test_pictures_without_any_detail_give_no_finding_and_no_error():
    flat = [np.full((40, 60, 3), value, np.uint8) for value in (0, 90, 90)]
    assert near_duplicates([sketch(image) for image in flat]) == []
    assert near_duplicates([]) == []
    assert near_duplicates([sketch(flat[0])]) == []


def test_ctrl_c_ends_a_search_at_once():
    """The search runs on threads, which would else go on for minutes."""
    rng = np.random.default_rng(0)
    blank = sketch(np.zeros((64, 64, 3), np.uint8))
    many = [
        dataclasses.replace(
            blank,
            points=rng.uniform(0, 256, (100, 2)).astype(np.float32),
            descriptors=rng.integers(0, 256, (100, 128), dtype=np.uint8),
        )
        for _ in range(600)
    ]
    interrupted = []

    def interrupt():
        interrupted.append(time.monotonic())
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(4, interrupt)  # the index is made by then
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            near_duplicates(many)
        assert time.monotonic() - interrupted[0] < 8
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, former)


def test_look_alikes_come_the_likest_first(images):
    pictures = [sketch(image) for image in list(images.values())[:8]]
    found = look_alikes(pictures, pictures, at_least=-1)
    scores = [score for _, _, score in found]
    assert len(scores) == 8 * 8
    assert scores == sorted(scores, reverse=True)
    assert all(i == j for i, j, _ in found[:8])
    assert scores[:8] == pytest.approx([1] * 8, abs=1e-5)
    assert all(score >= 0.5 for _, _, score in look_alikes(pictures, pictures, at_least=0.5))
    assert look_alikes(pictures, [], at_least=0.5) == []
