import base64
import csv
import dataclasses
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import isic_smp
from isic_smp import compare
from isic_smp.errors import UserError
from isic_smp.training.recipe import Recipe

RECIPE = Recipe(
    encoder="trunc-mobilenetv3_small_050-s1", encoder_weights="none", size=32, epochs=1, batch_size=8
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two real runs of a tiny recipe on drawn pictures, in a store of their own."""
    from isic_smp.data.synthetic import make_synthetic
    from isic_smp.experiment import run_experiment
    from isic_smp.setup import Setup

    folder = tmp_path_factory.mktemp("compare")
    make_synthetic(folder / "pictures", train=8, val=4, test=12, size=48)
    for name, freeze in (("frozen", True), ("tuned", False)):
        setup = Setup(
            data="synthetic",
            data_dir=folder / "pictures",
            output_dir=folder / name,
            cache_dir=folder / "cache",
            tracking_uri=f"sqlite:///{folder}/mlruns/mlflow.db",
        )
        run_experiment(dataclasses.replace(RECIPE, freeze=freeze), setup, say=lambda _: None)
    return folder


@pytest.fixture
def here(place, tmp_path, monkeypatch):
    """A working folder with copies of the runs, and no data but those that are named."""
    for name in ("frozen", "tuned"):
        for part in ("test_scores.csv", "validation_scores.csv", "mlflow_run.json"):
            (tmp_path / name).mkdir(exist_ok=True)
            shutil.copy(place / name / part, tmp_path / name / part)
        shutil.copytree(place / name / "model", tmp_path / name / "model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ISIC_SMP_DATA", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def run(place: Path, *words: object) -> None:
    given = ["--cache-dir", place / "cache", "--tracking-uri", f"sqlite:///{place}/mlruns/mlflow.db"]
    compare.main([str(word) for word in (*words, *given)])


def edit(file: Path, change) -> None:
    values = json.loads(file.read_text())
    change(values["info"])
    file.write_text(json.dumps(values))


def scores_of(folder: Path, column: str = "dice_own") -> np.ndarray:
    with (folder / "test_scores.csv").open() as file:
        return np.array([float(row[column]) for row in csv.DictReader(file)])


# --- from the command line to the report and MLflow


def test_two_real_runs(place, here, capsys):
    run(place, "frozen", "tuned", "--data-dir", place / "pictures", "--out", "out", "--images", "1")
    printed = capsys.readouterr()
    difference = scores_of(here / "tuned") - scores_of(here / "frozen")
    assert f"{difference.mean():+.4f}" in printed.out
    assert "fine-tuned minus frozen" in printed.out
    assert "synthetic: train 8 of 8, validation 4 of 4, test 12 of 12; 12 test images, Dice" in printed.out
    assert "One run each: the interval says what other images would give" in printed.out
    assert "No effect by diagnosis is given: no manifest.csv" in printed.out
    assert printed.err == ""

    html = (here / "out" / "report.html").read_text()
    assert not re.search(r'(src|href)="(?!data:image/png;base64,)', html), "the report needs nothing else"
    assert "://" not in html
    answer = next(line for line in printed.out.splitlines() if line.endswith(".") and "Wilcoxon p" in line)
    assert answer in html
    pictures = [
        Image.open(io.BytesIO(base64.b64decode(found)))
        for found in re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    ]
    files = ("effects", "scatter", "differences", "images")
    assert [p.size for p in pictures] == [Image.open(f"out/pictures/{f}.png").size for f in files]

    with Path("out/images.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["dice fine-tuned"]) for row in rows] == scores_of(here / "tuned").tolist()

    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{place}/mlruns/mlflow.db")
    [logged] = client.search_runs([client.get_experiment_by_name("comparisons").experiment_id])
    assert logged.info.status == "FINISHED"
    assert f"/runs/{logged.info.run_id}/artifacts/report.html?" in printed.out
    assert logged.data.tags["answer"] == answer
    assert logged.data.metrics["difference"] == pytest.approx(difference.mean())
    paths = {
        item.path for part in (None, "pictures") for item in client.list_artifacts(logged.info.run_id, part)
    }
    assert {"report.html", "images.csv", *(f"pictures/{name}.png" for name in files)} <= paths
    for name in ("frozen", "tuned"):
        run_id = json.loads((here / name / "mlflow_run.json").read_text())["run_id"]
        assert logged.data.tags[f"compared.{name}"] == run_id
        tag = client.get_run(run_id).data.tags[f"comparison.{logged.info.run_id[:8]}"]
        assert tag == f"{answer} See run {logged.info.run_id}."


def test_runs_named_by_id_and_by_name_come_from_mlflow_alike(place, here, capsys):
    run(place, "frozen", "tuned", "--out", "one", "--no-log", "--images", "0")
    by_folder = capsys.readouterr().out
    run_id = json.loads((here / "frozen" / "mlflow_run.json").read_text())["run_id"]
    for name in ("frozen", "tuned"):
        shutil.rmtree(name)
    data = ["--data-dir", place / "pictures", "--images", "1"]
    run(place, f"runs:/{run_id}", "tuned", "--out", "two", "--no-log", *data)
    by_store = capsys.readouterr().out
    assert Path("one/images.csv").read_text() == Path("two/images.csv").read_text()
    table = by_folder[by_folder.index("fine-tuned minus") : by_folder.index("note:")]
    assert table in by_store
    assert Path("two/pictures/images.png").exists(), "models come from the store too"


def test_runs_of_one_name_are_both_found_again_from_the_comparison(place, here):
    """As trials of two studies have it."""
    for study, name in (("a", "frozen"), ("b", "tuned")):
        shutil.move(here / name, here / study / "trial-000")
    ids = [json.loads(Path(f"{study}/trial-000/mlflow_run.json").read_text())["run_id"] for study in "ab"]
    run(place, "a/trial-000", "b/trial-000", "--out", "out", "--images", "0")

    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{place}/mlruns/mlflow.db")
    experiment = client.get_experiment_by_name("comparisons").experiment_id
    logged = [r.data.tags for r in client.search_runs([experiment]) if "trial-000" in str(r.data.tags)]
    assert [sorted(v for k, v in tags.items() if k.startswith("compared.")) for tags in logged] == [
        sorted(ids)
    ]


def test_iou_of_the_validation_images(place, here, capsys):
    run(place, "frozen", "tuned", "--metric", "iou", "--split", "validation", "--no-log", "--images", "0")
    assert "4 validation images, IoU" in capsys.readouterr().out
    [report] = Path("comparisons").glob("*-frozen-vs-fine-tuned/report.html")
    assert "frozen vs fine-tuned, IoU" in report.read_text()


def as_folds(place: Path, folder: Path, name: str) -> list[Path]:
    """A run's validation scores and model as those of two folds that have half of the images each."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{place}/mlruns/mlflow.db")
    head, *rows = (place / name / "validation_scores.csv").read_text().splitlines()
    folds = [folder / f"{name}{n}" for n in (1, 2)]
    for n, fold in enumerate(folds, 1):
        shutil.copytree(place / name / "model", fold / "model")
        (fold / "validation_scores.csv").write_text("\n".join([head, *rows[n - 1 :: 2], ""]))
        run_id = client.create_run("0").info.run_id
        (fold / "mlflow_run.json").write_text(json.dumps({"run_id": run_id}))
        edit(
            fold / "model" / "isic_smp.json",
            lambda info, n=n: info["data"].update(
                fold=f"{n}/2", fingerprint=f"{info['data']['fingerprint']}-fold-{n}/2"
            ),
        )
    return folds


def train_folds(place: Path, folder: Path, name: str) -> list[Path]:
    """Two runs, each validated on one half of the training images."""
    from isic_smp.data.folds import Fold
    from isic_smp.experiment import run_experiment
    from isic_smp.setup import Setup

    folds = [folder / f"{name}{n}" for n in (1, 2)]
    for n, fold in enumerate(folds, 1):
        setup = Setup(
            data="synthetic",
            data_dir=place / "pictures",
            output_dir=fold,
            cache_dir=place / "cache",
            tracking_uri=f"sqlite:///{place}/mlruns/mlflow.db",
            fold=Fold(n, 2),
        )
        run_experiment(dataclasses.replace(RECIPE, freeze=name == "frozen"), setup, say=lambda _: None)
    return folds


@pytest.mark.parametrize(
    ("folds_of", "images"), [(as_folds, 4), pytest.param(train_folds, 12, marks=pytest.mark.slow)]
)
def test_the_folds_of_two_recipes_are_compared_over_all_their_images(
    place, tmp_path, capsys, folds_of, images
):
    names = [fold for name in ("frozen", "tuned") for fold in folds_of(place, tmp_path, name)]
    words = [*names, "--split", "validation", "--out", tmp_path / "out", "--images", 1]
    run(place, *words, "--data-dir", place / "pictures")
    printed = capsys.readouterr()
    said = f"synthetic: {images} training images in 2 folds; {images} validation images"
    assert said in printed.out
    assert "share most of their training images" in printed.out
    assert "was not tagged" not in printed.err  # each of the four runs is told the answer
    shown = "not shown" not in printed.out and "any more" not in printed.out
    assert shown, "its pictures are of the right models"
    with (tmp_path / "out" / "images.csv").open() as file:
        rows = list(csv.DictReader(file))
    scores = {}
    for folder in names[:2]:
        with (folder / "validation_scores.csv").open() as file:
            scores |= {row["id"]: float(row["dice_own"]) for row in csv.DictReader(file)}
    assert {row["id"]: pytest.approx(float(row["dice frozen"])) for row in rows} == scores
    assert len(scores) == images

    mean = f"{np.mean(list(scores.values())):.4f}"
    with pytest.raises(
        UserError, match=rf"folds of one recipe and seed \(mean Dice {mean} over {images} images\)"
    ):
        run(place, *names[:2], "--split", "validation")
    with pytest.raises(UserError, match=r"needs all 2 .* train the others \(run --fold 2/2"):
        run(place, names[0], names[2], "--split", "validation")
    with pytest.raises(UserError, match="it has validation scores, add --split validation"):
        run(place, *names)


def test_the_same_comparison_gives_the_same_report(place, here, capsys):
    for out in ("one", "two"):
        words = ["--out", out, "--no-log", "--data-dir", place / "pictures", "--images", "1"]
        run(place, "frozen", "tuned", *words)
    assert Path("one/report.html").read_bytes() == Path("two/report.html").read_bytes()


def test_without_the_data_the_report_says_what_it_lacks(place, here, capsys):
    for name in ("frozen", "tuned"):
        edit(here / name / "model" / "isic_smp.json", lambda info: info["data"].update(name="isic2016"))
    run(place, "frozen", "tuned", "--out", "out", "--no-log")
    html = Path("out/report.html").read_text()
    assert "The images that differ most are not shown: no ISIC 2016 data" in html
    assert "No effect by diagnosis is given: no ISIC 2016 data" in html
    assert "note: The images that differ most are not shown" in capsys.readouterr().out
    assert not Path("out/pictures/images.png").exists()


def test_without_the_models_the_report_says_so(place, here):
    (here / "tuned" / "model" / "model.safetensors").unlink()
    run(place, "frozen", "tuned", "--out", "out", "--no-log", "--data-dir", place / "pictures")
    assert "are not shown: cannot load the weights" in Path("out/report.html").read_text()


def test_models_that_have_changed_since_are_found_out(place, here, capsys):
    shutil.copy(here / "tuned/model/model.safetensors", here / "frozen/model/model.safetensors")
    scores = (here / "frozen/test_scores.csv").read_text().splitlines()
    cells = [line.split(",") for line in scores]
    column = cells[0].index("dice_own")
    for row in cells[1:]:
        row[column] = "0.999"
    (here / "frozen/test_scores.csv").write_text("\n".join(map(",".join, cells)))
    run(place, "frozen", "tuned", "--out", "out", "--no-log", "--data-dir", place / "pictures")
    assert "The saved model of frozen does not give its recorded scores any more" in capsys.readouterr().out


def test_a_setting_that_an_older_release_did_not_know_is_no_difference(place, here, capsys):
    edit(here / "frozen" / "model" / "isic_smp.json", lambda info: info["recipe"].pop("artefacts"))
    run(place, "frozen", "tuned", "--no-log", "--images", "0")
    printed = capsys.readouterr().out
    assert "fine-tuned minus frozen" in printed
    assert "artefacts" not in printed


def test_effect_by_diagnosis_where_a_manifest_names_it(place, here, capsys):
    pictures = here / "pictures"
    shutil.copytree(place / "pictures", pictures)
    with (here / "frozen" / "test_scores.csv").open() as file:
        ids = [row["id"] for row in csv.DictReader(file)]
    lines = [f"{image_id},{'nevus' if n < 7 else 'melanoma'}" for n, image_id in enumerate(ids)]
    (pictures / "manifest.csv").write_text("\n".join(["id,diagnosis", *lines]))
    run(place, "frozen", "tuned", "--no-log", "--images", "0", "--data-dir", pictures)
    shown = {
        line.split()[1]: line.split() for line in capsys.readouterr().out.splitlines() if "diagnosis" in line
    }
    assert {name: words[2] for name, words in shown.items()} == {"nevus": "7", "melanoma": "5"}
    difference = scores_of(here / "tuned") - scores_of(here / "frozen")
    assert shown["nevus"][3] == f"{difference[:7].mean():+.4f}"


# --- what is refused


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["frozen"], "need at least two runs to compare, got 1"),
        (["frozen", "frozen/"], "frozen/ is named twice"),
        (["frozen", "nix"], "no run 'nix': expected a run's --output-dir, or the id or name"),
        (["frozen", "0" * 32], "cannot get the run 0000"),
        (["frozen", "."], "has no test_scores.csv: expected the --output-dir of a finished run"),
        (["frozen", "tuned", "--out", "frozen/test_scores.csv"], "cannot write to frozen/test_scores.csv"),
        (["frozen", "tuned", "--data-dir", "nowhere"], "nowhere"),
        (["frozen", "tuned", "--images", "-1"], "must not be negative, got -1"),
    ],
)
def test_bad_input_is_named(place, here, words, message):
    with pytest.raises(UserError, match=message):
        run(place, *words, "--no-log")


