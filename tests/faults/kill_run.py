"""`isic_smp.run` killed with SIGKILL, again and again, and what it ends with.

    python tests/faults/kill_run.py --kills 100 --seed 0

Each round is one run in a fresh folder, with a fresh pixel cache and MLflow store: it is killed some
times at random, started again by the same command each time, and at last left to end. Then its weights
must be those of a run that nobody killed, byte for byte; MLflow must hold one run, finished, with each
epoch's metrics once; the registry one version; and no half-written file may lie about.

A kill comes at a random moment of the whole run, at a random moment of a random phase (training, a
checkpoint, the journal …), or right before a random operation on the file system. A child process is
forked off one that has imported everything, so that a start costs a second instead of ten and kills meet
the work; it runs the command's own `main`, and is killed by a real SIGKILL.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from kill_points import Plan, Seen, draw_plan, observe
from run_outcome import Outcome, look, statuses
from small_run import draw_pictures, write_recipe
from zygote import HUNG, fork, import_all, import_what_a_run_needs

KINDS = {
    "fine-tuned": ["--flips", "--affine", "0.5", "--ema", "0.9", "--keep", "best"],
    "frozen, feature bank": ["--freeze", "--feature-bank", "on"],
    "gradual": ["--freeze-epochs", "2", "--decoder-norm"],
}
PROMISE = "the same weights, one finished MLflow run with each epoch's metrics once, one version"
LIMIT = 1800  # seconds for one start, on a busy machine: a hang is a failure too
EACH = 4  # kills of one run


@dataclass
class Whole:
    """A run that nobody killed: what the others must equal, and how long it takes."""

    outcome: Outcome
    seen: Seen
    seconds: float


@dataclass
class Report:
    """Counts over a campaign."""

    kills: int = 0
    rounds: int = 0
    held: int = 0
    signals: int = 0
    signals_held: int = 0
    where: Counter = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


class Runs:
    """Starts the command in folders of its own under `place`, from a process that never opens a store itself:
    MLflow's client may not outlive a fork."""

    def __init__(self, place: Path) -> None:
        self.place = place
        import_what_a_run_needs()
        write_recipe(place / "small.yaml", epochs=5)
        self.child(lambda: draw_pictures(place / "pictures"), place, "drawn.txt")
        self.child(lambda: make_store(place / "empty.db"), place, "store.txt")

    def child(self, work: Callable[[], object], folder: Path, output: str) -> None:
        if fork(work, output=folder / output, seconds=LIMIT):
            raise SystemExit((folder / output).read_text())

    def fresh(self, name: str) -> Path:
        """A new folder with an empty store."""
        folder = self.place / name
        folder.mkdir()
        shutil.copy(self.place / "empty.db", folder / "mlflow.db")
        return folder

    def start(self, folder: Path, kind: str, plan: Plan, trace: Path | None = None) -> int:
        """The same command at every start; -9 if it was killed, else its exit code, or `HUNG`."""
        given = ["--data", "synthetic", "--data-dir", "../pictures", "--recipe", "../small.yaml"]
        places = ["--cache-dir", "cache", "--output-dir", "out", "--resume", "--register", "lesions"]

        def work() -> None:
            os.chdir(folder)
            os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
            sys.argv = ["run", *given, *places, *KINDS[kind]]
            observe(plan, trace)
            from isic_smp import cli, run

            cli.command(run.main, prog=run.PROG)

        code = fork(
            work, output=folder / "output.txt", seconds=plan.seconds if plan.kind == "time" else LIMIT
        )
        return -9 if code == HUNG and plan.kind == "time" else code

    def outcome(self, folder: Path) -> Outcome:
        """What `folder` holds now."""
        answer = folder / "looked.json"
        code = fork(
            lambda: answer.write_text(json.dumps(look(folder))), output=folder / "looked.txt", seconds=LIMIT
        )
        if code:
            said = (folder / "looked.txt").read_text().splitlines()
            return Outcome("", {}, [f"cannot be read: {said[-1] if said else code}"])
        return Outcome(*json.loads(answer.read_text()))

    def whole(self, kind: str, name: str) -> Whole:
        """A run that nobody kills."""
        folder, trace = self.fresh(name), self.place / "trace.json"
        began = time.monotonic()
        code = self.start(folder, kind, Plan(), trace)
        seconds = time.monotonic() - began
        outcome = self.outcome(folder)
        if code or outcome.wrong:
            said = (folder / "output.txt").read_text()
            raise SystemExit(f"the undisturbed run failed: {code} {outcome.wrong}\n{said}")
        return Whole(outcome, Seen(**json.loads(trace.read_text())), seconds)


def make_store(database: Path) -> None:
    from isic_smp.store import prepare_store

    prepare_store(f"sqlite:///{database}")


def differences(code: int, outcome: Outcome, whole: Whole) -> list[str]:
    """What a run that was begun again and ended with `code` has otherwise than one that nobody killed."""
    wrong = list(outcome.wrong)
    if code != 0:
        wrong.append(f"exit code {code}")
    if outcome.weights != whole.outcome.weights:
        wrong.append("other weights")
    ours, theirs = outcome.metrics, whole.outcome.metrics
    differing = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    if differing:
        wrong.append(f"other metrics: {differing[:5]}")
    return wrong


