"""The study's own run in MLflow: the parent under which the UI folds the trials.

Any worker may write to it, from any machine. What is logged while trials run is for looking at meanwhile:
a worker waits for each call, up to 20 s where the server does not answer, and then goes on without it. The
study itself is the truth from which the end is written.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from isic_smp.errors import UserError
from isic_smp.store import experiment_id, one_line, prepare_store, without_password
from isic_smp.sweeping.plan import Plan
from isic_smp.sweeping.queue import REASON, complete, ended, first_number, queued
from isic_smp.tracking.environment import run_tags
from isic_smp.tracking.experiment_log import ONCE, by_section
from isic_smp.tracking.ui import ui_hint

logger = logging.getLogger(__name__)

RUN = "mlflow_run"
"""User attribute of the study: the parent run's id."""

QUEUED, TRIAL, IOU, DICE = "trials/queued", "best/trial", "best/val_iou", "best/val_dice"
"""Metrics that have a value after each trial, beside the counts of `STATES`."""

STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}


class StudyRun:
    """The parent run. Make one with `join`."""

    def __init__(self, run_id: str, experiment: str, tracking_uri: str) -> None:
        self.run_id, self.experiment, self.tracking_uri = run_id, experiment, tracking_uri

    @classmethod
    def join(
        cls, study: optuna.Study, plan: Plan, *, experiment: str, tracking_uri: str | None
    ) -> "StudyRun":
        """Create the study's run, or find the one that it has; call it under the study's lock.

        Raises:
            UserError: the store refuses or does not answer.
        """
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        uri = prepare_store(tracking_uri)
        client = MlflowClient(uri)
        known = study.user_attrs.get(RUN)
        try:
            if known is None:
                known = cls._create(client, study, plan, experiment_id(experiment, tracking_uri=uri))
                study.set_user_attr(RUN, known)
            run = client.get_run(known)
            client.update_run(known, status="RUNNING")
        except MlflowException as error:
            raise UserError(
                f"the study {study.study_name} has no run in {without_password(uri)}: {one_line(error)}; "
                "give the --tracking-uri that it was begun with, or another --study"
            ) from None
        return cls(run.info.run_id, run.info.experiment_id, uri)

    @staticmethod
    def _create(client: Any, study: optuna.Study, plan: Plan, experiment: str) -> str:
        from mlflow.entities import Param

        run = client.create_run(
            experiment, run_name=study.study_name, tags={**run_tags(), "optuna.study": study.study_name}
        )
        varied = {f"varied.{name}": str(d) for name, d in plan.distributions.items()}
        fixed = {name: value for name, value in plan.base.to_dict().items() if name not in plan.distributions}
        params = [Param(name, str(value)[:6000]) for name, value in {**fixed, **varied}.items()]
        client.log_batch(run.info.run_id, params=params)
        return str(run.info.run_id)

    def hint(self) -> str:
        """The command and the address that show the study."""
        return ui_hint(self.tracking_uri, experiment_id=self.experiment, run_id=self.run_id)

    def progress(self, study: optuna.Study, plan: Plan) -> None:
        """Log how far the study is and what its best trial reached."""
        over = ended(study)
        counts = {f"trials/{word}": 0 for word in STATES.values()}
        for trial in over:
            counts[f"trials/{STATES[trial.state.name]}"] += 1
        metrics = {QUEUED: len(queued(study)), **counts}
        best = winner(study, plan)
        if best is not None:
            metrics[TRIAL] = first_number(best)
            metrics[IOU] = best.user_attrs["val_iou"]
            metrics[DICE] = best.user_attrs["val_dice"]
        self._try(lambda client: self._log(client, metrics, len(over)))

    def mark_trial(self, trial: FrozenTrial) -> None:
        """Tag a trial's run with how the study sees it: pruned and failed trials are told apart there."""
        run_id = trial.user_attrs.get("run_id")
        if run_id is not None:
            tags = {"optuna.state": trial.state.name, "optuna.reason": trial.user_attrs.get(REASON, "")[:500]}
            self._try(lambda client: [client.set_tag(run_id, k, v) for k, v in tags.items() if v])

    def add_scores(self, run_id: str, section: str, scores: Mapping[str, float], table: Path) -> bool:
        """Add scores to a trial's run that was ended before they were known, as `run` logs them; say whether all got there."""

        def add(client: Any) -> None:
            self._log(client, by_section(section, scores), ONCE, run_id)
            client.log_artifact(run_id, str(table), "scores")

        return self._try(add)

    def finish(
        self, status: str, *, files: Sequence[Path], metrics: Mapping[str, float], answer: str
    ) -> None:
        """Log the study's files and end its run.

        Raises:
            UserError: the store refuses or does not answer; the files are on the disk all the same.
        """
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        client = MlflowClient(self.tracking_uri)
        try:
            # MLflow shows the value of the highest step, and a curve of those that were logged after each trial.
            curves = {TRIAL, IOU, DICE, *(f"trials/{word}" for word in STATES.values())}
            last = max((m.step for m in client.get_metric_history(self.run_id, QUEUED)), default=ONCE)
            self._log(client, {name: value for name, value in metrics.items() if name in curves}, last)
            self._log(client, {name: value for name, value in metrics.items() if name not in curves}, ONCE)
            if answer:
                client.set_tag(self.run_id, "answer", answer[:5000])
                client.set_tag(self.run_id, "mlflow.note.content", answer[:5000])
            for file in files:
                client.log_artifact(self.run_id, str(file))
            client.set_terminated(self.run_id, status)
        except (MlflowException, OSError) as error:  # files go by requests, whose errors are OSErrors
            raise UserError(
                f"the study is complete, but its answer did not reach {without_password(self.tracking_uri)} "
                f"({one_line(error)}); give the same command again"
            ) from None

    def _log(self, client: Any, metrics: Mapping[str, float], step: int, run_id: str | None = None) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        client.log_batch(run_id or self.run_id, [Metric(k, float(v), now, step) for k, v in metrics.items()])

    def _try(self, call: Callable[[Any], Any]) -> bool:
        """Call, and go on where MLflow does not answer: the trials matter more. Whether it did."""
        from mlflow import MlflowClient

        try:
            call(MlflowClient(self.tracking_uri))
        except Exception as error:  # whatever the store raises
            logger.warning("not logged to the study's run: %s", one_line(error))
            return False
        return True


def winner(study: optuna.Study, plan: Plan) -> FrozenTrial | None:
    """The complete trial with the best validation IoU, confirmations under other seeds left out."""
    from isic_smp.sweeping.trial import SEED

    done = [t for t in complete(ended(study)) if "val_iou" in t.user_attrs and SEED not in t.user_attrs]
    return max(done, key=lambda t: t.user_attrs["val_iou"], default=None)
