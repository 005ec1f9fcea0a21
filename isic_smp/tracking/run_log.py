"""One MLflow run, logged without ever waiting for MLflow.

    with RunLog.start(experiment="isic2016", run_name="frozen", params=..., tags=..., journal=folder,
                      tracking_uri=prepare_store()) as log:
        log.log_metrics({"train/loss": 0.31, "val/dice_per_image": 0.87}, step=1)

Only `start` speaks to the store. After that everything goes into a local journal
(`isic_smp.tracking.journal`), and a thread sends it on: a server that dies, hangs or restarts
neither stops nor slows training, and nothing is lost or logged twice.
"""

import dataclasses
import getpass
import json
import logging
import os
import shlex
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np

from isic_smp.errors import UserError
from isic_smp.store import without_password
from isic_smp.tracking import media
from isic_smp.tracking.journal import Journal
from isic_smp.tracking.opening import RunRequest, open_run
from isic_smp.tracking.run_note import KEY_TAG, OFFLINE
from isic_smp.tracking.sending import Sender
from isic_smp.tracking.ui import ui_hint
from isic_smp.tracking.views import View

logger = logging.getLogger(__name__)

Status = Literal["FINISHED", "FAILED", "KILLED"]
Context = Literal["train", "validation", "test"]
CLOSE_SECONDS = 60.0
LONGEST_PARAM, LONGEST_TAG, LONGEST_NAME = 6000, 8000, 250  # characters that MLflow takes; PostgreSQL checks


