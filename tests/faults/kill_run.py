"""`isic_smp.run` killed with SIGKILL, again and again, and what it ends with.

    python tests/faults/kill_run.py --kills 100 --seed 0

Each round is one run in a fresh folder, with a fresh pixel cache and MLflow store: it is killed some
times at random, started again by the same command each time, and at last left to end. Then its weights
must be those of a run that nobody killed, byte for byte; MLflow must hold one run, finished, with each
epoch's metrics once; the registry one version; and no half-written file may lie about.

A kill comes at a random moment of the whole run, at a random moment of a random phase (training, a
checkpoint, the journal …), or right before a random operation on the file system. A child process is
forked off one that has imported everything, so that a start costs a second instead of ten; it runs the
command's own `main`, and is killed by a real SIGKILL.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

RECIPE = """
recipe: report
encoder: trunc-mobilenetv2_035-s2
encoder_weights: none
decoder_channels: [8, 8, 8]
size: 32
batch_size: 8
epochs: 5
"""

KINDS = {
    "fine-tuned": ["--flips", "--affine", "0.5", "--ema", "0.9", "--keep", "best"],
    "frozen, feature bank": ["--freeze", "--feature-bank", "on"],
    "gradual": ["--freeze-epochs", "2", "--decoder-norm"],
}
PHASES = (
    "decode", "bank", "start the MLflow run", "train", "validate", "keep the best", "keep the last",
    "journal", "send", "save the model", "export", "finish the log", "register",
)  # fmt: skip
PROMISE = "the same weights, one finished MLflow run with each epoch's metrics once, one version"
LIMIT = 1800  # seconds for one start, on a busy machine: a hang is a failure too


@dataclass
class Plan:
    """When a child dies: after `seconds`, `seconds` after entering a phase for the nth time, or before an operation."""

    kind: str = "never"
    seconds: float = 0.0
    phase: str = ""
    nth: int = 1
    how: signal.Signals = signal.SIGKILL

    def __str__(self) -> str:
        if self.kind == "time":
            return f"after {self.seconds:.2f} s"
        if self.kind == "phase":
            return f"{self.seconds * 1000:.0f} ms into «{self.phase}» no. {self.nth}"
        return f"before file operation {self.nth}" if self.kind == "operation" else "never"


@dataclass
class Whole:
    """A run that nobody killed: what the others must equal, and how long its phases take."""

    weights: str
    metrics: dict[str, list]
    seconds: float
    operations: int
    phases: dict[str, list[float]]


@dataclass
class Report:
    """Counts over a campaign."""

    kills: int = 0
    rounds: int = 0
    held: int = 0
    signals: int = 0
    late: int = 0
    where: Counter = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


class Zygote:
    """Has imported all that a run needs, and forks."""

    def __init__(self, place: Path) -> None:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        from isic_smp.cli import quiet_libraries

        quiet_libraries()
        import mlflow.db
        import mlflow.models
        import mlflow.pyfunc
        import mlflow.pytorch
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401

        import isic_smp.experiment
        import isic_smp.run
        import isic_smp.tracking.mlflow_model
        import isic_smp.tracking.registry  # noqa: F401

        self.place = place
        (place / "small.yaml").write_text(RECIPE)
        self.call([sys.executable, "-m", "isic_smp.data", "synthetic", "pictures", "--train", "24"])
        make = "from isic_smp.store import prepare_store; prepare_store('sqlite:///empty/mlflow.db')"
        self.call([sys.executable, "-c", make])

    def call(self, words: list[str]) -> None:
        more = ["--val", "6", "--test", "6", "--size", "64"] if "synthetic" in words else []
        subprocess.run([*words, *more], cwd=self.place, check=True, capture_output=True)

    def start(self, folder: Path, words: list[str], plan: Plan, trace: Path | None = None) -> int:
        """One child; -9 if it was killed, else its exit code, or 1000 if it hung."""
        pid = os.fork()
        if pid == 0:
            self._child(folder, words, plan, trace)
        deadline = time.monotonic() + (plan.seconds if plan.kind == "time" else LIMIT)
        while time.monotonic() < deadline:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return -9 if plan.kind == "time" else 1000

    def _child(self, folder: Path, words: list[str], plan: Plan, trace: Path | None) -> None:
        code = 70
        try:
            output = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.chdir(folder)
            os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
            sys.argv = ["run", *words]
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
            observe(plan, trace)
            from isic_smp import cli, run

            cli.command(run.main, prog=run.PROG)
        except SystemExit as stop:
            code = int(stop.code or 0)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def observe(plan: Plan, trace: Path | None) -> None:
    """In a child: count phases and operations on files, and die where the plan says so."""
    import isic_smp.experiment as experiment
    import isic_smp.prepare as prepare
    import isic_smp.tracking.experiment_log as experiment_log
    import isic_smp.tracking.sending as sending
    from isic_smp.tracking.journal import Journal
    from isic_smp.tracking.registry import Registry
    from isic_smp.tracking.run_log import RunLog
    from isic_smp.training.checkpoint import Checkpoints
    from isic_smp.training.trainer import Trainer

    entered: Counter = Counter()
    took: dict[str, list[float]] = {name: [] for name in PHASES}
    operations = [0]

    def die() -> None:
        os.kill(os.getpid(), plan.how)

    def phase(name: str, place: object, attribute: str) -> None:
        work: Callable = getattr(place, attribute)

        def watched(*args: object, **kwargs: object) -> object:
            entered[name] += 1
            if plan.kind == "phase" and plan.phase == name and plan.nth == entered[name]:
                threading.Timer(plan.seconds, die).start() if plan.seconds > 0.002 else die()
            began = time.monotonic()
            try:
                return work(*args, **kwargs)
            finally:
                took[name].append(time.monotonic() - began)

        setattr(place, attribute, watched)

    phase("decode", prepare, "open_pixel_cache")
    phase("bank", prepare, "open_feature_bank")
    phase("start the MLflow run", experiment_log.ExperimentLog, "start")
    phase("train", Trainer, "train_epoch")
    phase("validate", Trainer, "validate")
    phase("keep the best", Checkpoints, "save_best")
    phase("keep the last", Checkpoints, "save_last")
    phase("journal", Journal, "append")
    phase("send", sending, "send_pending")
    phase("save the model", experiment, "save_bundle")
    phase("export", experiment_log, "log_segmentation_model")
    phase("finish the log", RunLog, "finish")
    phase("register", Registry, "register")

    def operation(event: str, arguments: tuple) -> None:
        if event == "open":
            writes = isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if not writes:
                return
        elif event not in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree"):
            return
        operations[0] += 1
        if plan.kind == "operation" and operations[0] == plan.nth:
            die()

    sys.addaudithook(operation)
    if trace is not None:
        exit_now = os._exit

        def leave(code: int) -> None:
            trace.write_text(json.dumps({"operations": operations[0], "phases": took}))
            exit_now(code)

        os._exit = leave  # type: ignore[assignment]


def command(kind: str) -> list[str]:
    """The words of the command; the same at every start."""
    given = ["--data", "synthetic", "--data-dir", "../pictures", "--recipe", "../small.yaml"]
    places = ["--cache-dir", "cache", "--output-dir", "out", "--resume", "--register", "lesions"]
    return [*given, *places, *KINDS[kind]]


def fresh(zygote: Zygote, name: str) -> Path:
    folder = zygote.place / name
    folder.mkdir()
    shutil.copy(zygote.place / "empty" / "mlflow.db", folder / "mlflow.db")
    return folder


def found_in(folder: Path) -> tuple[str, dict[str, list], list[str]]:
    """Digest of the weights, each metric's history, and what is wrong; asked in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--look", str(folder)], capture_output=True, text=True, timeout=LIMIT
    )
    if done.returncode:
        return "", {}, [f"cannot be read: {done.stderr.splitlines()[-1]}"]
    return tuple(json.loads(done.stdout.splitlines()[-1]))  # type: ignore[return-value]


