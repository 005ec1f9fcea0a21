"""The main job as a user starts it, on drawn pictures, into a real store: in a process of its own, and with more words
in this one."""

import csv
import dataclasses
import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import albumentations
import pytest
from small_run import draw_pictures, write_recipe

import isic_smp
from isic_smp import evaluate as evaluate_command
from isic_smp import run as run_command
from isic_smp import sync as sync_command
from isic_smp.assessment.fitting import Fitted
from isic_smp.data.source import resolve_data
from isic_smp.data.synthetic import make_synthetic
from isic_smp.errors import UserError
from isic_smp.inference.load import load_bundle, save_bundle
from isic_smp.inference.predictor import Predictor
from isic_smp.inference.scoring import score
from isic_smp.pretrained.make import measured_anew
from isic_smp.tracking.experiment_log import HEADLINES
from isic_smp.training.checkpoint import Checkpoints
from isic_smp.training.profile import TRACE

GIVEN = ["--data", "synthetic", "--data-dir", "pictures", "--recipe", "small.yaml", "--cache-dir", "cache"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working folder with 24 + 6 + 6 pictures and a small recipe."""
    folder = tmp_path_factory.mktemp("run")
    write_recipe(folder / "small.yaml")
    draw_pictures(folder / "pictures")
    return folder


def command(place, *words, launcher=("-m",)):
    return subprocess.run(
        [sys.executable, *launcher, "isic_smp.run", *GIVEN, *words],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.fixture(scope="module")
def frozen(place):
    done = command(place, "--freeze", "--output-dir", "out/frozen", "--register", "lesions")
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def again(place, frozen, monkeypatch, in_this_process):
    """The same command with more words, in this process, after the first run."""
    monkeypatch.chdir(place)
    store = f"sqlite:///{place}/mlruns/mlflow.db"
    return partial(in_this_process, run_command, *GIVEN, "--tracking-uri", store)


@pytest.fixture(scope="module")
def client(place, frozen):
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{place}/mlruns/mlflow.db")


def run_of(client, place, name):
    return client.get_run(json.loads((place / "out" / name / "mlflow_run.json").read_text())["run_id"])


def test_the_table_names_losses_and_scores_and_where_to_look(frozen):
    assert "train loss" in frozen.stdout
    assert "at 32×32 pixels" in frozen.stdout
    assert "test, 6 images" in frozen.stdout
    assert "mlflow ui --backend-store-uri sqlite:///mlruns/mlflow.db" in frozen.stdout
    assert "train 24 of 24, validation 6 of 6, test 6 of 6" in frozen.stderr


def test_the_history_counts_epochs_as_mlflow_does(client, place, frozen):
    history = json.loads((place / "out" / "frozen" / "history.json").read_text())
    logged = client.get_metric_history(run_of(client, place, "frozen").info.run_id, "val/iou")
    assert [(e["epoch"], e["val_iou"]) for e in history] == [(m.step, m.value) for m in logged]


def test_a_run_that_is_over_stays_as_it_is_where_another_recipe_would_resume_it(client, place, again):
    before = run_of(client, place, "frozen")
    done = again("--freeze", "--epochs", "3", "--resume", "--output-dir", "out/frozen")
    assert done.returncode == 2
    assert "with another recipe (epochs 2 then, 3 now)" in done.stderr.splitlines()[-1]
    after = run_of(client, place, "frozen")
    assert (after.info.status, after.data.tags) == ("FINISHED", before.data.tags)


def test_a_group_held_out_is_what_is_validated_on_and_nothing_is_tested(client, place, again):
    words = ["--hold-out", "hard", "--freeze", "--epochs", "1", "--profile", "1"]
    done = again(*words, "--output-dir", "out/held")
    assert done.returncode == 0, done.stderr
    assert "profile of 1 steps of" in done.stderr and (place / "out" / "held" / TRACE).exists()
    counts = [int(n) for n in re.findall(r"train (\d+) of \d+, validation (\d+) of", done.stderr)[0]]
    assert counts[0] < 24 and 6 < counts[1] <= 30
    assert f"validation, {counts[1]} images" in done.stdout and "test" not in done.stdout.lower()
    run = run_of(client, place, "held")
    assert run.data.tags["held_out"] == "hard"
    assert not [name for name in run.data.metrics if name.startswith("test")]


def test_a_fold_is_what_is_validated_on_and_nothing_is_tested(client, place, again):
    done = again("--fold", "2/3", "--freeze", "--epochs", "1", "--output-dir", "out/fold")
    assert done.returncode == 0, done.stderr
    assert "train 20 of 20, validation 10 of 10, test 0 of 0" in done.stderr
    assert "validation, 10 images" in done.stdout and "test" not in done.stdout.lower()
    assert run_of(client, place, "fold").data.tags["fold"] == "2/3"


def test_a_run_that_is_over_is_not_overwritten(client, place, again):
    out, before = place / "out" / "frozen", run_of(client, place, "frozen")
    files = {file: file.stat().st_mtime_ns for file in out.rglob("*") if file.is_file()}
    refused = again("--freeze", "--epochs", "1", "--seed", "1", "--output-dir", "out/frozen")
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].endswith(
        "out/frozen holds a run that is over; choose another --output-dir, or delete that folder"
    )
    assert {file: file.stat().st_mtime_ns for file in files} == files
    assert run_of(client, place, "frozen").info == before.info


def test_what_came_to_no_whole_epoch_is_not_gone_on_with_otherwise(client, place, again):
    """Its MLflow run has the settings that did not work; the next one's are its own."""
    words = ["--freeze", "--output-dir", "out/diverged"]
    failed = again(*words, "--optimizer", "sgd", "--lr", "1e30", "--grad-clip", "0")
    assert failed.returncode == 2 and "try a lower lr" in failed.stderr
    refused = again(*words, "--resume")
    assert refused.returncode == 2
    assert "lr 1e+30 then, 0.001 now, optimizer sgd then, adam now" in refused.stderr
    assert "leave out --resume to begin anew" in refused.stderr
    assert again(*words).returncode == 0
    params = run_of(client, place, "diverged").data.params
    assert (params["lr"], params["optimizer"]) == ("0.001", "adam")


def test_first_weights_that_say_another_normalisation_by_now_are_refused(place, again, monkeypatch):
    bundle = load_bundle(str(place / "out" / "frozen"))
    save_bundle(bundle.model, bundle.preprocessing, bundle.info, place / "first")
    words = ["--init-from", "first", "--resume", "--output-dir", "out/renormalised"]

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("isic_smp.experiment.conclude", interrupt)
        assert again(*words).returncode == 130
    shutil.rmtree(place / "first")
    bundle.model.set_normalisation((0.1, 0.1, 0.1), (1.0, 1.0, 1.0))
    changed = dataclasses.replace(bundle.preprocessing, mean=(0.1, 0.1, 0.1), std=(1.0, 1.0, 1.0))
    save_bundle(bundle.model, changed, bundle.info, place / "first")
    refused = again(*words)
    assert refused.returncode == 2
    assert "mean [0.1, 0.1, 0.1]" in refused.stderr and "bring those back" in refused.stderr


@pytest.mark.slow
def test_a_run_waits_until_the_files_of_the_one_before_it_are_sent(
    client, place, again, monkeypatch, in_this_process
):
    folder = place / "out" / "away"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    given = [str(place / word) if (place / word).exists() else word for word in GIVEN]
    words = [*given, "--freeze", "--epochs", "1", "--offline", "--output-dir", "."]
    assert again(*words).returncode == 0
    table = (folder / "test_scores.csv").read_bytes()
    for kept in ("history.json", "last.pt"):  # by someone who wants to begin anew
        (folder / kept).unlink()
    refused = again(*words, "--seed", "1")
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].endswith(
        ". holds files of an earlier run that have not been sent to MLflow: send them by python -m isic_smp.sync ., or "
        "choose another --output-dir"
    )
    store = f"sqlite:///{place}/mlruns/mlflow.db"
    assert in_this_process(sync_command, ".", "--tracking-uri", store).returncode == 0
    first = run_of(client, place, "away")
    assert first.data.tags["mlflow.runName"] == "away"  # though the folder was named as "."
    assert again(*words, "--seed", "1").returncode == 0
    kept = client.download_artifacts(first.info.run_id, "scores/test_scores.csv", str(place))
    assert Path(kept).read_bytes() == table


