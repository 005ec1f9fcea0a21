"""One process's part in a study: its data, its storage, its MLflow run, and what it does with them."""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial

from isic_smp.data.held_out import hold_out
from isic_smp.data.isic2016 import LesionData
from isic_smp.data.source import default_cache_dir, resolve_data
from isic_smp.errors import UserError
from isic_smp.setup import DEMO_EXPERIMENT, Setup
from isic_smp.store import without_password
from isic_smp.sweeping.alone import train_here
from isic_smp.sweeping.answer import Answer, Findings, write_answer
from isic_smp.sweeping.beforehand import FolderNote, check_starts
from isic_smp.sweeping.database import lock
from isic_smp.sweeping.final_scores import score_tests
from isic_smp.sweeping.group import GroupTrainer
from isic_smp.sweeping.options import Options
from isic_smp.sweeping.plan import Plan
from isic_smp.sweeping.queue import REASON, ended, enqueue, first_number, is_over
from isic_smp.sweeping.results import cells, chosen, collect
from isic_smp.sweeping.storage import TICKET, open_storage
from isic_smp.sweeping.study import open_study
from isic_smp.sweeping.study_run import StudyRun, winner
from isic_smp.sweeping.trial import SEED, TrialRunner
from isic_smp.sweeping.worker import line, work
from isic_smp.sweeping.workers import worker_number

SWEEPS = "-sweeps"
"""Ends the name of the MLflow experiment that holds studies, apart from single runs."""


