import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from isic_smp.errors import UserError
from isic_smp.inference.inputs import find_images, name_masks


def touch(root: Path, *names: str) -> list[Path]:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return [root / name for name in names]


def test_folders_are_searched_and_what_is_no_image_is_passed_over(tmp_path):
    wanted = touch(tmp_path, "b.JPG", "a/deep/c.tiff", "a/x y.png")
    touch(tmp_path, "notes.txt", ".hidden.jpg", ".git/d.png", "b_Segmentation.png", "b_superpixels.png")
    touch(tmp_path, "out/masks/e.png")
    assert sorted(find_images([str(tmp_path)], leave_out=tmp_path / "out")) == sorted(wanted)


def test_named_files_patterns_and_folders_give_each_image_once_in_the_order_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "d/2.png", "d/1.png", "odd[1].jpg", "mask_Segmentation.png", "scan.dcm")
    given = ["scan.dcm", "mask_Segmentation.png", "odd[1].jpg", "d/2.png", "**/*.png", "d"]
    found = [str(path.relative_to(tmp_path)) for path in find_images(given, leave_out=Path("out"))]
    assert found == ["scan.dcm", "mask_Segmentation.png", "odd[1].jpg", "d/2.png", "d/1.png"]


@pytest.mark.parametrize("pattern", ["**/*.png", "**"])
def test_a_pattern_does_not_find_the_command_s_own_output(pattern, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    [image, mine] = touch(tmp_path, "a/1.png", "out/overlays/1_overlay.png")
    assert find_images([pattern], leave_out=Path("out")) == [image]
    assert find_images(["out/overlays/1_overlay.png"], leave_out=Path("out")) == [mine]  # named, so meant


@pytest.mark.parametrize("given", ["{}", "{}/**"])
def test_the_command_s_own_output_is_known_in_a_folder_that_is_reached_by_a_link(
    given, tmp_path, monkeypatch
):
    [image, _] = touch(tmp_path, "real/1.png", "real/out/overlays/1_overlay.png")
    link = tmp_path / "link"
    link.symlink_to("real")
    monkeypatch.chdir(link)  # the system knows it as real
    assert find_images([given.format(link)], leave_out=Path("out")) == [link / image.name]


@pytest.mark.parametrize("given", ["missing.jpg", "*.gif", "empty"])
def test_what_stands_for_no_image_is_refused(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no (such image|images)"):
        find_images([given], leave_out=Path("out"))


def test_earlier_results_are_no_images(tmp_path):
    place = tmp_path / "scans"
    photographs = touch(
        place, "1.png", "b/overlays/2.png", "old/3.png", "old/more/4.png", "scored/worst_test.jpg"
    )
    touch(place, "old/predictions.jsonl", "old/overlays/3_overlay.jpg", "old/probabilities/3_probability.png")
    touch(place, "scored/assessment_val.json", "scored/worst_val.jpg", "scored/review_val.png")
    touch(place, "scored/masks_val/1_Segmentation.png")
    for named in ([place], [place / "b", place / "old", place / "scored", place / "1.png"]):
        assert sorted(find_images([str(one) for one in named], leave_out=tmp_path / "out")) == photographs
    with pytest.raises(UserError, match="results of predict and evaluate are passed over"):
        find_images([str(place)], leave_out=place)


@pytest.fixture
def closed() -> Iterator[Path]:
    """A folder that may be neither entered nor listed, and a user to whom that applies.

    It does not lie in pytest's tmp_path, whose parents are closed to others than their owner.
    """
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    folder = place / "closed"
    [_] = touch(folder, "1.png")
    folder.chmod(0)
    (place / "link.png").symlink_to(folder / "1.png")
    is_root = os.geteuid() == 0
    try:
        if is_root:  # permissions do not apply to it
            os.seteuid(65534)
        yield folder
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(0o755)
        shutil.rmtree(place)


@pytest.mark.parametrize("name", ["1.png", "missing.png", "*.png"])
def test_what_may_not_be_looked_at_is_not_called_missing(closed, name):
    with pytest.raises(UserError) as refusal:
        find_images([str(closed / name)], leave_out=Path("out"))
    said = str(refusal.value)
    assert said.startswith(f"cannot look up {closed / name}: Permission denied; ") and "\n" not in said


def test_other_inputs_beside_a_closed_folder_are_told_as_before(closed):
    with pytest.raises(UserError, match="no such image or folder"):
        find_images([str(closed.parent / "missing.png")], leave_out=Path("out"))
    with pytest.raises(UserError, match="cannot list the folder"):
        find_images([str(closed)], leave_out=Path("out"))


def test_a_link_into_a_closed_folder_is_an_input_as_any_file_that_cannot_be_read(closed):
    link = closed.parent / "link.png"
    assert find_images([str(link)], leave_out=Path("out")) == [link]


def names(*paths: str, named: dict[str, str] | None = None) -> list[str]:
    before = {Path(path): name for path, name in (named or {}).items()}
    images = [Path(path) for path in paths]
    given = name_masks(images, before)
    return [given[image] for image in images]


def test_a_mask_is_named_after_its_image():
    assert names("/d/ISIC_0000000.jpg", "/e/my photo.v2.png") == ["ISIC_0000000", "my photo.v2"]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["/p/left/1.png", "/p/right/1.png"], ["left_1", "right_1"]),
        (["/a/eye/1.png", "/b/eye/1.png"], ["a_eye_1", "b_eye_1"]),
        (["/d/A.png", "/e/a.png"], ["d_A", "e_a"]),  # one file where a file system knows no case
        (["/d/1.png", "/d/1.jpg"], ["1_png", "1_jpg"]),
        (["/left/1.png", "/right/1.png", "/x/left_1.png"], ["left_1_png", "right_1_png", "left_1"]),
        (["/a_b/1.png", "/b/1.png", "/a/b_1.png"], ["a_b_1_png", "b_1_png", "b_1"]),
    ],
)
def test_images_of_equal_names_are_told_apart_whatever_their_order(paths, expected):
    assert names(*paths) == expected
    assert names(*paths[::-1]) == expected[::-1]


def test_names_given_before_stay_and_are_not_given_twice():
    assert names("/a/1.png", "/b/1.png", named={"/a/1.png": "1"}) == ["1", "b_1"]
    assert names("/b/1.png", named={"/a/1.png": "1"}) == ["b_1"]
