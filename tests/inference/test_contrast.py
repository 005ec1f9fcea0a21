"""Faint lesions get the contrast that they lack, and nothing else changes."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from isic_smp.inference.contrast import MOST, raised, raising
from isic_smp.inference.faintest import faintest
from isic_smp.inference.second_look import look_twice

SIDE = 64
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
SKIN = (0.8, 0.6, 0.5)
LEAST = 0.25


def darker(by: float) -> tuple[float, ...]:
    """A colour at that distance from the skin's."""
    return tuple(channel - by / math.sqrt(3) for channel in SKIN)


def normalised(picture: Tensor) -> Tensor:
    return (picture - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def in_colours(pictures: Tensor) -> Tensor:
    return pictures * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]


def square(side: int, half: int) -> Tensor:
    """A lesion in the middle, bool (S, S)."""
    lesion = torch.zeros(side, side, dtype=torch.bool)
    lesion[side // 2 - half : side // 2 + half, side // 2 - half : side // 2 + half] = True
    return lesion


def coloured(lesion: Tensor, colour: tuple[float, ...]) -> Tensor:
    """(3, S, S), from 0 to 1."""
    picture = torch.tensor(SKIN)[:, None, None].expand(3, *lesion.shape).clone()
    picture[:, lesion] = torch.tensor(colour)[:, None]
    return picture


def seen_again(picture: Tensor, lesion: Tensor) -> Tensor:
    """The picture, 0 to 1, as the second look sees it after a first one that found `lesion`."""
    batch, logits = normalised(picture)[None], (lesion * 8.0 - 4)[None, None]
    return in_colours(raised(batch, raising(batch, logits, STD, LEAST), MEAN, STD))[0]


@pytest.mark.parametrize(
    ("distance", "wanted"),
    [(0.2, LEAST), (0.15, LEAST), (0.05, 0.05 * MOST), (0.3, 0.3), (0.6, 0.6)],
)
def test_a_faint_lesion_comes_to_differ_enough_from_skin_that_stays(distance, wanted):
    lesion = square(SIDE, 12)
    found = seen_again(coloured(lesion, darker(distance)), lesion)
    skin = torch.tensor(SKIN)[:, None].expand(3, int((~lesion).sum()))
    torch.testing.assert_close(found[:, ~lesion], skin)
    assert float((found[:, lesion] - skin[:, :1]).norm(dim=0).mean()) == pytest.approx(wanted, abs=1e-4)


def test_what_is_not_faint_stays_to_the_last_bit():
    lesion = square(SIDE, 12)
    picture = coloured(lesion, darker(0.4)) + torch.rand(3, SIDE, SIDE) / 50
    batch, logits = normalised(picture)[None], (lesion * 8.0 - 4)[None, None]
    assert torch.equal(raised(batch, raising(batch, logits, STD, LEAST), MEAN, STD), batch)


@pytest.mark.parametrize("lesion", [torch.zeros(SIDE, SIDE), torch.ones(SIDE, SIDE)], ids=["none", "all"])
def test_without_lesion_or_skin_there_is_nothing_to_raise(lesion):
    picture = torch.rand(3, SIDE, SIDE)
    torch.testing.assert_close(seen_again(picture, lesion.bool()), picture)


def test_colours_stay_between_black_and_white_and_a_dark_corner_is_no_skin():
    lesion = square(SIDE, 12)
    picture = coloured(lesion, darker(0.15))
    plain = seen_again(picture, lesion)
    picture[:, :8, :8] = 0
    picture[:, -4:, -4:] = 1
    found = seen_again(picture, lesion)
    torch.testing.assert_close(found[:, lesion], plain[:, lesion])
    assert found.min() > -1e-6 and found.max() < 1 + 1e-6
    assert found[:, :8, :8].max() < 1e-6


class MuchDarker:
    """A stand-in for a network that marks what is darker than the skin by more than .15; keeps what it is shown."""

    def __init__(self) -> None:
        self.shown: list[Tensor] = []

    def __call__(self, batch: Tensor) -> Tensor:
        self.shown.append(batch)
        skin = torch.tensor(SKIN)[:, None, None]
        return ((skin - in_colours(batch)).norm(dim=1, keepdim=True) > 0.15) * 8.0 - 4


def test_the_second_look_finds_the_pale_part_of_a_faint_lesion_though_that_fills_the_frame():
    whole, core = square(2 * SIDE, 50), square(2 * SIDE, 44)
    picture = coloured(whole, darker(0.14))
    picture[:, core] = torch.tensor(darker(0.2))[:, None]
    clear = coloured(whole, darker(0.4))
    batch = torch.stack([normalised(clear), normalised(picture)])
    plain, network = MuchDarker(), MuchDarker()
    once = look_twice(plain, batch)
    twice = look_twice(network, batch, least_contrast=LEAST, normalised_by=(MEAN, STD))
    assert [len(shown) for shown in plain.shown] == [2]  # both fill the frame
    assert [len(shown) for shown in network.shown] == [2, 1]
    assert torch.equal(once[0], twice[0])
    assert not (once[1, 0] > 0)[whole & ~core].any()
    assert (twice[1, 0] > 0)[whole].float().mean() > 0.97
    assert not (twice[1, 0] > 0)[functional.max_pool2d(whole[None, None].float(), 7, 1, 3)[0, 0] == 0].any()


def test_each_picture_s_contrast_is_raised_for_itself():
    pictures = [coloured(square(2 * SIDE, half), darker(d)) for half, d in ((20, 0.2), (30, 0.5), (50, 0.16))]
    batch = normalised(torch.stack(pictures))
    together = look_twice(MuchDarker(), batch, least_contrast=LEAST, normalised_by=(MEAN, STD))
    for picture, found in zip(batch, together, strict=True):
        alone = look_twice(MuchDarker(), picture[None], least_contrast=LEAST, normalised_by=(MEAN, STD))[0]
        torch.testing.assert_close(alone, found)


class Faint:
    """Training pictures of lesions of these contrasts."""

    ids = ()
    levels = 1

    def __init__(self, *contrasts: float) -> None:
        self.pictures = [coloured(square(SIDE, 12), darker(by)) for by in contrasts]

    def __len__(self) -> int:
        return len(self.pictures)

    def read(self, indices):
        images = torch.stack([self.pictures[i] for i in indices]).permute(0, 2, 3, 1)
        masks = torch.stack([square(SIDE, 12) for _ in indices])
        return (images * 255).round().to(torch.uint8).numpy(), masks.to(torch.uint8).numpy()


def test_a_share_of_the_training_pictures_is_fainter_than_what_is_told():
    contrasts = torch.linspace(0.5, 0.1, 301).tolist()  # more than are read at once
    assert faintest(Faint(*contrasts), 0.1, 0.2) == pytest.approx([0.14, 0.18], abs=0.005)


def test_pictures_without_lesion_have_no_contrast():
    none = Faint(0.0, 0.3)
    none.read = lambda indices: (
        Faint(*[0.3] * len(indices)).read(range(len(indices)))[0],
        torch.zeros(len(indices), SIDE, SIDE).byte().numpy(),
    )
    assert faintest(none, 0.1, 0.9) == [0, 0]