class Session:
    """A study as this process has it. Make one with `open`."""

    def __init__(
        self,
        options: Options,
        plan: Plan,
        data: LesionData,
        study: optuna.Study,
        run: StudyRun,
        *,
        folder: Path,
        url: str,
    ) -> None:
        self.options, self.plan, self.data, self.study, self.run = options, plan, data, study, run
        self.folder, self.url = folder, url
        self.shown_storage = without_password(url)

    @classmethod
    def open(cls, options: Options, plan: Plan, name: str, *, folder: Path, url: str) -> "Session":
        """Find the data and what the trials start from, open or create the study, its queue and its MLflow run.

        Raises:
            UserError: one of them cannot be used.
        """
        cache_dir = options.cache_dir or default_cache_dir()
        data, is_demo = resolve_data(options.data, options.data_dir, cache_dir=cache_dir)
        if options.hold_out is not None:
            data = hold_out(
                data, options.hold_out, cache_dir=cache_dir, binarize_masks=options.binarize_masks
            )
        experiment = options.experiment or (
            (DEMO_EXPERIMENT if data.name == "synthetic" else data.name) + SWEEPS
        )
        studies = optuna.get_all_study_names(open_storage(url, heartbeat=options.heartbeat))
        note = FolderNote(folder)
        note.check_name(name, studies)
        if name not in studies:  # one that is over is asked for its answer without weights, too
            check_starts(plan, is_demo=is_demo, tracking_uri=options.tracking_uri)
        study = open_study(name, plan, url=url, heartbeat=options.heartbeat, data=data)
        with lock(url, name):
            run = StudyRun.join(study, plan, experiment=experiment, tracking_uri=options.tracking_uri)
            note.keep(name, run_id=run.run_id, storage=without_password(url))
        options = dataclasses.replace(options, experiment=experiment)
        return cls(options, plan, data, study, run, folder=folder, url=url)

    def work(self, processes: int = 1, *, say: Callable[[str], None] = lambda _: None) -> None:
        """Take trials until the study is over.

        Args:
            processes: that train one trial together.
            say: told a line after each trial.
        """
        options = self.options
        setup = Setup(
            # Folders that vanish meanwhile must not let drawn pictures take the images' place.
            data="isic2016" if self.data.name == "isic2016" else options.data,
            data_dir=options.data_dir,
            binarize_masks=options.binarize_masks,
            hold_out=options.hold_out,
            cache_dir=options.cache_dir,
            experiment=options.experiment,
            tracking_uri=self.run.tracking_uri,
            parent_run_id=self.run.run_id,
            device=_own_device(options.device),
        )
        runner = TrialRunner(
            self.plan,
            setup,
            self.folder,
            study_name=self.study.study_name,
            train=train_here if processes == 1 else GroupTrainer(processes),
        )

        def on_ended(study: optuna.Study, trial: FrozenTrial) -> None:
            say(line(study, trial))
            self.run.mark_trial(trial)
            self.run.progress(study, self.plan)

        work(
            self.study,
            runner,
            url=self.url,
            heartbeat=options.heartbeat,
            on_ended=on_ended,
            add_more=self._confirm,
        )

    def is_over(self) -> bool:
        """Whether no trial waits or runs."""
        return is_over(self.study)

    def show_new(self, shown: set[int]) -> None:
        """Print a line for each trial that has ended and is not in `shown`, and put it there."""
        for trial in ended(self.study):
            if trial.number not in shown:
                shown.add(trial.number)
                print(line(self.study, trial), file=sys.stderr, flush=True)

    def answer(self, make: Callable[[Findings], Answer], *, register: str | None) -> str:
        """Score the chosen trials on the test images, if there are any, write and log the answer, and give back its text.

        Of several processes that come here the first scores the test images, one at a time writes the answer.

        Raises:
            UserError: no trial was completed, or MLflow does not take the answer.
        """
        with lock(self.url, f"{self.study.study_name} answer"):
            picked = chosen(self.study, self.plan)
            if not picked:
                self.run.finish("FAILED", files=[], metrics={}, answer="No trial was completed.")
                reasons = dict.fromkeys(t.user_attrs.get(REASON, "") for t in ended(self.study))
                raise UserError(
                    f"no trial of {self.study.study_name} was completed: {next(iter(reasons), '')[:300]}; they stay failed: "
                    "once that is mended, choose another --study"
                )
            tested = self.plan.tested and bool(self.data.test)
            if tested:
                score_tests(
                    self.study,
                    collect(self.study, picked, self.folder),
                    self.data,
                    run=self.run,
                    binarize_masks=self.options.binarize_masks,
                    device=self.options.device,
                )
            findings = Findings(
                study=self.study,
                plan=self.plan,
                cells=cells(collect(self.study, picked, self.folder)),
                data=self.data,
                folder=self.folder,
                tracking_uri=self.run.tracking_uri,
                tested=tested,
                dividing={
                    "hold_out": self.options.hold_out,
                    "binarize_masks": self.options.binarize_masks,
                },
            )
            text = write_answer(findings, make(findings), run=self.run)
        if register is not None:
            text += "\n" + self._register(register)
        return f"{text}\n\n{self.run.hint()}"

    def _register(self, name: str) -> str:
        from isic_smp.tracking.registry import Registry

        best = winner(self.study, self.plan)
        assert best is not None  # a trial was completed
        version = Registry(self.run.tracking_uri).register(best.user_attrs["run_id"], name).version
        return f"trial {first_number(best)} is registered as {name} version {version}"

    def _confirm(self, study: optuna.Study) -> bool:
        """Queue the winner under the further seeds that it was not queued with yet; whether there were any."""
        best = winner(study, self.plan)
        if best is None:
            return False
        tickets = {seed: f"seed {seed} of trial {best.number}" for seed in self.plan.confirm_seeds}
        known = {trial.user_attrs.get(TICKET) for trial in study.get_trials(deepcopy=False)}
        waiting = {seed: ticket for seed, ticket in tickets.items() if ticket not in known}
        for seed, ticket in waiting.items():
            enqueue(study, best.params, best.distributions, ticket=ticket, **{SEED: seed})
        return bool(waiting)


def _own_device(device: str) -> str:
    """With several workers on a machine with several GPUs, each its own."""
    number = worker_number()
    if device != "auto" or number is None:
        return device
    import torch

    count = torch.cuda.device_count()
    return f"cuda:{number % count}" if count else "cpu"
