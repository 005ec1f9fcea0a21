"""Data divided once more as a run divided them."""

import pytest
from small_run import draw_pictures

from isic_smp.data.division import as_divided
from isic_smp.data.folds import Fold, take_fold
from isic_smp.data.groups import hold_out
from isic_smp.data.source import resolve_data


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """24 + 6 + 6 pictures, and a folder for their pixels."""
    folder = tmp_path_factory.mktemp("division")
    draw_pictures(folder / "pictures")
    data, _ = resolve_data("synthetic", folder / "pictures", cache_dir=folder / "cache")
    return data, folder / "cache"


@pytest.mark.parametrize("how", ["fold", "group"])
def test_a_fingerprint_brings_back_its_division(drawn, how):
    data, cache = drawn
    divided = take_fold(data, Fold(2, 3)) if how == "fold" else hold_out(data, "hard", cache_dir=cache)
    assert divided != data
    assert as_divided(data, divided.fingerprint, cache_dir=cache) == divided


@pytest.mark.parametrize("fingerprint", ["{own}", "", "{own}-without-everything", "other-fold-2/3"])
def test_other_fingerprints_divide_nothing(drawn, fingerprint):
    data, cache = drawn
    assert as_divided(data, fingerprint.format(own=data.fingerprint), cache_dir=cache) is data
