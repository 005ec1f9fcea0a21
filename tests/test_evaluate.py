import csv
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from isic_challenge_scoring.segmentation import SegmentationScore
from PIL import Image

import isic_smp
from isic_smp import evaluate
from isic_smp.data.isic2016 import FOLDERS, load_isic2016
from isic_smp.data.pairs import read_pair
from isic_smp.errors import UserError
from isic_smp.inference.inputs import find_images
from isic_smp.inference.load import load_bundle, save_bundle
from isic_smp.inference.preprocessing import Preprocessing


@pytest.fixture(scope="module")
def few(isic_dir, tmp_path_factory) -> Path:
    """The official layout with a few real pairs of each split."""
    root = tmp_path_factory.mktemp("few")
    for folder in FOLDERS:
        (root / folder).mkdir()
    whole = load_isic2016(isic_dir)
    for split, count in (("train", 2), ("val", 3), ("test", 10)):
        for pair in getattr(whole, split)[-count:]:
            for file in (pair.image, pair.mask):
                (root / file.parent.name / file.name).symlink_to(file)
    return root


@pytest.fixture(scope="module")
def run_dir(few, tmp_path_factory) -> Path:
    """What a run on these images leaves behind."""
    torch.manual_seed(0)
    model = isic_smp.create_model(
        "upconvnet", encoder_name="trunc-mobilenetv3_small_050-s1", encoder_weights=None
    )
    info = {
        "recipe": {"loss": "bce", "batch_size": 4, "precision": "float32", "of_another_version": 1},
        "data": {"fingerprint": load_isic2016(few).fingerprint, "description": "a few"},
    }
    preprocessing = Preprocessing(size=64, mean=(0.5,) * 3, std=(0.5,) * 3)
    folder = tmp_path_factory.mktemp("run")
    save_bundle(model, preprocessing, info, folder / "model")
    return folder


def run(*argv: object, cache: Path) -> None:
    evaluate.main([str(word) for word in (*argv, "--cache-dir", cache)])


def test_table_csv_and_official_scorer_agree(few, run_dir, tmp_path, capsys):
    out = tmp_path / "out"
    run("--model", run_dir, "--data-dir", few, "--out", out, "--masks", cache=tmp_path)
    printed = capsys.readouterr()
    assert "test 10 of 379" in printed.out
    assert printed.err == ""
    rows = {line.split()[0]: line.split()[1:] for line in printed.out.splitlines() if line}
    official = SegmentationScore.from_dir(few / FOLDERS[3], out / "masks_test").macro_average
    for ours, theirs in (("Dice", "dice"), ("IoU", "jaccard"), ("specificity", "specificity")):
        assert float(rows[ours][0]) == pytest.approx(official[theirs], abs=5.1e-5)
    with (out / "scores_test.csv").open() as file:
        scores = [float(row["dice_own"]) for row in csv.DictReader(file)]
    assert len(scores) == 10
    assert sum(scores) / 10 == pytest.approx(official["dice"], abs=1e-6)
    assert float(rows["loss"][0]) > 0
    # Scored together with another's, they would not be these images' scores any more.
    (out / "masks_test" / "ISIC_0000000_Segmentation.png").touch()
    with pytest.raises(UserError, match="holds masks of other images, such as ISIC_0000000_"):
        run("--model", run_dir, "--data-dir", few, "--out", out, "--masks", cache=tmp_path)


def test_masks_of_two_models_do_not_come_into_one_folder(few, run_dir, tmp_path):
    def again(*words: str, model: Path | str = run_dir) -> None:
        run("--model", model, "--data-dir", few, "--out", tmp_path / "out", *words, cache=tmp_path)

    again("--masks")
    before = {file.name: file.read_bytes() for file in (tmp_path / "out" / "masks_test").iterdir()}
    again("--masks")
    again()
    # Nor may the tables beside them become another's.
    for words in (("--masks",), ()):
        with pytest.raises(
            UserError, match="masks of another model, of other settings or of other data: choose"
        ):
            again(*words, model="isic2016")
    after = {file.name: file.read_bytes() for file in (tmp_path / "out" / "masks_test").iterdir()}
    assert after == before and len(after) == 10
    again("--split", "val", model="isic2016")


