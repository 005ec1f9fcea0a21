"""The part around the lesion is looked at again, enlarged; all else stays what one look says."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from isic_smp.inference.second_look import look_twice

SIDE = 64
"""Of the network; pictures have twice as many pixels."""


class Darkness:
    """A stand-in for a network that marks what is dark, in blocks of 2 × 2 pixels; counts the pictures that it is shown."""

    def __init__(self) -> None:
        self.pictures = 0

    def __call__(self, batch: Tensor) -> Tensor:
        assert batch.shape[1:] == (3, SIDE, SIDE)
        self.pictures += len(batch)
        dark = functional.avg_pool2d(batch.mean(1, keepdim=True), 2) < 0
        return functional.interpolate(dark * 8.0 - 4.0, scale_factor=2)


def disc(y: float, x: float, radius: float) -> Tensor:
    """Dark, round and sharp on a bright ground, (3, 2 S, 2 S); the middle and the radius in parts of the frame."""
    places = (np.arange(2 * SIDE) + 0.5) / (2 * SIDE)
    dark = (places[:, None] - y) ** 2 + (places[None] - x) ** 2 < radius**2
    return torch.from_numpy(np.where(dark, -4.0, 4.0).astype(np.float32)).expand(3, -1, -1)


def iou(logits: Tensor, picture: Tensor) -> float:
    found, truth = logits[0] > 0, picture[0] < 0
    return float((found & truth).sum() / (found | truth).sum())


def one_look(network: Darkness, batch: Tensor) -> Tensor:
    return functional.interpolate(network(functional.avg_pool2d(batch, 2)), scale_factor=2, mode="bilinear")


SMALL = [(0.5, 0.5, 0.08), (0.06, 0.94, 0.06), (0.93, 0.1, 0.07), (0.3, 0.6, 0.1)]


@pytest.mark.parametrize("place", SMALL)
def test_a_small_lesion_is_drawn_more_finely_and_where_it_is(place):
    batch = disc(*place)[None]
    once, twice = one_look(Darkness(), batch), look_twice(Darkness(), batch)
    assert iou(twice[0], batch[0]) > max(0.9, iou(once[0], batch[0]) + 0.02)


def test_a_second_pass_is_made_only_where_it_shows_more():
    network = Darkness()
    batch = torch.stack([disc(0.5, 0.5, 0.42), disc(0.5, 0.5, 0.1), torch.full((3, 2 * SIDE, 2 * SIDE), 4.0)])
    found = look_twice(network, batch)
    assert network.pictures == len(batch) + 1
    once = one_look(Darkness(), batch)
    unchanged = [0, 2]  # the one that fills the frame, and the picture without any
    assert torch.equal(found[unchanged], once[unchanged])
    assert not torch.equal(found[1], once[1])


def test_what_lies_far_from_the_lesion_stays_as_it_was():
    batch = disc(0.25, 0.25, 0.08)[None]
    looks = []

    def network(pictures: Tensor) -> Tensor:
        looks.append(pictures)
        return Darkness()(pictures) - len(looks) / 8  # so that each place tells which look it comes from

    found, once = look_twice(network, batch), one_look(Darkness(), batch) - 1 / 8
    assert torch.equal(found[..., SIDE:], once[..., SIDE:])
    middle = SIDE // 2
    assert found[0, 0, middle, middle] == 4 - 2 / 8 and once[0, 0, middle, middle] == 4 - 1 / 8


def test_a_lesion_at_the_frame_is_looked_at_within_the_frame():
    noise = torch.rand(3, 2 * SIDE, 2 * SIDE, generator=torch.Generator().manual_seed(0))
    looks = []

    def network(pictures: Tensor) -> Tensor:
        looks.append(pictures)
        return Darkness()(pictures)

    look_twice(network, (disc(0.03, 0.97, 0.07) + noise)[None])
    part = looks[1][0]
    # Beyond the frame there is nothing but its outermost pixels, repeated.
    assert not torch.equal(part[:, 0], part[:, 1]) and not torch.equal(part[..., -1], part[..., -2])


def test_a_stray_spot_does_not_hide_the_lesion():
    lesion, spot = disc(0.3, 0.3, 0.1), disc(0.7, 0.7, 0.03)
    batch = torch.minimum(lesion, spot)[None]
    quarter = slice(None, SIDE)
    once, twice = (look(Darkness(), batch)[0, :, quarter, quarter] for look in (one_look, look_twice))
    assert one_look(Darkness(), batch)[0, 0, SIDE:].max() > 0  # the spot is seen
    assert iou(twice, lesion[:, quarter, quarter]) > iou(once, lesion[:, quarter, quarter])


def test_each_picture_is_looked_at_for_itself():
    batch = torch.stack([disc(*place) for place in SMALL])
    together = look_twice(Darkness(), batch)
    for picture, found in zip(batch, together, strict=True):
        torch.testing.assert_close(look_twice(Darkness(), picture[None])[0], found)
