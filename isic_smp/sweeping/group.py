"""A trial trained by several processes: a torchrun group that the worker starts, follows and may stop.

    python -m torch.distributed.run --standalone --nproc-per-node 2 -m isic_smp.sweeping.group FOLDER

The worker alone speaks to the study: parameters are asked once. The group writes an epoch a line, looks
for a request to stop after each, and leaves what it found in a file.
"""

import dataclasses
import errno
import json
import subprocess
import sys
import time
from pathlib import Path

from isic_smp import cli
from isic_smp.errors import FolderInUse, Stopped, UserError
from isic_smp.experiment import AfterEpoch, run_experiment
from isic_smp.files import is_disk_trouble
from isic_smp.folder_lock import alone_in
from isic_smp.setup import Setup
from isic_smp.sweeping.alone import outcome_of
from isic_smp.sweeping.orphans import die_with_parent
from isic_smp.sweeping.trial import Outcome
from isic_smp.training.history import Epoch
from isic_smp.training.recipe import Recipe

ORDER, EPOCHS, STOP, OUTCOME, OUTPUT = "group.json", "epochs.jsonl", "stop", "outcome.json", "group.log"
LOCK = ".worker.lock"
POLL_SECONDS = 0.5


class GroupTrainer:
    """A `trial.Train` that trains by `processes` processes."""

    def __init__(self, processes: int) -> None:
        self.processes = processes

    def __call__(self, recipe: Recipe, setup: Setup, after_epoch: AfterEpoch) -> Outcome:
        """Train, calling `after_epoch` in this process.

        Raises:
            Stopped: what `after_epoch` raised; the group ends after its next epoch.
            UserError: a disk refuses what the group writes (`is_disk_trouble`).
            FolderInUse: another worker's group, or what is left of one, trains in the folder.
            RuntimeError: the group failed; its last words are in the message.
        """
        folder = setup.output_dir
        assert folder is not None
        with alone_in(folder, lock=LOCK):  # before its files are touched: they are the other group's
            return self._train(recipe, setup, after_epoch, folder)

    def _train(self, recipe: Recipe, setup: Setup, after_epoch: AfterEpoch, folder: Path) -> Outcome:
        for name in (EPOCHS, STOP, OUTCOME):
            (folder / name).unlink(missing_ok=True)
        order = {"recipe": recipe.to_dict(), "setup": dataclasses.asdict(setup)}
        (folder / ORDER).write_text(json.dumps(order, default=str))
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", str(self.processes), "-m", "isic_smp.sweeping.group", str(folder)),
        ]
        with (folder / OUTPUT).open("w") as output:
            # A worker that is killed must not leave a group behind that trains on in its folder; and a terminal's
            # Ctrl-C must not reach torchrun beside the SIGTERM below, which would end it without its processes.
            process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
                preexec_fn=die_with_parent,
            )
        stopped: Stopped | None = None
        seen = 0
        try:
            running = True
            while running:
                time.sleep(POLL_SECONDS)
                running = process.poll() is None  # before the epochs are read, so that the last one is
                for record in _epochs(folder)[seen:]:
                    seen += 1
                    if stopped is None:
                        stopped = _ask(after_epoch, record)
                if stopped is not None and not (folder / STOP).exists():
                    (folder / STOP).write_text(str(stopped))
        finally:
            if process.poll() is None:
                # Interrupted: torchrun hands the signal on, and the run keeps its checkpoint.
                process.terminate()
                process.wait()
        if (folder / OUTCOME).exists():
            found = json.loads((folder / OUTCOME).read_text())
            if "in_use" in found:
                raise FolderInUse(found["in_use"])
            if "refused" in found:
                refused = found["refused"]
                raise UserError(refused) from OSError(errno.EIO, refused)
            if "stopped" in found:
                raise Stopped(found["stopped"])
            return Outcome(**found)
        words = [line for line in (folder / OUTPUT).read_text(errors="replace").splitlines() if line.strip()]
        raise RuntimeError(
            f"{self.processes} processes ended with code {process.returncode}: {_reason(words)} "
            f"(all of it in {folder / OUTPUT})"
        )


def _ask(after_epoch: AfterEpoch, record: Epoch) -> Stopped | None:
    try:
        after_epoch(record)
    except Stopped as stop:
        return stop
    return None


def _epochs(folder: Path) -> list[Epoch]:
    """The whole lines that the group has written so far."""
    file = folder / EPOCHS
    lines = file.read_text().split("\n")[:-1] if file.exists() else []
    return [Epoch(**json.loads(line)) for line in lines]


def _reason(words: list[str]) -> str:
    """The line of a traceback that says what went wrong, or the last one."""
    errors = [line for line in words if "Error: " in line and "ChildFailedError" not in line]
    return " ".join((errors or words or ["it said nothing"])[-1].split())[:300]


def _read_order(folder: Path) -> tuple[Recipe, Setup]:
    order = json.loads((folder / ORDER).read_text())
    setup = order["setup"]
    for name in ("data_dir", "output_dir", "cache_dir"):
        setup[name] = Path(setup[name]) if setup[name] else None
    return Recipe.from_dict(order["recipe"]), Setup(**setup)


def main() -> None:
    """One process of the group."""
    cli.end_on_sigterm()
    folder = Path(sys.argv[1])
    recipe, setup = _read_order(folder)

    def after_epoch(record: Epoch) -> None:
        with (folder / EPOCHS).open("a") as file:
            file.write(json.dumps(dataclasses.asdict(record)) + "\n")
        if (folder / STOP).exists():
            raise Stopped((folder / STOP).read_text())

    try:
        result = run_experiment(recipe, setup, after_epoch=after_epoch)
        found = dataclasses.asdict(outcome_of(result, recipe)) if result else None
    except Stopped as stop:  # the first rank's; the others end because it is gone
        found = {"stopped": str(stop)}
    except FolderInUse as reason:
        found = {"in_use": str(reason)}
    except Exception as error:
        if not is_disk_trouble(error):
            raise
        found = {"refused": str(error)}
    if found is not None:
        (folder / OUTCOME).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
