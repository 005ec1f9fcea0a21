import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from free_port import free_port

from isic_smp import sync
from isic_smp.errors import UserError
from isic_smp.tracking.experiment_log import ExperimentLog
from isic_smp.tracking.journal import Journal
from isic_smp.tracking.run_log import RunLog
from isic_smp.tracking.sending import send_pending
from isic_smp.tracking.sync import find_journals, sync_journal
from isic_smp.tracking.views import VIEW_TAG, View

from .conftest import new_store

PICTURE = np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)


def artifacts(client, run_id, path=None):
    found = []
    for item in client.list_artifacts(run_id, path):
        found += artifacts(client, run_id, item.path) if item.is_dir else [item.path]
    return sorted(found)


def log_some_of_everything(log, folder: Path) -> None:
    for epoch in (1, 2, 3):
        log.log_metrics({"val/dice": epoch / 10, "lr": 0.1}, step=epoch)
        log.log_image(PICTURE, "val/case_1", epoch)
    log.log_dataset(
        "isic2016", source="https://example.org", digest="ab" * 32, profile={"n": 7}, context="train"
    )
    log.log_dataset(
        "isic2016", source="https://example.org", digest="ab" * 32, profile={"n": 3}, context="test"
    )
    log.log_table(
        {"id": ["a", "b"], "dice": np.array([0.5, np.nan]), "picture": [PICTURE, PICTURE]}, "scores"
    )
    (folder / "notes").mkdir()
    (folder / "notes" / "note.txt").write_text("hello")
    log.log_artifact(folder / "notes", "notes")


def everything(client, run_id) -> dict:
    run = client.get_run(run_id)
    return {
        "status": run.info.status,
        "params": run.data.params,
        "tags": run.data.tags,
        "metrics": {
            key: [(m.step, m.timestamp, m.value) for m in client.get_metric_history(run_id, key)]
            for key in run.data.metrics
        },
        "datasets": sorted((d.dataset.name, d.tags[0].value) for d in run.inputs.dataset_inputs),
        "artifacts": artifacts(client, run_id),
    }


def test_a_long_name_is_cut_to_what_every_database_takes(start, client):
    """A comparison of many groups has one; MLflow's column holds 250 characters, and SQLite alone does not count."""
    with start(run_name=" vs ".join(["encoder trunc-mobilenetv2_100-s4"] * 20)) as log:
        pass
    assert len(client.get_run(log.run_id).info.run_name) == 250


def test_everything_arrives(start, client, tmp_path):
    parent = client.create_run("0").info.run_id
    with start(params={"lr": 0.1, "sizes": [1, 2]}, tags={"data": "all"}, parent_run_id=parent) as log:
        log_some_of_everything(log, tmp_path)
    found = everything(client, log.run_id)
    assert found["status"] == "FINISHED"
    assert found["params"] == {"lr": "0.1", "sizes": "[1, 2]"}
    assert found["tags"]["data"] == "all" and found["tags"]["mlflow.parentRunId"] == parent
    assert [(s, v) for s, _, v in found["metrics"]["val/dice"]] == [(1, 0.1), (2, 0.2), (3, 0.3)]
    assert found["datasets"] == [("isic2016-test", "test"), ("isic2016-train", "train")]
    assert "notes/note.txt" in found["artifacts"]
    assert not any(path.is_file() for path in log.journal.files.rglob("*")), "sent files are kept twice"


def test_sending_a_journal_again_changes_nothing(start, client, tmp_path):
    with start(params={"a": 1}) as log:
        log_some_of_everything(log, tmp_path)
    before = everything(client, log.run_id)
    (log.journal.folder / "sent").unlink()  # as if the process had been killed before it noted anything
    with Journal(log.journal.folder) as journal:
        send_pending(journal, client, log.run_id)
    assert everything(client, log.run_id) == before


