"""Data divided once more as a run divided them."""

import dataclasses
from itertools import cycle

import pytest
from small_run import draw_pictures

from isic_smp.data.division import as_divided
from isic_smp.data.folds import Fold, take_fold
from isic_smp.data.held_out import hold_out
from isic_smp.data.source import resolve_data
from isic_smp.errors import UserError


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """24 + 6 + 6 pictures, by three cameras as a manifest has it, and a folder for their pixels."""
    folder = tmp_path_factory.mktemp("division")
    draw_pictures(folder / "pictures")
    data, _ = resolve_data("synthetic", folder / "pictures", cache_dir=folder / "cache")
    rows = [f"{pair.id},{side},{side}" for pair, side in zip(data.train, cycle((64, 80, 100)), strict=False)]
    (data.root / "manifest.csv").write_text("\n".join(["id,original_width,original_height", *rows]))
    return data, folder / "cache"


@pytest.mark.parametrize("how", [Fold(2, 3), Fold(2, 3, by_camera=True), "hard"], ids=str)
def test_a_fingerprint_brings_back_its_division(drawn, how):
    data, cache = drawn
    divided = hold_out(data, how, cache_dir=cache) if how == "hard" else take_fold(data, how)
    assert divided != data
    assert as_divided(data, divided.fingerprint, cache_dir=cache) == divided


def test_cameras_that_are_told_otherwise_by_now_are_refused(drawn, tmp_path):
    """Else a network would be validated on what it was trained on."""
    data, cache = drawn
    divided = take_fold(data, Fold(1, 2, by_camera=True))
    rows = [f"{pair.id},{side},{side}" for pair, side in zip(data.train, cycle((64, 100)), strict=False)]
    (tmp_path / "manifest.csv").write_text("\n".join(["id,original_width,original_height", *rows]))
    other = dataclasses.replace(data, root=tmp_path)
    with pytest.raises(UserError, match="tells other cameras apart than when the model was trained"):
        as_divided(other, divided.fingerprint, cache_dir=cache)


@pytest.mark.parametrize("fingerprint", ["{own}", "", "{own}-without-everything", "other-fold-2/3"])
def test_other_fingerprints_divide_nothing(drawn, fingerprint):
    data, cache = drawn
    assert as_divided(data, fingerprint.format(own=data.fingerprint), cache_dir=cache) is data
