"""From a run's journal to MLflow: in order, in batches, again and again until it has arrived.

Each kind of entry becomes one call of the MLflow client that may be repeated without effect:
metrics carry their own time and step (MLflow's key), files their own names, datasets their digest.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from isic_smp.store import one_line
from isic_smp.tracking.journal import Entry, Journal
from isic_smp.tracking.opening import why_away

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

METRICS_A_CALL = 1000
TEXTS_A_CALL = 100  # parameters, and tags
GATHER_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 15.0
# What a server answers to an entry that it will not take however often it is sent.
REFUSALS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE"}


class Refused(Exception):
    """An entry that MLflow would not take however often it were sent."""


class RunAway(Exception):
    """The run was deleted, or is in another store: its entries wait in the journal, none is refused."""


class Sender(threading.Thread):
    """Sends what a journal holds, in a daemon thread, so that the training thread never waits for MLflow."""

    def __init__(self, journal: Journal, *, tracking_uri: str, run_id: str) -> None:
        super().__init__(name=f"mlflow-{run_id[:8]}", daemon=True)
        self._journal, self._uri, self._run_id = journal, tracking_uri, run_id
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._abandoned = threading.Event()
        self.problem: str | None = None

    def wake(self) -> None:
        """Say that the journal has grown; returns at once."""
        self._wake.set()

    def close(self, timeout: float) -> bool:
        """Send the rest, for at most `timeout` seconds. True: all has arrived."""
        self._closing.set()
        self._wake.set()
        try:
            self.join(timeout)
        finally:
            self._abandoned.set()
            self._wake.set()
        return self._journal.sent >= self._journal.size

    def run(self) -> None:
        """The thread's work; `start` calls it."""
        from mlflow import MlflowClient

        client = None
        pause = 0.5
        while not self._abandoned.is_set():
            self._wake.wait()
            self._wake.clear()
            if not self._closing.is_set():
                self._closing.wait(GATHER_SECONDS)  # let a few entries gather: one call for all of them
            try:
                client = client or MlflowClient(self._uri)
                send_pending(self._journal, client, self._run_id, stop=self._abandoned.is_set)
            except Exception as error:  # whatever it is, training goes on and the entry is tried again
                if self.problem is None:
                    logger.warning(
                        "MLflow %s (%s); the run goes on, and what it logs is kept in %s",
                        "takes nothing" if isinstance(error, RunAway) else "does not answer",
                        one_line(error),
                        self._journal.folder,
                    )
                self.problem = one_line(error)
                if isinstance(error, RunAway) and self._closing.is_set():
                    return  # nobody brings it back within a minute
                (self._abandoned if self._closing.is_set() else self._closing).wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS if not self._closing.is_set() else 2.0)
                self._wake.set()
                continue
            if self.problem is not None:
                logger.warning("MLflow answers again; all that was kept has been sent")
                self.problem = None
            pause = 0.5
            if self._closing.is_set() and self._journal.sent >= self._journal.size:
                return


def send_pending(
    journal: Journal, client: "MlflowClient", run_id: str, *, stop: Callable[[], bool] = lambda: False
) -> None:
    """Send everything that has not arrived yet, in the order it was logged.

    Raises:
        RunAway: there is no such run.
        Exception: whatever the client raises where the store is away; what arrived before stays marked.
    """
    for batch, end in _batches(journal.entries(journal.sent)):
        if stop():
            return
        try:
            _send(batch, journal, client, run_id)
        except Exception as error:
            if not _is_refusal(error):
                raise
            if why := why_away(client, run_id):  # it would refuse everything, one entry after the other
                raise RunAway(why) from None
            for entry in batch:
                _send_or_refuse(entry, journal, client, run_id)
        journal.mark_sent(end)


def _send_or_refuse(entry: Entry, journal: Journal, client: "MlflowClient", run_id: str) -> None:
    for attempt in range(3):  # two processes that add the same dataset at once refuse one of them once
        try:
            _send([entry], journal, client, run_id)
            return
        except Exception as error:
            if not _is_refusal(error):
                raise
            reason = one_line(error)
            time.sleep(0.1 * attempt)
    journal.refuse(entry, reason)
    logger.warning("MLflow refuses an entry, kept in %s: %s", journal.folder / "refused.jsonl", reason)


