import dataclasses
import json

import numpy as np
import pytest
import torch

from isic_smp.errors import UserError
from isic_smp.inference.preprocessing import Preprocessing

IMAGENET = Preprocessing(size=4, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def test_pixels_are_scaled_to_one_then_normalised_by_channel():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    expected = (pixels / 255 - np.array(IMAGENET.mean)) / np.array(IMAGENET.std)
    tensor = IMAGENET.to_tensor(pixels)
    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(tensor.numpy(), expected.transpose(0, 3, 1, 2), atol=1e-5)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((1, 4, 4, 3), np.float32),
        np.zeros((1, 5, 4, 3), np.uint8),
        np.zeros((1, 3, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.uint8),
    ],
)
def test_refuses_other_batches(pixels):
    with pytest.raises(ValueError, match=r"expected uint8 images \(B, 4, 4, 3\)"):
        IMAGENET.to_tensor(pixels)


def test_survives_json():
    saved = Preprocessing(
        size=96,
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        threshold=0.4,
        test_time_flips=True,
        largest_piece=True,
        close_bays=True,
        second_look=True,
        least_contrast=0.2,
        wrap_below=0.3,
    )
    assert Preprocessing.from_dict(json.loads(json.dumps(saved.to_dict()))) == saved


def test_a_model_of_before_these_settings_does_without_them():
    older = IMAGENET.to_dict()
    added = ("largest_piece", "second_look", "close_bays", "least_contrast", "wrap_below")
    for name in added:
        del older[name]
    assert Preprocessing.from_dict(older) == IMAGENET
    assert not any(getattr(IMAGENET, name) for name in added)


def test_a_second_look_asks_for_pictures_of_more_pixels_and_the_network_alone_does_not():
    twice = dataclasses.replace(
        IMAGENET, second_look=True, least_contrast=0.2, test_time_flips=True, wrap_below=0.2
    )
    pixels = np.zeros((1, 8, 8, 3), np.uint8)
    assert twice.input_size == 8 and twice.to_tensor(pixels).shape == (1, 3, 8, 8)
    assert twice.of_the_network() == IMAGENET
    with pytest.raises(ValueError, match=r"expected uint8 images \(B, 8, 8, 3\)"):
        twice.to_tensor(pixels[:, ::2, ::2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 0}, "size must be at least 1"),
        ({"size": "128"}, "bad preprocessing"),
        ({"size": 128.5}, "size must be at least 1 pixel, and whole, got 128.5"),
        ({"test_time_flips": "false"}, "test_time_flips must be true or false, got 'false'"),
        ({"close_bays": None}, "close_bays must be true or false, got None"),
        ({"mean": [0.5, 0.5]}, "mean must be three finite numbers"),
        ({"mean": 0.5}, "bad preprocessing"),
        ({"std": [0.5, 0.0, 0.5]}, "std must be above 0"),
        ({"std": [0.5, float("nan"), 0.5]}, "std must be three finite numbers"),
        ({"threshold": 1.0}, "threshold must lie between 0 and 1"),
        ({"wrap_below": 1.5}, "wrap_below must lie between 0 and 1, got 1.5"),
        ({"treshold": 0.5}, "must have the fields"),
    ],
)
def test_impossible_values_are_refused_in_words(change, message):
    with pytest.raises(UserError, match=message):
        Preprocessing.from_dict(IMAGENET.to_dict() | change)
