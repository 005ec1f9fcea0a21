"""Groups told from pixels."""

from typing import get_args

import numpy as np
import pytest
from drawn_groups import PICTURES

from isic_smp.data.groups import GROUPS, marks
from isic_smp.data.names import Group


def groups_of(name: str) -> set[str]:
    image, mask = PICTURES[name]
    found = marks(image[None], mask[None])
    return {group for group, belongs in GROUPS.items() if belongs(found)[0]}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_in_the_group_that_it_was_drawn_for(name: str) -> None:
    assert groups_of(name) == (set() if name == "plain" else {name, "hard"})


def test_a_command_offers_every_group() -> None:
    assert set(GROUPS) == set(get_args(Group))


def test_masks_that_are_empty_or_full_have_a_place_too() -> None:
    image = PICTURES["plain"][0]
    for mask in (np.zeros((128, 128), np.uint8), np.ones((128, 128), np.uint8)):
        found = marks(image[None], mask[None])
        assert all(np.isfinite(values).all() for values in found.values())
        assert GROUPS["faint"](found)[0]  # no skin to be told from
