"""The sweeps' commands, from the options to the answer."""

import csv
import dataclasses
import json
import runpy
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from isic_smp.data.isic2016 import LesionData
from isic_smp.data.synthetic import make_synthetic
from isic_smp.sweeping.answer import Findings
from isic_smp.sweeping.results import Cell, TrialResult
from isic_smp.sweeping.search_answer import search_answer
from isic_smp.training.recipe import PRESETS, differences
from isic_smp.training.recipe_check import AUGMENTATIONS

TINY = [
    "--data",
    "synthetic",
    "--data-dir",
    "drawn",
    "--cache-dir",
    "cache",
    "--encoder-weights",
    "none",
    "--size",
    "32",
    "--epochs",
    "2",
]
SWEEPS = Path(__file__).parents[1] / "sweeps"


def sweep(name: str, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SWEEPS / f"{name}.py"), *words], cwd=cwd, capture_output=True, text=True
    )


def test_a_dry_run_lists_the_grid_and_makes_nothing(tmp_path):
    done = sweep("decoder_depth", "--dry-run", "--seeds", "1", cwd=tmp_path)
    assert done.returncode == 0
    assert "16 trials" in done.stdout and "decoder_depth=4 skip_connections=False" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_decoder_of_a_recipe_that_names_its_channels_is_cut_to_each_depth():
    sweep = runpy.run_path(str(SWEEPS / "decoder_depth.py"))
    plan = sweep["plan"](sweep["Options"](recipe="small", settings=PRESETS["small"], seeds=1))
    channels = {cell["decoder_depth"]: plan.recipe(cell).decoder_channels for cell in plan.cells}
    assert channels == {1: (32,), 2: (32, 24), 3: (32, 24, 16), 4: (32, 24, 16, 12)}


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("freeze_vs_finetune", ["--freeze"], "this sweep sets freeze"),
        (
            "freeze_vs_finetune",
            ["--epochs", "1"],
            "epochs must be at least 2, got 1: this sweep's way «gradual»",
        ),
        ("search", ["--trials", "0"], "--trials must be at least 1"),
        ("search", ["--objectives", "gmacs"], "--objectives must be"),
        ("search", ["--decoder-width", "0.5"], "cannot set decoder_width"),
        ("freeze_vs_finetune", ["--recipe", "mine.yaml"], "cannot set freeze:"),
        ("decoder_depth", ["--workers", "0"], "--workers must be at least 1"),
        (
            "ablation",
            ["--parts", "hairs"],
            "cannot leave out 'hairs': expected some of this recipe's parts, flips,",
        ),
        ("ablation", ["--recipe", "report", "--parts", "tones"], "this recipe's parts, pretraining"),
        ("ablation", ["--recipe", "report", "--encoder-weights", "none"], "no part that could be left out"),
        ("freeze_vs_finetune", ["--encoders", *["trunc-mobilenetv2_100-s4"] * 2, "--dry-run"], "must differ"),
        ("search", ["--register", "lesions/best", "--dry-run"], "cannot be registered as 'lesions/best'"),
        ("search", ["--data", "synthetic", "--study", "why?"], "? or %20 in a path"),
    ],
)
def test_impossible_options_are_one_line(tmp_path, name, words, said, monkeypatch, capsys):
    (tmp_path / "mine.yaml").write_text("freeze: true\n", encoding="utf-8")
    script = str(SWEEPS / f"{name}.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [script, *words])
    monkeypatch.setattr(sys, "path", [*sys.path])  # which the script adds to
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(script, run_name="__main__")
    assert stop.value.code == 2
    printed = capsys.readouterr().err
    assert said in printed and len(printed.strip().splitlines()) == 1


def test_a_search_keeps_away_from_what_other_machines_try_just_now():
    """One worker a machine, as in an array of jobs: no option tells it of the others."""
    search = runpy.run_path(str(SWEEPS / "search.py"))
    plan = search["plan"](search["SearchOptions"](workers=1))

    def next_lr(*, running: int) -> float:
        space, lrs = {"lr": plan.distributions["lr"]}, [3e-4 * 1.15**i for i in range(20)]
        study = optuna.create_study(sampler=plan.sampler(0), direction="maximize")
        for i, lr in enumerate(lrs):
            study.add_trial(optuna.create_trial(params={"lr": lr}, distributions=space, value=-abs(i - 9)))
        for _ in range(running):
            study.enqueue_trial({"lr": lrs[9]})
            study.ask(space)
        study.sampler = plan.sampler(0)
        return study.ask(space).params["lr"]

    assert next_lr(running=9) != next_lr(running=0)


def test_an_ablation_leaves_out_one_part_at_a_time_and_only_what_the_recipe_has():
    ablation = runpy.run_path(str(SWEEPS / "ablation.py"))
    options = ablation["AblationOptions"](seeds=2)
    plan = ablation["plan"](options)
    whole, *others = (plan.recipe(cell) for cell in plan.cells[: len(plan.cells) // 2])
    assert whole == options.settings and all(cell["seed"] == 0 for cell in plan.cells[: len(others) + 1])
    changed = [[name for name, *_ in differences(other.to_dict(), whole)] for other in others]
    assert all(len(names) == 1 for names in changed) and len({name for [name] in changed}) == len(others)
    assert {"flips", "artefacts", "skip_connections", "encoder_weights"} <= {name for [name] in changed}
    frozen = dataclasses.replace(options.settings, freeze=True, tones=0.0)
    tried = {cell["recipe"] for cell in ablation["plan"](dataclasses.replace(options, settings=frozen)).cells}
    assert {"without tones", "without encoder's own rate"}.isdisjoint(tried) and "without flips" in tried


@pytest.mark.parametrize(
    ("settings", "absent"),
    [
        ({"init_from": "isic2016"}, {"pretraining", "skips", "context", "norm"}),
        ({"affine": 0.0}, {"affine", "sharp views"}),
        (dict.fromkeys(("affine", "colour", "tones", "artefacts"), 0.0), {"sharp views", "plain statistics"}),
    ],
)
def test_an_ablation_leaves_out_nothing_that_would_change_nothing(settings, absent):
    ablation = runpy.run_path(str(SWEEPS / "ablation.py"))
    recipe = dataclasses.replace(PRESETS["default"], **settings)
    there = {part for part in ablation["WITHOUT"] if ablation["has"](recipe, part)}
    assert absent <= {part for part in ablation["WITHOUT"] if ablation["has"](PRESETS["default"], part)}
    assert not there & absent and {"flips", "Dice loss"} <= there


def test_a_search_that_is_taught_tries_no_loss_that_teachers_cannot_give():
    search = runpy.run_path(str(SWEEPS / "search.py"))
    taught = dataclasses.replace(PRESETS["default"], teachers=("isic2016",))
    losses = [search["space"](recipe)["loss"].choices for recipe in (PRESETS["default"], taught)]
    assert [("lovasz" in tried, len(tried)) for tried in losses] == [(True, 5), (False, 4)]


def test_the_command_of_a_winner_names_how_the_data_were_divided_and_quotes_every_path(tmp_path):
    search = runpy.run_path(str(SWEEPS / "search.py"))
    recipe = dataclasses.replace(PRESETS["default"], teachers=("runs/my teacher", "b"))
    plan = search["plan"](search["SearchOptions"](settings=recipe, trials=1))
    params = {"cut": 4, "skip_connections": True, "loss": "bce", "lr": 1e-3}
    params |= {
        "weight_decay": 1e-2,
        "ema": 0.0,
        "encoder_lr_share": 0.25,
        **dict.fromkeys(AUGMENTATIONS, 0.5),
    }
    params["width"] = plan.distributions["width"].choices[0]
    study = optuna.create_study(direction="maximize")
    scores = {"val_iou": 0.8, "val_dice": 0.9}
    study.add_trial(
        optuna.create_trial(
            params=params, distributions=dict(plan.distributions), user_attrs=scores, value=0.8
        )
    )
    result = TrialResult(0, params, 0, tmp_path, "", 0.8, 0.9, None, None, 1, 0.1, 1.0)
    findings = Findings(
        study=study,
        plan=plan,
        cells=[Cell(params, (result,))],
        data=LesionData("isic2016", Path("my data"), (), (), (), "", {}),
        folder=tmp_path,
        tracking_uri="",
        tested=False,
        dividing={"hold_out": "diagnosis:basal cell", "binarize_masks": True},
    )
    [command] = [line for line in search_answer(findings).text.splitlines() if "isic_smp.run" in line]
    assert "--teachers 'runs/my teacher' b " in command
    assert command.endswith("--data-dir 'my data' --hold-out 'diagnosis:basal cell' --binarize-masks")


def study_in_mlflow(folder: Path) -> tuple[MlflowClient, Run, list[Run]]:
    """The only study's parent run, and the runs of its trials."""
    client = MlflowClient(f"sqlite:///{folder / 'mlruns' / 'mlflow.db'}")
    [experiment] = [e for e in client.search_experiments() if e.name.endswith("-sweeps")]
    runs = client.search_runs([experiment.experiment_id])
    [parent] = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    return client, parent, [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]


@pytest.mark.oldest
@pytest.mark.slow
def test_a_grid_by_two_workers_ends_in_an_answer_and_does_nothing_twice(tmp_path):
    make_synthetic(tmp_path / "drawn", train=16, val=8, test=8, size=64)
    words = [*TINY, "--seeds", "2", "--workers", "2", "--heartbeat", "2"]
    first = sweep("freeze_vs_finetune", *words, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "6 trials: 6 complete, 0 pruned, 0 failed" in first.stdout
    client, parent, children = study_in_mlflow(tmp_path)
    assert len(children) == 6
    assert all(child.info.status == "FINISHED" for child in [*children, parent])
    assert all("test/iou_per_image_own" in child.data.metrics for child in children)
    study = optuna.load_study(
        study_name=None, storage=f"sqlite:///{next(tmp_path.glob('runs/sweeps/*/study.db'))}"
    )
    kept = {trial.user_attrs["run_id"]: str(trial.user_attrs["kept_epoch"]) for trial in study.trials}
    assert {child.info.run_id: child.data.tags["kept_epoch"] for child in children} == kept
    assert {"answer.md", "trials.csv", "report.html"} <= {
        artifact.path for artifact in client.list_artifacts(parent.info.run_id)
    }
    epochs = {file: file.stat().st_mtime_ns for file in tmp_path.glob("runs/sweeps/*/trial-*/history.json")}
    assert len(epochs) == 6
    again = sweep("freeze_vs_finetune", *words, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert {file: file.stat().st_mtime_ns for file in epochs} == epochs
    more = sweep("freeze_vs_finetune", *words, "--lr", "0.1", cwd=tmp_path)
    assert more.returncode == 2 and "tries something else" in more.stderr


@pytest.mark.slow
def test_a_trial_may_be_a_group_of_processes(tmp_path):
    make_synthetic(tmp_path / "drawn", train=16, val=8, test=8, size=64)
    words = [*TINY, "--trials", "1", "--seeds", "1", "--processes-per-trial", "2", "--hold-out", "small"]
    done = sweep("search", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1 trials: 1 complete" in done.stdout
    [outcome] = tmp_path.glob("runs/sweeps/search/trial-*/outcome.json")
    assert 0 <= json.loads(outcome.read_text())["val_iou"] <= 1
    [scores] = tmp_path.glob("runs/sweeps/search/trial-*/validation_scores.csv")
    areas = [float(row["lesion_area"]) for row in csv.DictReader(scores.open())]
    assert max(areas) < 0.1  # the group validated on the pictures that were held out


@pytest.mark.slow
def test_an_ablation_on_held_out_pictures_answers_by_them_and_tests_nothing(tmp_path):
    make_synthetic(tmp_path / "drawn", train=16, val=8, test=8, size=64)
    words = [*TINY, "--seeds", "1", "--parts", "context", "tones", "--hold-out", "small"]
    done = sweep("ablation", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "3 trials: 3 complete" in done.stdout and "test IoU" not in done.stdout
    assert "without context" in done.stdout and "no test image was looked at" in done.stdout
    _, _, children = study_in_mlflow(tmp_path)
    assert {child.data.tags["held_out"] for child in children} == {"small"}
    assert not any(name.startswith("test/") for child in children for name in child.data.metrics)
    other = sweep("ablation", *words[:-1], "faint", cwd=tmp_path)
    assert (
        other.returncode == 2
        and "-without-small there" in other.stderr
        and "-without-faint here" in other.stderr
    )


@pytest.mark.slow
def test_pruned_trials_are_marked_and_the_winner_is_confirmed_under_another_seed(tmp_path):
    make_synthetic(tmp_path / "drawn", train=16, val=8, test=8, size=64)
    words = [*TINY, "--epochs", "5", "--trials", "9", "--seeds", "2", "--register", "lesions"]
    done = sweep("search", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    [again] = [line for line in done.stdout.splitlines() if "python -m isic_smp.run" in line]
    assert "test IoU" in done.stdout and again.endswith("--data synthetic --data-dir drawn")
    _, _, children = study_in_mlflow(tmp_path)
    states = [child.data.tags["optuna.state"] for child in children]
    assert len(children) == 10  # nine and the confirmation
    assert states.count("PRUNED") >= 1
    for child in children:
        pruned = child.data.tags["optuna.state"] == "PRUNED"
        assert child.info.status == ("KILLED" if pruned else "FINISHED")
        assert not (pruned and any(name.startswith("test/") for name in child.data.metrics))
    tested = [child for child in children if "test/iou_per_image_own" in child.data.metrics]
    assert len(tested) == 2  # the winner under its two seeds, and no other trial
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlruns' / 'mlflow.db'}")
    version = client.get_model_version("lesions", "1")  # knows what came after its model was logged
    told = client.get_run(version.run_id).data.metrics["test/dice_per_image_own"]
    assert float(version.tags["test.dice_per_image_own"]) == pytest.approx(told, abs=1e-6)
    assert "| validation | test |" in version.description


@pytest.mark.slow
def test_trials_that_diverge_are_recorded_with_their_reason(tmp_path):
    make_synthetic(tmp_path / "drawn", train=16, val=8, test=8, size=64)
    words = [*TINY, "--trials", "2", "--seeds", "1", "--lr", "1e30"]
    done = sweep("freeze_vs_finetune", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert "no trial of freeze_vs_finetune was completed: TrainingDiverged: " in done.stderr
    _, parent, children = study_in_mlflow(tmp_path)
    assert [child.info.status for child in [*children, parent]] == ["FAILED"] * 3
    assert all(child.data.tags["optuna.state"] == "FAIL" for child in children)
    assert all("try a lower lr" in child.data.tags["optuna.reason"] for child in children)
    folder = tmp_path / "runs" / "sweeps" / "freeze_vs_finetune"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.*") if "study.db" not in path.name}
    other = sweep("search", *TINY, "--trials", "1", "--study", "b", "--output-dir", str(folder), cwd=tmp_path)
    assert other.returncode == 2 and "holds the trials of the study freeze_vs_finetune" in other.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before
