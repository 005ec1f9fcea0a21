"""Data divided once more as a run divided them."""

import dataclasses
from itertools import cycle

import pytest
from small_run import draw_pictures

from isic_smp.data.division import as_divided, may_have_seen
from isic_smp.data.folds import Fold, take_fold
from isic_smp.data.held_out import hold_out
from isic_smp.data.source import resolve_data
from isic_smp.errors import UserError


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """24 + 6 + 6 pictures, of three cameras and two diagnoses as a manifest has it, and a folder for their pixels."""
    folder = tmp_path_factory.mktemp("division")
    draw_pictures(folder / "pictures")
    data, _ = resolve_data("synthetic", folder / "pictures", cache_dir=folder / "cache")
    write_manifest(data, data.root, cycle(zip((64, 80, 100), ("nevus", "basal-cell", "nevus"), strict=True)))
    return data, folder / "cache"


def write_manifest(data, folder, said):
    """Of each training picture the side of its frame and its diagnosis."""
    rows = [f"{pair.id},{side},{side},{its}" for pair, (side, its) in zip(data.train, said, strict=False)]
    header = "id,original_width,original_height,diagnosis"
    (folder / "manifest.csv").write_text("\n".join([header, *rows]))


def divide(data, how, cache):
    return take_fold(data, how) if isinstance(how, Fold) else hold_out(data, how, cache_dir=cache)


@pytest.mark.parametrize(
    "how", [Fold(2, 3), Fold(2, 3, by_camera=True), "hard", "diagnosis:basal-cell"], ids=str
)
def test_a_fingerprint_brings_back_its_division(drawn, how):
    data, cache = drawn
    divided = divide(data, how, cache)
    assert divided != data
    assert as_divided(data, divided.fingerprint, cache_dir=cache) == divided


@pytest.mark.parametrize("how", [Fold(1, 2, by_camera=True), "diagnosis:basal-cell"], ids=str)
def test_pictures_that_are_told_apart_otherwise_by_now_are_refused(drawn, tmp_path, how):
    """Else a network would be validated on what it was trained on."""
    data, cache = drawn
    divided = divide(data, how, cache)
    write_manifest(data, tmp_path, cycle([(64, "basal-cell"), (100, "nevus")]))
    other = dataclasses.replace(data, root=tmp_path)
    refused = pytest.raises(
        UserError, match=r"manifest\.csv tells its images apart otherwise than when the model"
    )
    with refused:
        as_divided(other, divided.fingerprint, cache_dir=cache)
    if isinstance(how, Fold):
        (tmp_path / "manifest.csv").unlink()  # the files are all of one size
        with refused:
            as_divided(other, divided.fingerprint, cache_dir=cache)


@pytest.mark.parametrize(
    "division",
    [
        "-fold-2/3",
        "-fold-1/2:cameras-0123456789abcdef",
        "-without-hard",
        "-without-diagnosis:basal-cell-0123",
    ],
)
def test_a_division_of_other_data_is_refused(drawn, division):
    """It cannot be made again, and the usual validation images were trained on."""
    data, cache = drawn
    with pytest.raises(
        UserError, match=r"other images .* some of these it was trained on: .* or another split"
    ):
        as_divided(data, "0" * 64 + division, cache_dir=cache)


@pytest.mark.parametrize("fingerprint", ["{own}", "", "{own}-without-everything", "0" * 64])
def test_other_fingerprints_divide_nothing(drawn, fingerprint):
    data, cache = drawn
    assert as_divided(data, fingerprint.format(own=data.fingerprint), cache_dir=cache) is data


ISIC = {"name": "isic2016", "fingerprint": "1" * 64}


@pytest.mark.parametrize(
    "trained_on, name, division, seen",
    [
        (ISIC, "isic2016", "", False),  # the fixed lists, of which others may be at hand
        (ISIC, "isic2016", "-fold-1/3", True),
        (ISIC, "isic2016", "-without-hard", True),
        (ISIC | {"fingerprint": "1" * 64 + "-fold-1/3"}, "isic2016", "", True),
        (ISIC | {"fingerprint": "0" * 64 + "-fold-1/3"}, "isic2016", "-fold-1/3", False),
        (ISIC | {"fingerprint": "0" * 64 + "-fold-2/3"}, "isic2016", "-fold-1/3", True),
        (ISIC, "synthetic", "", False),
        ({"name": "synthetic", "fingerprint": "1" * 64}, "synthetic", "", True),
        ({"name": "a clinic's", "fingerprint": "1" * 64}, "isic2016", "", True),
        ({}, "isic2016", "", True),
    ],
)
def test_what_a_network_may_have_seen(drawn, trained_on, name, division, seen):
    data = dataclasses.replace(drawn[0], name=name, fingerprint="0" * 64 + division)
    assert may_have_seen(trained_on, data) == seen