def test_images_lie_under_the_names_that_the_ui_looks_for(start, client):
    """The real client's own file names are the pattern."""
    with start() as log:
        log.log_image(PICTURE, "val/case_1", 4)
    theirs = client.create_run(log.experiment_id).info.run_id
    client.log_image(theirs, PICTURE, key="val/case_1", step=4)

    def names(run_id):
        found = artifacts(client, run_id, "images")
        return sorted(re.sub(r"timestamp\+\d+|[0-9a-f]{8}-[0-9a-f-]{27}", "*", name) for name in found)

    assert names(log.run_id) == names(theirs) != []
    assert client.get_run(log.run_id).data.tags["mlflow.loggedImages"] == "True"


def test_a_logged_image_comes_back_as_it_was(start, client, tmp_path):
    from PIL import Image

    with start() as log:
        log.log_image(PICTURE, "val/case_1", 1)
    [full] = [name for name in artifacts(client, log.run_id) if name.endswith(".png")]
    path = client.download_artifacts(log.run_id, full, str(tmp_path))
    assert np.array_equal(np.asarray(Image.open(path)), PICTURE)


def test_a_table_is_read_back_by_mlflow(start, store, client, tmp_path, monkeypatch):
    with start() as log:
        log_some_of_everything(log, tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)  # load_table looks there, whatever the client's own
    table = client.load_table(log.experiment_id, "scores.json", [log.run_id])
    assert list(table["id"]) == ["a", "b"]
    assert table["dice"][0] == 0.5 and np.isnan(table["dice"][1])
    assert table["picture"][0]["filepath"] in artifacts(client, log.run_id)


def test_a_metric_keeps_its_first_value_of_a_step(start, client):
    with start() as log:
        log.log_metrics({"images_per_second": 400}, step=1)
        log.log_metrics({"images_per_second": 300}, step=1)
    assert [m.value for m in client.get_metric_history(log.run_id, "images_per_second")] == [400]