def test_a_second_look_goes_with_the_model_and_into_its_scores(client, place, again):
    done = again("--second-look", "--raise-contrast", "--wrap-faint", "--freeze", "--output-dir", "out/twice")
    assert done.returncode == 0, done.stderr
    bundle = load_bundle(place / "out" / "twice")
    assert bundle.preprocessing.second_look and bundle.preprocessing.size == 32
    assert 0.05 < bundle.preprocessing.least_contrast < 0.9  # the training pictures'
    assert bundle.preprocessing.least_contrast < bundle.preprocessing.wrap_below < 0.9
    without = load_bundle(place / "out" / "frozen").preprocessing
    assert without.least_contrast == without.wrap_below == 0
    assert "at 64×64 pixels" in done.stdout
    assert run_of(client, place, "twice").data.params["second_look"] == "True"
    data, _ = resolve_data("synthetic", place / "pictures", cache_dir=place / "cache")
    scored = score(Predictor(bundle.model, bundle.preprocessing), data.test).summary()
    assert scored["iou_per_image_own"] == pytest.approx(bundle.info["test"]["iou_per_image_own"], abs=1e-4)
    older = dataclasses.replace(
        bundle, preprocessing=dataclasses.replace(bundle.preprocessing, least_contrast=0, wrap_below=0)
    )
    anew = measured_anew(older, data, cache_dir=place / "cache")
    assert anew.preprocessing == bundle.preprocessing, "what a run measures can be measured after it"
    assert Fitted.from_facts(anew.info).temperature == pytest.approx(
        Fitted.from_facts(bundle.info).temperature, rel=1e-3
    )
    with pytest.raises(UserError, match="expected the images that the model was trained on"):
        measured_anew(load_bundle("isic2016"), data, cache_dir=place / "cache")


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("--fold", "2/3"), id="fold", marks=pytest.mark.slow),
        pytest.param(("--hold-out", "hard"), id="group"),
    ],
)
def test_evaluate_validates_on_what_the_run_validated_on(place, again, in_this_process, words):
    out = place / "out" / f"own{words[0]}"
    assert again(*words, "--freeze", "--epochs", "1", "--output-dir", out).returncode == 0
    given = ["--data", "synthetic", "--data-dir", place / "pictures", "--cache-dir", place / "cache"]
    asked = ["--model", out, "--split", "val", "--out", out / "again", "--no-outlines"]
    done = in_this_process(evaluate_command, *given, *asked)
    assert done.returncode == 0 and "other data" not in done.stderr

    def dice(table: Path) -> dict[str, float]:
        with table.open() as file:
            return {row["id"]: float(row["dice_own"]) for row in csv.DictReader(file)}

    assert dice(out / "again" / "scores_val.csv") == pytest.approx(dice(out / "validation_scores.csv"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--fold", "4/3"), "a fold is like 2/5, the second of five parts, of 2 to 20, or 2/5:cameras"),
        (("--fold", "1/3:cameras"), "the sizes of the pictures' frames tell 1 apart: ask for fewer parts"),
        (("--fold", "1/3", "--hold-out", "hard"), "--hold-out and --fold both say what is validated on"),
        (
            ("--hold-out", "odd"),
            "no group 'odd' to hold out: expected one of faint, small, cut, cool, hard, or diag",
        ),
        (
            ("--hold-out", "diagnosis:nevus"),
            "needs a manifest.csv, with commas and the columns id and diagnosis, in",
        ),
    ],
)
def test_an_impossible_division_is_refused_before_anything_is_made(place, again, words, message):
    done = again(*words, "--output-dir", "out/none")
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert not (place / "out" / "none").exists()