def test_a_name_of_several_runs_is_refused_with_their_ids(place, here):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{place}/mlruns/mlflow.db")
    ids = [client.create_run("0", run_name="twins").info.run_id for _ in range(2)]
    with pytest.raises(UserError, match="twins") as refusal:
        run(place, "frozen", "twins", "--no-log")
    assert all(run_id in str(refusal.value) for run_id in ids)


def test_named_data_that_are_not_the_runs_are_refused(place, here):
    for name in ("frozen", "tuned"):
        edit(here / name / "model" / "isic_smp.json", lambda info: info["data"].update(fingerprint="0" * 64))
    with pytest.raises(UserError, match=r"holds other data .* than the runs were scored on"):
        run(place, "frozen", "tuned", "--no-log", "--data-dir", place / "pictures")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("dice_own", "dyce"), r"no column 'dice_own'"),
        (lambda text: re.sub(r"0\.\d+", "high", text, count=1), "could not convert string to float"),
        (lambda text: text + text.splitlines()[-1] + "\n", "once each"),
        (lambda text: text.splitlines()[0], "at least 2 images"),
        (lambda text: re.sub(r"0\.\d+", "nan", text), "finite"),
    ],
)
def test_damaged_scores_are_refused(place, here, change, message):
    file = here / "tuned" / "test_scores.csv"
    file.write_text(change(file.read_text()))
    with pytest.raises(UserError, match=message):
        run(place, "frozen", "tuned", "--no-log")


def test_help_and_errors_come_without_heavy_imports():
    code = (
        "import sys, isic_smp.compare as c\n"
        "try: c.main(['one'])\n"
        "except ValueError as e: print(e)\n"
        "assert not {'torch', 'numpy', 'mlflow', 'scipy'} & set(sys.modules)\n"
        "c.main(['--help'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(isic_smp.__file__).parent.parent,
    )
    assert done.returncode == 0, done.stderr
    assert "need at least two runs to compare, got 1" in done.stdout
    assert "--split {test,validation}" in done.stdout