def killed(
    runs: Runs, folder: Path, kind: str, whole: Whole, kills: int, rng: random.Random
) -> tuple[list[Plan], list[str]]:
    """A run killed up to `kills` times: when it was, and what is wrong in the end."""
    plans: list[Plan] = []
    code = -9
    for _ in range(3 * kills):
        if len(plans) == kills:
            break
        plan = draw_plan(rng, whole.seen, whole.seconds)
        code = runs.start(folder, kind, plan)
        if code != -9:
            break  # it was through before its time came, or failed
        plans.append(plan)
    if code == -9:
        code = runs.start(folder, kind, Plan())
    return plans, differences(code, runs.outcome(folder), whole)


def interrupted(
    runs: Runs, folder: Path, kind: str, whole: Whole, how: signal.Signals, rng: random.Random
) -> list[str]:
    """A run that gets SIGINT or SIGTERM in a random epoch: what is wrong with how it stops, and goes on."""
    from isic_smp.training.checkpoint import Checkpoints

    epoch = rng.randint(2, len(whole.seen.phases["train"]))
    plan = Plan("phase", rng.uniform(0, whole.seen.phases["train"][epoch - 1]), "train", epoch, how)
    code = runs.start(folder, kind, plan)
    said = (folder / "output.txt").read_text().splitlines()
    wrong = [] if code == 130 else [f"exit code {code}, expected 130"]
    if not said[-1].endswith("interrupted; go on with the same command, --output-dir out and --resume"):
        wrong.append(f"it said {said[-1]!r}")
    if any("Traceback" in line for line in said):
        wrong.append("a traceback")
    if statuses(folder) != ["KILLED"]:
        wrong.append(f"the MLflow run is {statuses(folder)}")
    state = Checkpoints(folder / "out").load_last()
    if state is None or len(state["history"]) != epoch - 1:
        wrong.append(f"the checkpoint is not of epoch {epoch - 1}")
    code = runs.start(folder, kind, Plan())
    wrong += [f"gone on with: {line}" for line in differences(code, runs.outcome(folder), whole)]
    return [f"in epoch {epoch}: {line}" for line in wrong]


def campaign(place: Path, *, kills: int, seed: int, signals: int, say: Callable[[str], None]) -> Report:
    """`signals` interruptions, then runs with `EACH` kills until there were `kills`; see the module's docstring."""
    runs, rng, report = Runs(place), random.Random(seed), Report()
    kinds = list(KINDS)
    for number, kind in enumerate(kinds):  # what a first run imports as it goes along is not to be timed
        import_all(runs.whole(kind, f"first-{number}").seen.modules)
    wholes = {kind: runs.whole(kind, f"whole-{number}") for number, kind in enumerate(kinds)}
    for kind, whole in wholes.items():
        say(f"{kind}: {whole.seconds:.1f} s undisturbed, {whole.seen.operations} operations on files")

    def judge(name: str, folder: Path, wrong: list[str]) -> bool:
        say(f"{name} {'FAILED: ' + '; '.join(wrong) if wrong else 'held'}; {report.kills} of {kills} kills")
        if wrong:
            report.failures.append(f"{name}: {'; '.join(wrong)}; see {folder}")
        else:
            shutil.rmtree(folder)
        return not wrong

    for number in range(signals):
        kind, how = kinds[number % len(kinds)], (signal.SIGINT, signal.SIGTERM)[number % 2]
        folder = runs.fresh(f"signal-{number}")
        wrong = interrupted(runs, folder, kind, wholes[kind], how, rng)
        report.signals += 1
        report.signals_held += judge(f"{how.name} ({kind})", folder, wrong)
    while report.kills < kills:
        kind, folder = kinds[report.rounds % len(kinds)], runs.fresh(f"run-{report.rounds}")
        plans, wrong = killed(runs, folder, kind, wholes[kind], min(EACH, kills - report.kills), rng)
        report.rounds += 1
        report.kills += len(plans)
        report.where.update(plan.phase or plan.kind for plan in plans)
        when = ", then ".join(map(str, plans)) or "never"
        report.held += judge(f"run {report.rounds} ({kind}), killed {when}:", folder, wrong)
    return report


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signals", type=int, default=6, help="SIGINT and SIGTERM in turn, besides")
    parser.add_argument("--place", type=Path, help="folder to work in, kept; default: a temporary one")
    options = parser.parse_args()
    place = options.place or Path(tempfile.mkdtemp(prefix="kill-run-"))
    place.mkdir(parents=True, exist_ok=True)
    report = campaign(
        place.resolve(),
        kills=options.kills,
        seed=options.seed,
        signals=options.signals,
        say=lambda line: print(line, flush=True),
    )
    print(f"\n{PROMISE}:")
    print(
        f"{report.kills} kills in {report.rounds} runs, of which {report.held} held; "
        f"{report.signals} signals, of which {report.signals_held} held"
    )
    print("where: " + ", ".join(f"{name} {count}" for name, count in sorted(report.where.items())))
    print("\n".join(report.failures))
    if not options.place and not report.failures:
        shutil.rmtree(place)
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