def test_other_split_of_other_data_is_scored_with_a_warning(few, run_dir, tmp_path, capsys):
    fewer = tmp_path / "fewer"
    for folder in FOLDERS:
        (fewer / folder).mkdir(parents=True)
        for file in sorted((few / folder).iterdir())[1:]:
            (fewer / folder / file.name).symlink_to(file)
    run(
        "--model", run_dir / "model", "--data-dir", fewer, "--split", "val", "--out", tmp_path, cache=tmp_path
    )
    with (tmp_path / "scores_val.csv").open() as file:
        assert [row["id"] for row in csv.DictReader(file)] == [p.id for p in load_isic2016(fewer).val]
    printed = capsys.readouterr()
    assert "warning: the model was trained on other data (a few, fingerprint" in printed.err


def test_groups_outlines_and_what_the_expected_iou_finds_are_said_and_written(few, run_dir, tmp_path, capsys):
    diagnoses = tmp_path / "diagnoses.csv"
    ids = [pair.id for pair in load_isic2016(few).test]
    rows = [f"{name},{'naevus' if n % 2 else 'melanoma'}" for n, name in enumerate(ids)]
    diagnoses.write_text("id, diagnosis\n")
    with pytest.raises(UserError, match=rf"none of the 10 images a diagnosis: .* such as {ids[0]}"):
        run("--model", run_dir, "--data-dir", few, "--diagnoses", diagnoses, cache=tmp_path)
    diagnoses.write_text("\n".join(["id , diagnosis", *(row.replace(",", " , ") for row in rows)]))
    out = tmp_path / "out"
    run(
        *("--model", run_dir, "--data-dir", few, "--out", out, "--diagnoses", diagnoses),
        cache=tmp_path,
    )
    printed = capsys.readouterr().out
    with (out / "scores_test.csv").open() as file:
        images = list(csv.DictReader(file))
    iou = [float(row["iou_own"]) for row in images]
    found = json.loads((out / "assessment_test.json").read_text())
    with (out / "groups_test.csv").open() as file:
        groups = {row["name"]: row for row in csv.DictReader(file)}
    naevi = groups["diagnosis naevus"]
    assert (naevi["images"], float(naevi["iou"])) == ("5", pytest.approx(sum(iou[1::2]) / 5))
    assert (
        sum(int(group["images"]) for group in groups.values()) == 30
    )  # every image once by each of three kinds
    assert found["images_under_iou_0.65"] == sum(value < 0.65 for value in iou)
    assert found["outlines"]["hausdorff95_percent"] == pytest.approx(
        sum(float(row["hausdorff95_percent"]) for row in images) / 10
    )
    # The saved model is of an older version, so what it lacks was fitted on its three validation images.
    assert found["expected_iou"]["fitted_on_validation_images"] == 3
    assert all(0 < float(row["expected_iou"]) < 1 for row in images)
    assert (
        f"a look at the worst-ranked tenth (1 of 10 masks) finds {found['expected_iou']['failures_found']}"
        in printed
    )
    for name in ("reliability", "review", "groups"):
        assert (out / f"{name}_test.png").stat().st_size > 10_000
    with pytest.raises(
        UserError, match="no images"
    ):  # whatever is drawn, predict takes none of it for a photograph
        find_images([str(out)], leave_out=tmp_path / "predictions")


def test_the_worst_masks_and_some_from_the_best_to_the_worst_are_drawn(few, tmp_path):
    run("--data-dir", few, "--out", tmp_path, "--no-outlines", cache=tmp_path)
    with (tmp_path / "scores_test.csv").open() as file:
        from_worst = [
            row["id"] for row in sorted(csv.DictReader(file), key=lambda row: float(row["dice_own"]))
        ]
    known = {pair.id: coarse(read_pair(pair)[0]) for pair in load_isic2016(few).test}

    def shown(tile: np.ndarray) -> str:
        distance = {name: np.abs(coarse(tile) - colours).sum() for name, colours in known.items()}
        return min(distance, key=lambda name: distance[name])

    worst = np.asarray(Image.open(tmp_path / "worst_test.jpg"))
    quarter = worst.shape[0] // 4  # the side of a tile: its words on top, the picture below them
    tiles = [
        worst[y + 30 : y + quarter - 10, x + 20 : x + quarter - 20]
        for y in (0, 2 * quarter)
        for x in (0, 2 * quarter)
    ]
    assert [shown(tile) for tile in tiles] == from_worst[:4]
    span = np.asarray(Image.open(tmp_path / "range_test.jpg"))
    third = span.shape[0] // 3
    first, last = span[40 : third - 20, 30 : third - 30], span[2 * third + 40 : -20, 2 * third + 30 : -30]
    assert (shown(first), shown(last)) == (from_worst[-1], from_worst[0])