def test_a_run_shows_every_setting_and_where_it_came_from(client, place, frozen):
    from isic_smp.training.recipe import load_recipe

    run = run_of(client, place, "frozen")
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "frozen"
    expected = {**load_recipe(str(place / "small.yaml")).to_dict(), "freeze": True}
    assert run.data.params == {name: str(value) for name, value in expected.items()}
    for tag in ("version.torch", "version.isic-smp", "machine.cpu", "data_fingerprint", "command"):
        assert run.data.tags[tag], tag
    assert {d.tags[0].value for d in run.inputs.dataset_inputs} == {"train", "validation", "test"}


@pytest.mark.oldest
def test_a_run_logs_its_curves_scores_pictures_tables_and_model(client, place, frozen):
    run = run_of(client, place, "frozen")
    for name in (
        "train/loss",
        "val/loss",
        "train/dice",
        "val/dice",
        "train/iou",
        "val/iou",
        "lr",
        "images_per_second",
    ):
        assert [m.step for m in client.get_metric_history(run.info.run_id, name)] == [1, 2], name
    assert 0 <= run.data.metrics["test/dice_per_image_own"] <= 1
    table = next(line for line in frozen.stdout.splitlines() if line.startswith("at each image's own size"))
    assert f"{run.data.metrics['test/dice_per_image_own']:.4f}" in table

    def listed(path=None):
        for item in client.list_artifacts(run.info.run_id, path):
            yield item.path
            if item.is_dir:
                yield from listed(item.path)

    paths = list(listed())
    for wanted in (
        "figures/curves.png",
        "figures/test_dice.png",
        "figures/reliability_test.png",
        "figures/review_test.png",
        "figures/groups_test.png",
        "scores/test_scores.csv",
        "scores/test_assessment.json",
        "smp_model/model.safetensors",
        "test_scores.json",
    ):
        assert wanted in paths
    pictures = {p.removeprefix("images/").split("+")[0] for p in paths if p.startswith("images/")}
    cases = {f"{part}~case_{n}" for part in ("val", "final") for n in (1, 2, 3, 4)}
    assert pictures == cases | {"test~best", "test~median", "test~worst"}
    fitted = load_bundle(place / "out" / "frozen").info["fitted_on_validation"]
    assert fitted["images"] == 6
    assert fitted["temperature"] > 0
    assert 0 <= run.data.metrics["detail/test_failure_share_own"] <= 1
    assert run.data.metrics["detail/test_boundary_iou_own"] >= 0
    charts = {name for name in run.data.metrics if name.startswith("test/")}
    assert charts <= {f"test/{name}" for name in HEADLINES}, "numbers that few look for stay out of the way"
    assert run.outputs.model_outputs, "the model is an output of the run"