class RunLog:
    """A run being logged. Make one with `RunLog.start`; use it from one thread, as a context manager.

    Leaving the `with` block finishes the run: FINISHED, KILLED on KeyboardInterrupt, else FAILED.
    """

    run_id: str
    experiment_id: str | None

    def __init__(
        self,
        journal: Journal,
        *,
        run_id: str,
        experiment_id: str | None,
        tracking_uri: str | None,
        request: RunRequest | None = None,
    ) -> None:
        self.run_id, self.experiment_id, self.tracking_uri = run_id, experiment_id, tracking_uri
        self.journal = journal
        self._logged: set[tuple[str, int]] = set()
        self._tables: list[str] = []
        self._models: set[str] = set()
        self._arrived: bool | None = None
        self._recall()
        self._sender: Sender | None = None
        if journal.size == 0:  # what `sync` has to know
            if tracking_uri is None:
                assert request is not None
                self._append("run", run_id=None, **dataclasses.asdict(request))
            else:
                uri = without_password(tracking_uri)
                self._append("run", run_id=run_id, experiment_id=experiment_id, tracking_uri=uri)
        if tracking_uri is not None:
            self._sender = Sender(journal, tracking_uri=tracking_uri, run_id=run_id)
            self._sender.start()

    @classmethod
    def start(
        cls,
        *,
        experiment: str,
        run_name: str,
        params: Mapping[str, Any],
        tags: Mapping[str, Any],
        journal: Path,
        tracking_uri: str | None,
        run_id: str | None = None,
        key: str = "",
        parent_run_id: str | None = None,
        view: View | None = None,
    ) -> "RunLog":
        """Create a run, or go on with run `run_id`.

        Args:
            experiment: Name of the experiment, created where it is missing.
            run_name: Name shown in the UI.
            params: Settings; values become text. Those of a resumed run must not have changed.
            tags: More about the run; values become text.
            journal: Folder for the journals of runs; this run's own is the folder `run_id` in it.
            tracking_uri: As `prepare_store` returns it; None: offline, everything stays in the journal
                until `isic_smp.sync` sends it.
            run_id: The run to resume. What its journal holds already is not logged a second time.
            key: A text of the caller's own, a tag of the run. Where a run with it is there already (its
                maker was killed before it could note the id), that one is taken.
            parent_run_id: The run under which the UI folds this one (a sweep's).
            view: What the UI shows of the experiment under the address in `ui_hint`.

        Raises:
            UserError: the store refuses or does not answer, or there is no run `run_id`.
        """
        own_tags = {"mlflow.user": _user(), "mlflow.source.type": "LOCAL"}
        if parent_run_id:
            own_tags["mlflow.parentRunId"] = parent_run_id
        if key:
            own_tags[KEY_TAG] = key
        texts = {name: str(value)[:LONGEST_TAG] for name, value in {**own_tags, **tags}.items()}
        request = RunRequest(experiment, run_name[:LONGEST_NAME], texts, key, view.to_tag() if view else None)
        offline = journal / f"{OFFLINE}{key or uuid.uuid4().hex}"
        book = Journal(offline) if offline.exists() or not (run_id or tracking_uri) else None
        log = None
        try:
            if tracking_uri is None:
                book = book or Journal(journal / str(run_id))
                number, known = None, book.run_id or run_id or offline.name
            else:
                number, known = open_run(request, tracking_uri, book.run_id if book else run_id)
                if book is not None:  # begun offline: all that it holds is sent now
                    book.name_run(known)
                book = book or Journal(journal / known)
            log = cls(book, run_id=known, experiment_id=number, tracking_uri=tracking_uri, request=request)
            if run_id is not None:
                log._append("resume")
                log._append("tags", values=texts)
            log.log_params(params)
        except BaseException:
            if log is not None:
                log.abandon()
            elif book is not None:
                book.close()
            raise
        return log

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log settings, which can be set once; values become text."""
        self._append("params", values={key: str(value)[:LONGEST_PARAM] for key, value in params.items()})

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set or replace tags; values become text."""
        self._append("tags", values={key: str(value)[:LONGEST_TAG] for key, value in tags.items()})

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Log numbers at `step` (an epoch). Each metric has one value a step: the first one logged stays.

        A resumed run repeats the epoch it was killed in; the rule above keeps that from doubling points.
        """
        new = {key: float(value) for key, value in metrics.items() if self._is_new(key, step)}
        if new:
            self._append("metrics", step=step, values=new)

    def log_image(self, image: np.ndarray, key: str, step: int) -> None:
        """Log a picture for the UI's image grid, one card a key, with a slider over the steps.

        Args:
            image: uint8, (H, W, 3), RGB. A card shows a square but for its lowest quarter.
            key: Letters, digits, `_-./ `; runs are laid side by side where their keys are equal.
            step: The epoch. One picture a key and step: the first one logged stays.
        """
        if not self._is_new(f"image:{key}", step):
            return
        names = media.image_names(key, step=step, milliseconds=_now(), run_id=self.run_id)
        media.write_image(image, self.journal.files, *names)
        # In one write: a run that is killed between the two would not log the second any more.
        self._write([_own_file(name) for name in names])
        self.set_tags({"mlflow.loggedImages": True})

    def log_table(self, columns: Mapping[str, Sequence[Any]], name: str) -> None:
        """Log a table that the UI shows under Artifacts, and beside other runs' tables of the same name.

        Args:
            columns: Column name → values, equally many: texts, numbers, None, uint8 (H, W, 3) pictures.
            name: File name without ending.
        """
        self._write([_own_file(file) for file in media.write_table(columns, self.journal.files, name)])
        if name not in self._tables:
            self._tables.append(name)
        listed = [{"path": f"{table}.json", "type": "table"} for table in self._tables]
        self.set_tags({"mlflow.loggedArtifacts": json.dumps(listed)})

    def log_artifact(self, path: Path, artifact_path: str | None = None) -> None:
        """Log a file, or a folder's content, under the artifact folder `artifact_path`.

        It is read when it is sent, so it must stay as it is until `finish`.
        """
        path = Path(path).absolute()
        if not path.exists():
            raise FileNotFoundError(f"no file to log: {path}")
        # Relative where it can be: an output folder that is moved keeps its unsent files.
        relative = os.path.relpath(path, self.journal.folder)
        self._append("file", path=relative, to=artifact_path, own=False)

    def log_model(self, folder: Path, name: str) -> None:
        """Log the MLflow model saved in `folder`, a folder of this run's journal; deleted once it is sent."""
        self._models.add(name)
        self._append("model", path=os.path.relpath(folder, self.journal.folder), name=name)

    def has_model(self, name: str) -> bool:
        """Whether a model was logged as `name` already, before the run was resumed perhaps."""
        return name in self._models

    def log_dataset(
        self, name: str, *, source: str, digest: str, profile: Mapping[str, Any], context: Context
    ) -> None:
        """Log a dataset that the run reads.

        Args:
            name: "isic2016", say, or "isic2016-fold-2/5" of a part; the context is appended to it, since
                MLflow keeps one entry a name and digest.
            source: Where it comes from: a URL or name, not a path of this machine.
            digest: Fingerprint of its content; the first 12 characters are kept, as the UI shows them.
            profile: Counts and the like, shown as JSON.
            context: What the run uses it for.
        """
        dataset = {
            "name": f"{name}-{context}",
            "digest": digest[:12],
            "source_type": "external",
            "source": json.dumps({"uri": source}),
            "profile": json.dumps(dict(profile)),
        }
        self._append("dataset", dataset=dataset, context=context)

    def ui_hint(self) -> str:
        """The command that opens the UI, and the addresses of this run and its experiment."""
        if self.tracking_uri is None or self.experiment_id is None:
            return f"offline: logged in {self.journal.folder} only; {self._later()}"
        return ui_hint(self.tracking_uri, experiment_id=self.experiment_id, run_id=self.run_id)

    def finish(self, status: Status = "FINISHED", *, timeout: float = CLOSE_SECONDS) -> bool:
        """End the run and send the rest, for at most `timeout` seconds.

        Returns:
            True: all has arrived. False: a line on stderr says how to send the rest later (offline: nothing
            was to be sent yet).
        """
        if self._arrived is not None:
            return self._arrived
        try:
            self._append("end", status=status)
        except UserError:
            self.abandon()
            raise
        self._arrived = arrived = self._sender.close(timeout) if self._sender else False
        self.journal.close()
        if self._sender and not arrived:
            logger.warning(
                "MLflow has not taken all of run %s (%s); %s",
                self.run_id,
                self._sender.problem or "too slow",
                self._later(),
            )
        return arrived

    @property
    def is_over(self) -> bool:
        """The journal is closed: nothing can be logged any more."""
        return self._arrived is not None

    def abandon(self) -> None:
        """Let go of the journal without ending the run, as where the disk is full: it can be resumed."""
        self._arrived = False
        if self._sender is not None:
            self._sender.close(timeout=1.0)
        self.journal.close()

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stopped = kind is not None and issubclass(kind, KeyboardInterrupt)
        self.finish("FINISHED" if kind is None else "KILLED" if stopped else "FAILED")

    def _later(self) -> str:
        return f"send it later: python -m isic_smp.sync {shlex.quote(str(self.journal.folder))}"

    def _append(self, kind: str, **fields: Any) -> None:
        self._write([{"kind": kind, **fields}])

    def _write(self, entries: list[dict[str, Any]]) -> None:
        try:
            self.journal.append(*({"time": _now(), **entry} for entry in entries))
        except OSError as error:
            raise UserError(
                f"cannot write the run's journal {self.journal.path}: {error.strerror}; "
                "make room and resume the run"
            ) from None
        if self._sender is not None:
            self._sender.wake()

    def _is_new(self, key: str, step: int) -> bool:
        if (key, step) in self._logged:
            return False
        self._logged.add((key, step))
        return True

    def _recall(self) -> None:
        """Learn from the journal of a resumed run what it has logged."""
        for entry, _ in self.journal.entries():
            if entry["kind"] == "metrics":
                self._logged.update((key, entry["step"]) for key in entry["values"])
            elif entry["kind"] == "file" and (key_step := media.image_key(entry["path"])):
                self._logged.add(key_step)
            elif entry["kind"] == "model":
                self._models.add(entry["name"])
            elif entry["kind"] == "tags" and "mlflow.loggedArtifacts" in entry["values"]:
                listed = json.loads(entry["values"]["mlflow.loggedArtifacts"])
                self._tables = [item["path"].removesuffix(".json") for item in listed]


def _own_file(name: str) -> dict[str, Any]:
    return {"kind": "file", "path": f"files/{name}", "to": name.rpartition("/")[0] or None, "own": True}


def _now() -> int:
    return int(time.time() * 1000)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "unknown"