def _is_refusal(error: Exception) -> bool:
    if isinstance(error, Refused):
        return True
    response = getattr(error, "response", None)  # of requests, for uploads
    if response is not None:
        return 400 <= response.status_code < 500 and response.status_code not in (401, 403, 408, 429)
    return getattr(error, "error_code", None) in REFUSALS


def _batches(entries: Iterator[tuple[Entry, int]]) -> Iterator[tuple[list[Entry], int]]:
    """Runs of metrics, parameters and tags together; every other entry alone."""
    batch: list[Entry] = []
    counts = {"metrics": 0, "params": 0, "tags": 0}
    last_end = 0
    for entry, end in entries:
        kind, size = entry["kind"], len(entry.get("values", ()))
        full = kind in counts and (
            counts[kind] + size > (METRICS_A_CALL if kind == "metrics" else TEXTS_A_CALL)
            or sum(counts.values()) + size > METRICS_A_CALL
        )
        if batch and (full or kind not in counts):
            yield batch, last_end
            batch, counts = [], dict.fromkeys(counts, 0)
        if kind in counts:
            batch.append(entry)
            counts[kind] += size
            last_end = end
        else:
            yield [entry], end
    if batch:
        yield batch, last_end


def _send(batch: list[Entry], journal: Journal, client: "MlflowClient", run_id: str) -> None:
    kind = batch[0]["kind"]
    if kind in ("metrics", "params", "tags"):
        _send_values(batch, client, run_id)
    elif kind == "file":
        _send_file(batch[0], journal, client, run_id)
    elif kind == "dataset":
        _send_dataset(batch[0], client, run_id)
    elif kind == "model":
        from isic_smp.tracking.models import send_model

        send_model(batch[0], journal, client, run_id)
    elif kind == "resume":
        client.update_run(run_id, status="RUNNING")
    elif kind == "end":
        client.set_terminated(run_id, batch[0]["status"], batch[0]["time"])


def _send_values(batch: list[Entry], client: "MlflowClient", run_id: str) -> None:
    from mlflow.entities import Metric, Param, RunTag

    texts: dict[str, dict[str, str]] = {"params": {}, "tags": {}}
    metrics = []
    for entry in batch:
        if entry["kind"] == "metrics":
            metrics += [Metric(k, v, entry["time"], entry["step"]) for k, v in entry["values"].items()]
            continue
        for key, value in entry["values"].items():
            if entry["kind"] == "params" and texts["params"].get(key, value) != value:
                raise Refused(f"parameter {key} was set before, to another value")
            texts[entry["kind"]][key] = value
    params = iter([Param(k, v) for k, v in texts["params"].items()])
    tags = iter([RunTag(k, v) for k, v in texts["tags"].items()])
    rest = iter(metrics)
    while True:  # one call, unless a single entry is larger than a call may be
        some = (
            list(islice(rest, METRICS_A_CALL - 2 * TEXTS_A_CALL)),
            list(islice(params, TEXTS_A_CALL)),
            list(islice(tags, TEXTS_A_CALL)),
        )
        if not any(some):
            return
        client.log_batch(run_id, *some, synchronous=True)


def _send_file(entry: Entry, journal: Journal, client: "MlflowClient", run_id: str) -> None:
    path = journal.folder / entry["path"]
    if not path.exists():
        if entry["own"]:
            return  # it has arrived before, and was deleted then
        raise Refused(f"{path} is gone: it must stay until the run is finished")
    if path.is_dir():
        client.log_artifacts(run_id, str(path), entry["to"])
    else:
        client.log_artifact(run_id, str(path), entry["to"])
    if entry["own"]:
        path.unlink()


def _send_dataset(entry: Entry, client: "MlflowClient", run_id: str) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    fields: dict[str, Any] = entry["dataset"]
    client.log_inputs(
        run_id, [DatasetInput(Dataset(**fields), [InputTag("mlflow.data.context", entry["context"])])]
    )