@pytest.mark.oldest
def test_evaluate_gives_the_run_s_own_scores(client, place, frozen, monkeypatch, in_this_process):
    monkeypatch.chdir(place)
    words = ["--model", "out/frozen", "--data", "synthetic", "--data-dir", "pictures", "--out", "scored"]
    done = in_this_process(evaluate_command, *words)
    assert done.returncode == 0, done.stderr
    logged = run_of(client, place, "frozen").data.metrics["test/dice_per_image_own"]
    assert f"{logged:.4f}" in done.stdout
    assert (place / "scored" / "scores_test.csv").read_text() == (
        place / "out" / "frozen" / "test_scores.csv"
    ).read_text()


def test_the_saved_model_is_the_frozen_one(place, frozen):
    import torch

    from isic_smp.training.recipe import load_recipe

    recipe = load_recipe(str(place / "small.yaml"))
    torch.manual_seed(recipe.seed)
    fresh = isic_smp.UpConvNet(
        recipe.encoder, encoder_weights=None, decoder_channels=(8, 8, 8), decoder_norm=False
    )
    saved = isic_smp.load(place / "out" / "frozen").encoder.state_dict()
    assert all(torch.equal(value, saved[name]) for name, value in fresh.encoder.state_dict().items())


def test_a_run_goes_on_from_a_trained_model(client, place, again):
    """With a rate of nearly nothing the new run's model must be the old one."""
    from safetensors.torch import load_file

    run = run_of(client, place, "frozen")
    still = ["--lr", "1e-12", "--weight-decay", "0", "--epochs", "1", "--freeze"]
    done = again("--init-from", run.info.run_id, *still, "--output-dir", "out/on")
    assert done.returncode == 0, done.stderr
    before = load_file(place / "out/frozen/model/model.safetensors")
    after = load_file(place / "out/on/model/model.safetensors")
    assert all((before[name].float() - after[name].float()).abs().max() < 1e-6 for name in before)
    other = again("--init-from", "out/frozen", "--decoder-channels", "8", "8", "4")
    assert other.returncode == 2
    assert "another network (decoder_channels" in other.stderr.strip().splitlines()[-1]


