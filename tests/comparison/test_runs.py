"""Which runs stand side by side."""

import numpy as np
import pytest
from scored import some_run

from isic_smp.comparison.runs import check_comparable
from isic_smp.errors import UserError


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"fingerprint": "0" * 64}}, "a with b: they worked on different data"),
        (
            {"data": {"fingerprint": f"{'f' * 64}-without-hard"}},
            "different data .* f{12}…, .* with f{12}…-without-hard",
        ),
        (
            {"ids": ("ISIC_0000000", "ISIC_0000001", "ISIC_0000009")},
            "2 images were scored in only one of them",
        ),
        (
            {"sizes": np.array([[48, 48], [48, 64], [48, 48]])},
            "ISIC_0000001 was scored at 48 × 48 .* 48 × 64",
        ),
        ({"recipe": {"size": 64}}, "their networks see pictures of 32 and 64 pixels; .* --any-size"),
    ],
)
def test_what_does_not_stand_side_by_side_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        check_comparable([some_run("a"), some_run("b", **changes)])
    check_comparable([some_run("a"), some_run("b", recipe={"lr": 0.3})])


def test_networks_of_other_sizes_where_that_is_the_question():
    check_comparable([some_run("a"), some_run("b", recipe={"size": 64})], any_size=True)