def look(folder: Path) -> tuple[str, dict[str, list], list[str]]:
    """See `found_in`. Times and speeds differ from run to run and are left out."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    wrong = []
    runs = [r for e in client.search_experiments() for r in client.search_runs([e.experiment_id])]
    if [run.info.status for run in runs] != ["FINISHED"]:
        wrong.append(f"MLflow runs: {[run.info.status for run in runs]}, expected one, finished")
    metrics: dict[str, list] = {}
    for run in runs[:1]:
        noted = json.loads((folder / "out" / "mlflow_run.json").read_text())["run_id"]
        if noted != run.info.run_id:
            wrong.append("the noted run is not the run")
        for name in run.data.metrics:
            history = client.get_metric_history(run.info.run_id, name)
            values = [0.0] * len(history) if name == "images_per_second" else [m.value for m in history]
            metrics[name] = sorted(zip((m.step for m in history), values, strict=True))
            steps = [m.step for m in history]
            if len(set(steps)) != len(steps):
                wrong.append(f"{name} has steps {steps}")
        pictures = [i.path for i in client.list_artifacts(run.info.run_id, "images")]
        stems = Counter(p.split("+timestamp+")[0] + Path(p).suffix for p in pictures)
        wrong += [f"picture {stem} {count} times" for stem, count in stems.items() if count > 1]
        metrics["pictures"] = sorted([stem, 1] for stem in stems)
        outputs = run.outputs.model_outputs if run.outputs else []
        models = client.search_logged_models([run.info.experiment_id])
        if len(outputs) != 1 or len(models) != 1 or str(models[0].status) != "READY":
            wrong.append(f"{len(outputs)} model outputs, {len(models)} logged models")
    versions = client.search_model_versions("name = 'lesions'")
    if len(versions) != 1:
        wrong.append(f"{len(versions)} registered versions")
    halves = [str(p.relative_to(folder)) for p in folder.rglob("*") if is_half(p)]
    if halves:
        wrong.append(f"left over: {halves}")
    model = folder / "out" / "model" / "model.safetensors"
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    return digest, metrics, wrong


def is_half(path: Path) -> bool:
    return path.suffix == ".part" or path.name == ".building" or ".tmp" in path.name


def run_whole(zygote: Zygote, kind: str) -> Whole:
    folder, trace = fresh(zygote, f"whole-{list(KINDS).index(kind)}"), zygote.place / "trace.json"
    began = time.monotonic()
    code = zygote.start(folder, command(kind), Plan(), trace)
    seconds = time.monotonic() - began
    digest, metrics, wrong = found_in(folder)
    if code or wrong:
        raise SystemExit(f"the undisturbed run failed: {code} {wrong}\n{(folder / 'output.txt').read_text()}")
    traced = json.loads(trace.read_text())
    return Whole(digest, metrics, seconds, traced["operations"], traced["phases"])


def draw_plan(rng: random.Random, whole: Whole) -> Plan:
    kind = rng.choice(["time", "phase", "operation"])
    if kind == "time":
        return Plan(kind, rng.uniform(0.02, whole.seconds))
    if kind == "operation":
        return Plan(kind, nth=rng.randint(1, whole.operations))
    name = rng.choice([name for name, times in whole.phases.items() if times])
    nth = rng.randint(1, len(whole.phases[name]))
    return Plan(kind, rng.uniform(0, whole.phases[name][nth - 1]), name, nth)


def one_round(
    zygote: Zygote, kind: str, whole: Whole, number: int, kills: int, rng: random.Random, report: Report
) -> None:
    folder = fresh(zygote, f"round-{number}")
    plans: list[Plan] = []
    for _ in range(3 * kills):
        if len(plans) == kills:
            break
        plan = draw_plan(rng, whole)
        code = zygote.start(folder, command(kind), plan)
        if code == -9:
            plans.append(plan)
            report.kills += 1
            report.where[plan.phase if plan.kind == "phase" else plan.kind] += 1
        elif code == 0:
            report.late += 1  # it was through before its time came, and ends here
            break
        else:
            break
    else:
        code = -9
    if not plans or code == -9:
        code = zygote.start(folder, command(kind), Plan())
    digest, metrics, wrong = found_in(folder)
    if code != 0:
        wrong.append(f"exit code {code}")
    if digest != whole.weights:
        wrong.append("other weights")
    differing = sorted(
        n for n in metrics.keys() | whole.metrics.keys() if metrics.get(n) != whole.metrics.get(n)
    )
    if differing:
        wrong.append(f"other metrics: {differing[:5]}")
    report.rounds += 1
    if wrong:
        kept = folder.parent / f"failed-{number}"
        report.failures.append(
            f"round {number} ({kind}), killed {', then '.join(map(str, plans))}: {'; '.join(wrong)}; see {kept}"
        )
        folder.rename(kept)
    else:
        shutil.rmtree(folder)


def campaign(
    place: Path,
    *,
    kills: int,
    seed: int,
    signals: int = 0,
    each: int = 4,
    say: Callable[[str], None] = print,
) -> Report:
    """`signals` interruptions, then runs with `each` kills until there were `kills`; see the module's docstring."""
    zygote, rng, report = Zygote(place), random.Random(seed), Report()
    wholes = {kind: run_whole(zygote, kind) for kind in KINDS}
    for kind, whole in wholes.items():
        say(f"{kind}: {whole.seconds:.1f} s undisturbed, {whole.operations} operations on files")
    for number in range(signals):
        kind, how = list(KINDS)[number % len(KINDS)], (signal.SIGINT, signal.SIGTERM)[number % 2]
        wrong = interrupted(zygote, kind, wholes[kind], how, rng)
        say(f"{how.name} ({kind}) {'FAILED: ' + '; '.join(wrong) if wrong else 'held'}")
        report.signals += 1
        report.failures += wrong
        shutil.rmtree(zygote.place / f"{how.name}-{list(KINDS).index(kind)}")
    number = 0
    while report.kills < kills:
        kind = list(KINDS)[number % len(KINDS)]
        before = len(report.failures)
        one_round(zygote, kind, wholes[kind], number, min(each, kills - report.kills), rng, report)
        number += 1
        state = "held" if len(report.failures) == before else f"FAILED: {report.failures[-1]}"
        report.held += state == "held"
        say(f"run {number} ({kind}) {state}; {report.kills} of {kills} kills")
    return report