@pytest.mark.slow
def test_sigterm_marks_the_run_and_resume_ends_it_as_if_nothing_had_been(client, place, again, monkeypatch):
    """Sent by a scheduler right after the first epoch's checkpoint; `faults/kill_run.py` sends it to a process at any time."""
    save = Checkpoints.save_last

    def save_and_stop(checkpoints, state):
        save(checkpoints, state)
        signal.raise_signal(signal.SIGTERM)

    words = ["--freeze", "--resume", "--output-dir", "out/cut short"]
    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "save_last", save_and_stop)
        stopped = again(*words)
    assert stopped.returncode == 130, stopped.stderr
    assert stopped.stderr.splitlines()[-1].endswith(
        "interrupted; go on with the same command, --output-dir 'out/cut short' and --resume"
    )
    run = run_of(client, place, "cut short")
    assert run.info.status == "KILLED"
    assert [m.step for m in client.get_metric_history(run.info.run_id, "val/iou")] == [1]
    last = (place / "out" / "cut short" / "last.pt").read_bytes()
    forgotten = again(*(word for word in words if word != "--resume"))
    assert forgotten.returncode == 2
    assert "holds 1 of 2 epochs of an interrupted training: --resume" in forgotten.stderr.splitlines()[-1]
    assert (place / "out" / "cut short" / "last.pt").read_bytes() == last
    assert run_of(client, place, "cut short").info.run_id == run.info.run_id
    resumed = again(*words)
    assert resumed.returncode == 0, resumed.stderr
    run = run_of(client, place, "cut short")
    assert run.info.status == "FINISHED"
    assert [m.step for m in client.get_metric_history(run.info.run_id, "val/iou")] == [1, 2]
    one, other = (place / "out" / name / "model" / "model.safetensors" for name in ("frozen", "cut short"))
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.slow
def test_another_pipeline_under_the_same_name_does_not_go_on_with_a_run(client, place, again):
    file = place / "views.json"
    views = albumentations.Compose([albumentations.HorizontalFlip(p=0.5)])
    albumentations.save(views, file)
    words = ["--freeze", "--pipeline", "views.json", "--output-dir", "out/views", "--resume"]
    done = again(*words, "--epochs", "1")
    assert done.returncode == 0, done.stderr
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert run_of(client, place, "views").data.tags["pipeline_sha256"] == digest
    albumentations.save(albumentations.Compose([albumentations.VerticalFlip(p=0.5)]), file)
    other = again(*words, "--epochs", "1")
    assert other.returncode == 2
    assert "with another pipeline" in other.stderr.splitlines()[-1]
    assert run_of(client, place, "views").info.status == "FINISHED"


