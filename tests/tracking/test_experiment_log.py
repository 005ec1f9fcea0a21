"""What an experiment logs, and when."""

import errno
from dataclasses import replace

import pytest

from isic_smp.data.isic2016 import LesionData
from isic_smp.tracking.experiment_log import PICTURES, ExperimentLog, has_pictures
from isic_smp.tracking.journal import Journal
from isic_smp.tracking.run_log import RunLog


@pytest.mark.parametrize("epochs", [1, 2, 5, 6, 9, 14, 25, 99, 100])
def test_pictures_are_drawn_after_the_first_and_last_epoch_and_a_few_between(epochs):
    drawn = [step for step in range(1, epochs + 1) if has_pictures(step, epochs)]
    assert drawn[0] == 1 and drawn[-1] == epochs
    assert min(epochs, PICTURES - 1) <= len(drawn) <= PICTURES + 2


def test_why_a_run_failed_is_not_hidden_by_a_disk_that_is_full(tmp_path, monkeypatch, caplog):
    data = LesionData("isic2016", tmp_path, train=(), val=(), test=(), fingerprint="ab" * 32, official={})
    log = RunLog.start(
        experiment="e", run_name="r", params={}, tags={}, journal=tmp_path / "journals", tracking_uri=None
    )

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(log.journal, "append", full)
    ExperimentLog(log, None, data, None, binarize_masks=False, output_dir=tmp_path).fail(ZeroDivisionError())
    assert log.is_over
    assert "the run is not marked as ended: cannot write the run's journal" in caplog.text
    Journal(log.journal.folder).close()  # its lock is free again


def test_folds_and_data_without_a_group_are_datasets_of_their_own(tmp_path):
    """In MLflow, which has one entry a name and digest."""
    whole = LesionData("isic2016", tmp_path, train=(), val=(), test=(), fingerprint="ab" * 32, official={})
    found = []
    for part in ("", "-fold-2/5", "-without-hard"):
        data = replace(whole, fingerprint=whole.fingerprint + part)
        folder = tmp_path / (part.replace("/", "-") or "whole")
        log = RunLog.start(
            experiment="e", run_name="r", params={}, tags={}, journal=folder, tracking_uri=None
        )
        ExperimentLog(log, None, data, None, binarize_masks=False, output_dir=folder)._log_datasets()
        entries = [entry["dataset"] for entry, _ in log.journal.entries() if entry["kind"] == "dataset"]
        found += [(entry["name"], entry["digest"]) for entry in entries]
        log.finish()
    names = ("isic2016", "isic2016-fold-2/5", "isic2016-without-hard")
    splits = ("train", "validation", "test")
    assert found == [(f"{name}-{split}", "ab" * 6) for name in names for split in splits]