def interrupted(
    zygote: Zygote, kind: str, whole: Whole, how: signal.Signals, rng: random.Random
) -> list[str]:
    """A run that gets SIGINT or SIGTERM in a random epoch: what is wrong with how it stops, and goes on."""
    from isic_smp.training.checkpoint import Checkpoints

    folder = fresh(zygote, f"{how.name}-{list(KINDS).index(kind)}")
    epoch = rng.randint(2, len(whole.phases["train"]))
    plan = Plan("phase", rng.uniform(0, whole.phases["train"][epoch - 1]), "train", epoch, how)
    code = zygote.start(folder, command(kind), plan)
    said = (folder / "output.txt").read_text().splitlines()
    wrong = [] if code == 130 else [f"exit code {code}, expected 130"]
    if not said[-1].endswith("interrupted; go on with the same command, --output-dir out and --resume"):
        wrong.append(f"it said {said[-1]!r}")
    if any("Traceback" in line for line in said):
        wrong.append("a traceback")
    status = ask_status(folder)
    if status != ["KILLED"]:
        wrong.append(f"the MLflow run is {status}")
    state = Checkpoints(folder / "out").load_last()
    if state is None or len(state["history"]) != epoch - 1:
        wrong.append(f"the checkpoint is not of epoch {epoch - 1}")
    code = zygote.start(folder, command(kind), Plan())
    digest, metrics, more = found_in(folder)
    wrong += more
    if code or digest != whole.weights or metrics != whole.metrics:
        wrong.append(f"gone on with, it ends otherwise than undisturbed (exit code {code})")
    return [f"{how.name} in epoch {epoch} ({kind}): {line}" for line in wrong]


def ask_status(folder: Path) -> list[str]:
    """The states of all runs in the store; asked of SQLite itself, since MLflow's client may not outlive a fork."""
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as database:
        return [status for (status,) in database.execute("SELECT status FROM runs")]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signals", type=int, default=6, help="SIGINT and SIGTERM in turn, besides")
    parser.add_argument("--place", type=Path, help="folder to work in, kept; default: a temporary one")
    parser.add_argument("--look", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.look:
        print(json.dumps(look(options.look)))
        return 0
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
        f"{report.kills} kills in {report.rounds} runs, of which {report.held} held; {report.signals} signals"
    )
    print("where: " + ", ".join(f"{name} {count}" for name, count in sorted(report.where.items())))
    print("\n".join(report.failures))
    if not options.place and not report.failures:
        shutil.rmtree(place)
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