def coarse(image: np.ndarray) -> np.ndarray:
    """Sixteen mean colours of a picture, RGB (4, 4, 3)."""
    return cv2.resize(np.ascontiguousarray(image), (4, 4), interpolation=cv2.INTER_AREA).astype(float)


def test_test_images_of_training_lesions_are_named_and_left_out_once_more(
    few, run_dir, tmp_path, capsys, isic_dir
):
    twins = tmp_path / "twins"
    for folder in FOLDERS:
        (twins / folder).mkdir(parents=True)
        for file in (few / folder).iterdir():
            (twins / folder / file.name).symlink_to(file)
    for image, folders in (("ISIC_0000240", FOLDERS[:2]), ("ISIC_0009998", FOLDERS[2:])):
        for folder in folders:
            [file] = (isic_dir / folder).glob(f"{image}*")
            (twins / folder / file.name).symlink_to(file)
    own = load_bundle(run_dir)
    info = own.info | {"data": {"fingerprint": load_isic2016(twins).fingerprint, "description": "twins"}}
    save_bundle(own.model, own.preprocessing, info, tmp_path / "own" / "model")

    def scored(model: Path) -> tuple[list[str], list[dict]]:
        """Ids that are named, and the table."""
        given = ["--data-dir", twins, "--out", tmp_path, "--no-outlines"]
        run("--model", model, *given, cache=tmp_path)
        found = json.loads((tmp_path / "assessment_test.json").read_text())
        with (tmp_path / "scores_test.csv").open() as file:
            return found["lesions_seen_in_training"]["ids"], list(csv.DictReader(file))

    named, rows = scored(tmp_path / "own")
    assert named == ["ISIC_0009998"]
    others = [float(row["dice_own"]) for row in rows if row["id"] != "ISIC_0009998"]
    assert f"is in training too (10 left): Dice {sum(others) / 10:.4f}" in capsys.readouterr().out
    # Of another model all official training images count, also those that are not here.
    named, rows = scored(run_dir)
    assert named == ["ISIC_0009998", "ISIC_0011333", "ISIC_0011359"]
    # And nothing may be fitted on these images.
    assert "no expected IoU" in capsys.readouterr().out
    assert "expected_iou" not in rows[0]
    assert "hausdorff95_px" not in rows[0]


def test_nothing_is_written_unless_asked(few, run_dir, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    run("--model", run_dir, "--data-dir", few, cache=tmp_path / "cache")
    assert list(Path.cwd().iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_said_before_any_work(run_dir, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write to .*: Not a directory; choose another --out"):
        run("--model", run_dir, "--out", tmp_path / "file" / "out", cache=tmp_path)
    with pytest.raises(UserError, match=r"cannot write to /proc/self: .*; choose another --out"):
        run("--model", run_dir, "--out", "/proc/self", cache=tmp_path)  # it is there, and takes nothing


def command(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "isic_smp.evaluate", *argv],
        capture_output=True,
        text=True,
        cwd=Path(isic_smp.__file__).parent.parent,
    )


def test_help_comes_without_heavy_imports():
    code = "import sys, isic_smp.evaluate as e; assert not {'torch', 'numpy', 'mlflow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(isic_smp.__file__).parent.parent)
    shown = command("--help")
    assert shown.returncode == 0
    assert "--split {test,val,train}" in shown.stdout


def test_bad_input_is_one_line_and_exit_code_2():
    ended = command("--model", "run", "--diagnoses", "pyproject.toml")
    assert ended.returncode == 2
    assert "pyproject.toml must be a CSV file with the columns id and diagnosis" in ended.stderr
    ended = command("--model", "run", "--masks")
    assert ended.returncode == 2
    assert ended.stderr == (
        "python -m isic_smp.evaluate: error: --masks needs --out, the folder to write them to\n"
    )