@pytest.mark.slow
def test_another_model_under_the_same_name_does_not_go_on_with_a_frozen_run(client, place, again):
    """Its features would be banked, and the decoder saved with the encoder of the checkpoint."""
    import torch

    bundle = load_bundle(str(place / "out" / "frozen"))
    save_bundle(bundle.model, bundle.preprocessing, bundle.info, place / "start")
    words = ["--freeze", "--init-from", "start", "--output-dir", "out/start", "--resume"]
    done = again(*words)
    assert done.returncode == 0, done.stderr
    assert again(*words).returncode == 0, "the same model was refused"
    with torch.no_grad():
        bundle.model.encoder.conv_stem.weight.mul_(1.1)
    shutil.rmtree(place / "start")
    save_bundle(bundle.model, bundle.preprocessing, bundle.info, place / "start")
    other = again(*words)
    assert other.returncode == 2
    assert "the frozen encoder's weights, from start, are not those" in other.stderr.splitlines()[-1]
    assert run_of(client, place, "start").info.status == "FINISHED"


@pytest.mark.slow
def test_a_compiled_network_is_trained_as_it_is_without(client, place, frozen, again):
    done = again("--precision", "float32", "--compile", "--output-dir", "out/compiled")
    assert done.returncode == 0, done.stderr
    plain = again("--precision", "float32", "--output-dir", "out/plain")
    assert plain.returncode == 0, plain.stderr
    compiled, plain = (run_of(client, place, name).data.metrics for name in ("compiled", "plain"))
    for name in ("train/loss", "val/loss", "test/loss"):
        assert compiled[name] == pytest.approx(plain[name], rel=1e-2), name  # rounding grows
    networks = [load_bundle(place / "out" / name).model.state_dict() for name in ("compiled", "plain")]
    assert networks[0].keys() == networks[1].keys()