@pytest.mark.parametrize(("error", "status"), [(RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_a_run_that_breaks_off_says_so(start, client, error, status):
    with pytest.raises(error), start() as log:
        raise error
    assert client.get_run(log.run_id).info.status == status


KILLED_RUN = """
import os, signal, sys
import numpy as np
from pathlib import Path
from isic_smp.tracking.run_log import RunLog
log = RunLog.start(experiment="tests", run_name="killed", params={"a": 1}, tags={}, journal=Path(sys.argv[1]),
                   tracking_uri=sys.argv[2])
for epoch in range(1, 6):
    log.log_metrics({"val/dice": epoch / 10}, step=epoch)
log.log_image(np.zeros((8, 8, 3), np.uint8), "val/case_1", 5)
print(log.run_id, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_goes_on_and_has_each_epoch_once(start, store, client, tmp_path):
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_RUN, str(tmp_path / "journal"), store], capture_output=True, text=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    run_id = killed.stdout.strip()
    with start(run_id=run_id, params={"a": 1}) as log:
        for epoch in range(4, 9):  # the last checkpoint was that of epoch 3
            log.log_metrics({"val/dice": epoch / 10}, step=epoch)
        log.log_image(PICTURE, "val/case_1", 5)
    assert log.run_id == run_id
    history = [(m.step, m.value) for m in client.get_metric_history(run_id, "val/dice")]
    assert history == [(epoch, epoch / 10) for epoch in range(1, 9)]
    assert len(artifacts(client, run_id, "images")) == 2
    assert client.get_run(run_id).info.status == "FINISHED"


def test_a_resumed_run_is_running_until_it_ends(start, client):
    with start() as first:
        pass
    log = start(run_id=first.run_id)
    deadline = time.monotonic() + 10
    while client.get_run(log.run_id).info.status != "RUNNING" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert client.get_run(log.run_id).info.status == "RUNNING"
    log.finish()
    assert client.get_run(log.run_id).info.status == "FINISHED"


def test_resuming_a_run_that_is_not_there(start):
    with pytest.raises(UserError, match="cannot resume run"):
        start(run_id="0" * 32)


def test_a_deleted_run_is_not_resumed(start, client):
    log = start()
    log.finish()
    client.delete_run(log.run_id)
    with pytest.raises(UserError, match=f"was deleted .*mlflow runs restore --run-id {log.run_id}"):
        start(run_id=log.run_id)


def test_a_run_that_is_deleted_while_it_goes_on_has_everything_once_it_is_restored(
    start, client, store, tmp_path, caplog, in_this_process
):
    log = start()
    client.delete_run(log.run_id)
    log.log_metrics({"val/dice": 0.5}, step=1)
    log.log_table({"id": ["a"]}, "scores")
    began = time.monotonic()
    assert log.finish() is False
    assert time.monotonic() - began < 20, "what does not come back by itself is not waited for"
    assert f"mlflow runs restore --run-id {log.run_id}" in caplog.text and "isic_smp.sync" in caplog.text

    words = [log.journal.folder, "--tracking-uri", store]
    done = in_this_process(sync, *words)
    assert done.returncode == 2 and "was deleted" in done.stderr
    client.restore_run(log.run_id)
    assert in_this_process(sync, *words).returncode == 0
    run = client.get_run(log.run_id)
    assert run.info.status == "FINISHED" and run.data.metrics["val/dice"] == 0.5
    assert artifacts(client, log.run_id) == ["scores.json"]


def test_a_journal_that_is_sent_to_the_wrong_store_can_still_be_sent_to_the_right_one(
    started_together, client, store, tmp_path, in_this_process
):
    (tmp_path / "elsewhere").mkdir()
    other = new_store(started_together, tmp_path / "elsewhere")
    run_id = client.create_run("0").info.run_id
    with Journal(tmp_path / "out" / "journal" / run_id) as journal:
        journal.append(
            {"kind": "run", "time": 1, "run_id": run_id, "tracking_uri": store},
            {"kind": "metrics", "time": 2, "step": 1, "values": {"val/dice": 0.5}},
        )
    done = in_this_process(sync, tmp_path / "out", "--tracking-uri", other)
    assert done.returncode == 2
    assert f"run {run_id} is not there; it was begun in {store}: name that by --tracking-uri" in done.stderr
    assert in_this_process(sync, tmp_path / "out", "--tracking-uri", store).returncode == 0
    assert client.get_run(run_id).data.metrics == {"val/dice": 0.5}


def test_one_run_is_logged_by_one_process(start):
    log = start()
    with pytest.raises(UserError, match="in use"):
        start(run_id=log.run_id)
    log.finish()


def test_an_entry_that_mlflow_refuses_does_not_hold_up_the_rest(start, client):
    with start(params={"lr": 0.1}) as log:
        log.log_params({"lr": 0.2})  # MLflow: parameters cannot be changed
        log.log_metrics({"val/dice": 0.5}, step=1)
    run = client.get_run(log.run_id)
    assert run.data.params["lr"] == "0.1" and run.data.metrics["val/dice"] == 0.5
    [refused] = map(json.loads, (log.journal.folder / "refused.jsonl").read_text().splitlines())
    assert refused["values"] == {"lr": "0.2"}


def test_an_entry_that_mlflow_refuses_later_is_said_by_sync(client, store, tmp_path, in_this_process):
    dead = f"http://127.0.0.1:{free_port()}"
    run_id = client.create_run("0").info.run_id
    folder = tmp_path / "out" / "journal" / run_id
    log = RunLog(Journal(folder), run_id=run_id, experiment_id="0", tracking_uri=dead)
    log.log_params({"lr": 0.1})
    log.log_params({"lr": 0.2})
    log.log_metrics({"val/dice": 0.5}, step=1)
    assert log.finish(timeout=1) is False

    done = in_this_process(sync, tmp_path / "out", "--tracking-uri", store)
    assert done.returncode == 1
    assert f"1 refused (see {folder / 'refused.jsonl'})" in done.stdout
    run = client.get_run(run_id)
    assert run.data.params["lr"] == "0.1" and run.data.metrics["val/dice"] == 0.5
    assert in_this_process(sync, tmp_path / "out", "--tracking-uri", store).returncode == 0


def test_a_run_that_still_goes_on_does_not_keep_the_others_from_being_sent(
    client, store, tmp_path, in_this_process
):
    ids = sorted(client.create_run("0").info.run_id for _ in range(2))
    for run_id in ids:
        with Journal(tmp_path / run_id) as journal:
            journal.append(
                {"kind": "run", "time": 1, "run_id": run_id, "tracking_uri": store},
                {"kind": "metrics", "time": 2, "step": 1, "values": {"val/dice": 0.5}},
            )
    with Journal(tmp_path / ids[0]):  # as its run holds it
        done = in_this_process(sync, tmp_path, "--tracking-uri", store)
    assert done.returncode == 2 and f"{ids[0]} is in use" in done.stderr
    assert client.get_run(ids[0]).data.metrics == {}
    assert client.get_run(ids[1]).data.metrics == {"val/dice": 0.5}


def test_an_error_after_the_end_leaves_the_ended_run_alone(start, client, tmp_path):
    log = start()
    log.finish()
    (tmp_path / "another").write_bytes(b"")
    with (tmp_path / "another").open("ab") as another:  # takes the number of the journal's closed file
        ExperimentLog.fail(SimpleNamespace(log=log), KeyboardInterrupt("late"))
        assert another.tell() == 0
    run = client.get_run(log.run_id)
    assert run.info.status == "FINISHED" and "stopped_by" not in run.data.tags


def test_a_server_that_is_away_costs_nothing_and_gets_all_later(client, store, tmp_path, caplog):
    """The same journal code as with a live server; the run was made while it still answered."""
    dead = f"http://127.0.0.1:{free_port()}"
    run_id = client.create_run("0").info.run_id
    out = tmp_path / "my runs"
    log = RunLog(Journal(out / run_id), run_id=run_id, experiment_id="0", tracking_uri=dead)
    began = time.monotonic()
    for epoch in range(200):
        log.log_metrics({"val/dice": epoch / 200}, step=epoch)
    assert time.monotonic() - began < 10, "the caller waited for the server"
    log_some_of_everything(log, tmp_path)
    assert log.finish(timeout=1) is False
    assert f"python -m isic_smp.sync '{out / run_id}'" in caplog.text

    [folder] = find_journals([out])
    with pytest.raises(UserError, match="cannot be used"):
        sync_journal(folder, tracking_uri=None)
    sync_journal(folder, tracking_uri=store)
    found = everything(client, run_id)
    assert len(found["metrics"]["val/dice"]) == 200
    assert found["status"] == "FINISHED" and "notes/note.txt" in found["artifacts"]
    assert sync_journal(folder, tracking_uri=store) == (0, 0)


def test_the_prepared_view_is_kept_by_the_store(start, client):
    pictures = {f"val/case_{i}": 1 for i in range(1, 7)} | dict.fromkeys(("test/best", "test/worst"), 0)
    grid = [f"final/case_{i}" for i in range(1, 5)]
    with start(view=View(metrics=["test/dice"], params=["freeze"], grid=grid, pictures=pictures)) as log:
        pass
    state = json.loads(client.get_experiment(log.experiment_id).tags[VIEW_TAG])
    assert "metrics.`test/dice`" in state["selectedColumns"]
    shown = [chart["imageKeys"] for chart in state["compareRunCharts"] if not chart["deleted"]]
    assert shown == [grid, *([key] for key in pictures)]


def test_the_hint_names_the_store_as_seen_from_here(start, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log = start()
    log.finish()
    hint = log.ui_hint()
    assert "ui --backend-store-uri sqlite:///mlruns/mlflow.db\n" in hint
    assert f"http://127.0.0.1:5000/#/experiments/{log.experiment_id}/runs/{log.run_id}?" in hint


def test_a_bad_image_key_is_told_to_the_caller(start):
    with start() as log, pytest.raises(ValueError, match="image key"):
        log.log_image(PICTURE, "val?case", 1)
