"""The check before training: sound data pass, and everything that is wrong is found and named."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import isic_smp.data.__main__ as commands
from isic_smp.data.audit import audit
from isic_smp.data.check import check
from isic_smp.data.isic2016 import FOLDERS, TEST, TRAINING, load_isic2016, split_lists
from isic_smp.data.make_split import LISTS
from isic_smp.data.synthetic import make_synthetic
from isic_smp.errors import UserError

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "drawn"
    make_synthetic(root, train=8, val=4, test=6, size=128)
    return root


@pytest.fixture
def data(drawn, tmp_path):
    """Eighteen drawn pairs in a folder of their own, to be damaged."""
    shutil.copytree(drawn, tmp_path / "data")
    return tmp_path / "data"


def files(root, side, number):
    images, masks = side
    image = sorted((root / images).iterdir())[number]
    return image, root / masks / f"{image.stem}_Segmentation.png"


def test_sound_data_pass(data, tmp_path, capsys):
    assert check(data, tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert "pairs: training 12, test 6" in said
    assert "128 × 128: 18" in said
    assert "problems: none" in said
    report = json.loads((tmp_path / "out" / "check.json").read_text())
    assert report["near"] == report["exact"] == report["problems"] == []
    assert len(report["areas"]) == 18
    with Image.open(tmp_path / "out" / "contact_sheet.png") as sheet:
        assert sheet.width > 1000


def test_what_is_not_looked_at_is_said(data, tmp_path, capsys):
    images = data / TRAINING[0]
    (images / "benign").mkdir()
    (images / "benign" / "ISIC_0000000.jpg").touch()
    (images / "ISIC_1.heic").touch()
    assert check(data, tmp_path / "out") == 0
    assert (
        f"not looked at in {TRAINING[0]}: 2 (ISIC_1.heic, benign/); images in subfolders"
        in capsys.readouterr().out
    )


def test_pictures_of_other_data_do_not_stay(data, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "duplicates.png").touch()
    check(data, out)
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == f"written to {out}: check.json, contact_sheet.png"
    assert not (out / "duplicates.png").exists() and "duplicates.png" not in said


def test_every_kind_of_damage_is_found_in_one_go(data):
    (files(data, TRAINING, 0)[1]).unlink()
    (files(data, TRAINING, 1)[0]).unlink()
    broken = files(data, TRAINING, 2)[0]
    broken.write_bytes(broken.read_bytes()[:500])
    grey = files(data, TEST, 0)[1]
    Image.fromarray(np.full((128, 128), 77, np.uint8)).save(grey)
    small = files(data, TEST, 1)[1]
    Image.new("L", (64, 128)).save(small)
    problems = audit(data, progress=False).problems
    assert len(problems) == 5
    expected = [
        "without a mask",
        "with a mask but no image",
        broken.name,
        "16384 grey pixels of 16384",
        "64 × 128",
    ]
    for words in expected:
        assert any(words in problem for problem in problems), words
    assert any(grey.name in problem for problem in problems)
    assert any(small.name in problem for problem in problems)


def test_grey_masks_pass_where_they_may_be_binarized(data):
    mask = files(data, TEST, 0)[1]
    grey = np.full((128, 128), 77, np.uint8)
    grey[:64] = 177
    Image.fromarray(grey).save(mask)
    found = audit(data, binarize_masks=True, progress=False)
    assert found.problems == []
    assert found.areas[mask.name.removesuffix("_Segmentation.png")] == 0.5


def test_equal_pixels_on_both_sides_are_a_problem_within_one_side_a_remark(data):
    within = files(data, TRAINING, 0)[0], files(data, TRAINING, 1)[0]
    shutil.copy(*within)
    assert audit(data, progress=False).problems == []
    across = files(data, TRAINING, 5)[0], files(data, TEST, 0)[0]
    with Image.open(across[0]) as picture:  # another file of equal pixels
        picture.save(across[1].with_suffix(".png"))
    across[1].unlink()
    found = audit(data, progress=False)
    assert {it.ids for it in found.exact} == {
        (within[0].stem, within[1].stem),
        (across[0].stem, across[1].stem),
    }
    assert found.near == [], "equal images were reported twice"
    assert len(found.problems) == 1
    assert f"{across[0].stem} = {across[1].stem}" in found.problems[0]


def test_known_duplicates_of_isic_2016_are_reported_and_shown(isic_dir, tmp_path):
    twins = {
        line.split()[i]
        for line in (LISTS / "near_duplicates.txt").read_text().splitlines()[:6]
        for i in (0, 1)
    }
    chosen = twins | {"ISIC_0001134", "ISIC_0010016", "ISIC_0009883", "ISIC_0010092"}
    chosen.add(min(split_lists()["val"] & {it.stem for it in (isic_dir / TRAINING[0]).iterdir()}))
    for folder in FOLDERS:
        (tmp_path / "isic" / folder).mkdir(parents=True)
        for file in (isic_dir / folder).iterdir():
            if file.stem[:12] in chosen:
                (tmp_path / "isic" / folder / file.name).symlink_to(file)
    assert check(tmp_path / "isic", tmp_path / "out") == 0
    report = json.loads((tmp_path / "out" / "check.json").read_text())
    near = {tuple(sorted(it["ids"])): it for it in report["near"]}
    assert near["ISIC_0001134", "ISIC_0010016"]["sides"] == ["training", "test"]
    assert near["ISIC_0001134", "ISIC_0010016"]["correlation"] > 0.6
    assert [it["ids"] for it in report["alike"]] == [["ISIC_0009883", "ISIC_0010092"]]
    with Image.open(tmp_path / "out" / "duplicates.png") as sheet:
        assert sheet.height > 200


def test_ids_of_the_wrong_side_are_a_problem(isic_dir, tmp_path):
    id = sorted(split_lists()["test"] & {it.stem for it in (isic_dir / TEST[0]).iterdir()})[0]
    for folder in FOLDERS:
        (tmp_path / folder).mkdir()
    for (images, masks), name in ((TRAINING, id), (TEST, "ISIC_0009999")):
        shutil.copy(isic_dir / TEST[0] / f"{id}.jpg", tmp_path / images / f"{name}.jpg")
        shutil.copy(
            isic_dir / TEST[1] / f"{id}_Segmentation.png", tmp_path / masks / f"{name}_Segmentation.png"
        )
    problems = audit(tmp_path, progress=False).problems
    assert f"1 training images are official test images ({id})" in problems
    assert f"1 images are in training and in test ({id} = ISIC_0009999)" in problems


def test_a_split_without_an_image_is_a_problem_as_loading_has_it(isic_dir, tmp_path):
    here = {it.stem for it in (isic_dir / TRAINING[0]).iterdir()}
    for id in sorted(split_lists()["train"] & here)[:2]:
        for folder, name in zip(TRAINING, (f"{id}.jpg", f"{id}_Segmentation.png"), strict=True):
            (tmp_path / folder).mkdir(exist_ok=True)
            shutil.copy(isic_dir / folder / name, tmp_path / folder / name)
    problems = audit(tmp_path, progress=False).problems
    assert [it for it in problems if TEST[0] not in it] == ["no image of the validation split"]


def test_other_data_in_the_layout_are_said_to_be_refused_as_loading_does(data):
    (data / "synthetic.json").unlink()
    with pytest.raises(UserError, match="12 training images are not official ones"):
        load_isic2016(data)
    problems = audit(data, progress=False).problems
    assert [problem.split(" (")[0] for problem in problems] == [
        "12 training images are not official ones",
        "6 test images are not official ones",
    ]


def test_half_the_folders_are_checked_and_the_others_missed(data):
    shutil.rmtree(data / TEST[0])
    found = audit(data, progress=False)
    assert found.pairs == {"training": 12}
    assert len(found.problems) == 1
    assert TEST[0] in found.problems[0]


@pytest.mark.parametrize("make", [True, False])
def test_a_folder_without_any_of_it_is_bad_input(tmp_path, make):
    if make:
        (tmp_path / "x").mkdir()
    with pytest.raises(UserError, match="x"):
        audit(tmp_path / "x")


def test_the_command_draws_checks_and_tells_by_its_exit_code(tmp_path, monkeypatch, in_this_process):
    monkeypatch.chdir(tmp_path)
    words = ("--train", "3", "--val", "1", "--test", "2", "--size", "64")
    drawn = in_this_process(commands, "synthetic", "d", *words)
    assert (drawn.returncode, drawn.stdout) == (
        0,
        "d: synthetic: train 3 of 3, validation 1 of 1, test 2 of 2\n",
    )
    sound = in_this_process(commands, "check", "d", "--out", "report")
    assert sound.returncode == 0, sound.stderr
    files(tmp_path / "d", TEST, 0)[1].unlink()
    damaged = in_this_process(commands, "check", "d", "--out", "report")
    assert damaged.returncode == 1
    assert "1 id without a mask" in damaged.stdout
    absent = in_this_process(commands, "check", "nowhere")
    assert absent.returncode == 2
    assert absent.stderr == "python -m isic_smp.data: error: the folder nowhere does not exist\n"


def test_help_imports_nothing_heavy(tmp_path):
    code = """
import atexit, runpy, sys
atexit.register(lambda: print([it for it in ("torch", "cv2", "numpy") if it in sys.modules], file=sys.stderr))
sys.argv[1:] = ["--help"]
runpy.run_module("isic_smp.data", run_name="__main__")
"""
    shown = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
    )
    assert (shown.returncode, shown.stderr) == (0, "[]\n")
    assert all(action in shown.stdout for action in ("download", "check", "synthetic"))