@pytest.mark.slow
def test_two_processes_are_one_run_with_the_metrics_of_the_whole_set(client, place, frozen):
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "-m")
    done = command(place, "--precision", "float32", "--output-dir", "out/two", launcher=launcher)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("train loss") == 1
    assert "test, 6 images" in done.stdout
    again = command(place, "--precision", "float32", "--output-dir", "out/two_again", launcher=launcher)
    one, other = (place / "out" / name / "model" / "model.safetensors" for name in ("two", "two_again"))
    assert one.read_bytes() == other.read_bytes(), again.stderr
    alone = command(place, "--precision", "float32", "--output-dir", "out/one")
    assert alone.returncode == 0, alone.stderr
    # Order, augmentation, loss and BatchNorm are the whole batch's, whoever holds its images. Rounding grows from epoch
    # to epoch; BatchNorm by each process's own images would be off by 7 % and more.
    two, one = (run_of(client, place, name).data.metrics for name in ("two", "one"))
    for name in ("train/loss", "val/loss", "test/loss"):
        assert two[name] == pytest.approx(one[name], rel=1e-2), name
    runs = client.search_runs([run_of(client, place, "two").info.experiment_id])
    assert len([r for r in runs if r.info.run_name == "two"]) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--bogus", "3"], "--bogus"),
        (["--epochs", "three"], "'three'"),
        (["--epochs", "0", "--lr", "-1"], "epochs must be at least 1, got 0; lr must be above 0"),
        (["--recipe", "nix"], "no recipe 'nix'"),
        (["--resume"], "--resume needs the --output-dir"),
        (["--data-dir", "nowhere"], "nowhere"),
        (["--device", "quantum"], "unknown device 'quantum'"),
        (["--device", "cuda"], "use --device cpu"),
        (["--encoder-weights", "weights.pth"], "pickled weights can run code"),
        (["--encoder-weights", "imagenet"], "imagenet, isic2016, none, or a .safetensors file"),
        (["--tracking-uri", "http://127.0.0.1:9"], "127.0.0.1:9"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(place, words, said, monkeypatch, in_this_process):
    monkeypatch.chdir(place)
    done = in_this_process(run_command, *GIVEN, *words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith("python -m isic_smp.run: error: ")
    assert said in line


def test_a_broken_manifest_is_said_before_any_work(place, tmp_path, in_this_process):
    shutil.copytree(place / "pictures", tmp_path / "pictures")
    (tmp_path / "pictures" / "manifest.csv").write_bytes(b"id,diagnosis\n\xff\xfe,benign\n")
    words = ["--data", "synthetic", "--data-dir", tmp_path / "pictures", "--recipe", place / "small.yaml"]
    done = in_this_process(run_command, *words, "--output-dir", tmp_path / "out", "--cache-dir", tmp_path)
    assert done.returncode == 2
    assert "manifest.csv" in done.stderr.splitlines()[-1] and "mend or remove it" in done.stderr
    assert not (tmp_path / "out").exists()


def test_help_needs_no_heavy_imports():
    code = (
        "import sys\n"
        "sys.argv = ['run', '--help']\n"
        "import isic_smp.run\n"
        "try:\n    isic_smp.run.parse()\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'mlflow', 'timm', 'cv2', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "--freeze" in done.stdout


@pytest.mark.slow
def test_without_data_the_demo_says_so_loudly_and_keeps_apart(tmp_path, monkeypatch, in_this_process):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ISIC_SMP_DATA", raising=False)
    make_synthetic(tmp_path / "cache" / f"synthetic-{isic_smp.__version__}", train=8, val=4, test=4, size=64)
    words = ["--encoder", "trunc-mobilenetv2_035-s2", "--size", "32", "--epochs", "1", "--cache-dir", "cache"]
    done = in_this_process(run_command, *words)
    assert done.returncode == 0, done.stderr
    loud = [line for line in done.stderr.splitlines() if line.startswith("!!!")]
    assert len(loud) == 2
    assert "SYNTHETIC" in loud[0]
    assert "NO IMAGENET WEIGHTS" in loud[1]
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/mlruns/mlflow.db")
    experiment = client.get_experiment_by_name("isic_smp-demo-synthetic")
    [run] = client.search_runs([experiment.experiment_id])
    assert run.data.tags["encoder_weights_used"] == "none"
    assert client.get_experiment_by_name("isic2016") is None
    assert [p.name for p in Path(tmp_path).iterdir() if p.name not in {"mlruns", "runs", "cache"}] == []


def test_the_official_scorer_gives_the_runs_test_scores_on_masks_of_the_registered_model(
    client, place, frozen, tmp_path, monkeypatch
):
    import mlflow
    from isic_challenge_scoring.segmentation import SegmentationScore

    from isic_smp.data.isic2016 import FOLDERS
    from isic_smp.inference.mask_files import write_mask
    from isic_smp.tracking.registry import Registry

    run = run_of(client, place, "frozen")
    registry = Registry(client.tracking_uri)
    registry.promote("lesions")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", client.tracking_uri)
    model = mlflow.pyfunc.load_model("models:/lesions@champion")
    images, truths = (sorted((place / "pictures" / folder).iterdir()) for folder in FOLDERS[2:])
    (tmp_path / "truth").mkdir()
    for image, truth in zip(images, truths, strict=True):  # the scorer takes no other names than ISIC's
        mask = model.predict([image])["mask"][0] > 0
        write_mask(tmp_path / "masks", image.stem.replace("SYN", "ISIC"), mask)
        (tmp_path / "truth" / truth.name.replace("SYN", "ISIC")).symlink_to(truth)
    official = SegmentationScore.from_dir(tmp_path / "truth", tmp_path / "masks").macro_average
    logged = run.data.metrics
    assert len(images) == 6 and 0 < logged["test/dice_per_image_own"] < 1
    assert official["dice"] == pytest.approx(logged["test/dice_per_image_own"], abs=1e-6)
    assert official["jaccard"] == pytest.approx(logged["test/iou_per_image_own"], abs=1e-6)
