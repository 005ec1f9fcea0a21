"""docker/compose.yaml without containers: its commands, its environment, its secrets, as processes of this host.

python tests/docker/rehearse.py

Service names become 127.0.0.1, volumes become folders, PostgreSQL is Debian's. Where this user may mount, every
service but PostgreSQL finds all else read-only, as in its container. Everything ends with the script.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import requests

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]  # when called as a script

from composed import CHECKOUT, DOCKER, Service  # noqa: E402
from free_port import free_port  # noqa: E402
from postgres_server import Server, programs  # noqa: E402

VOLUMES = ("isic", "cache", "mlflow", "tmp")
"""What a container may write to."""
READ_ONLY = """
mount --make-rprivate / && cd "$0" || exit
for volume in isic cache mlflow tmp; do mount --bind "$volume" "$volume" || exit; done
mount -o remount,bind,ro / && cd isic && exec "$@"
"""
SMALL = (
    "--data synthetic --data-dir /data --encoder trunc-mobilenetv2_035-s2 --encoder-weights none "
    "--decoder-channels 8 8 8 --size 32 --batch-size 8 --epochs 2"
)
SWEEP = f"freeze_vs_finetune.py --seeds 1 --study rehearsal {SMALL}"
TRAIN = f"python -m isic_smp.run {SMALL} --output-dir /isic/runs/one --register lesions"
SECRETS_OF_SERVERS = ("postgres_password", "mlflow_password", "mlflow_session_key")
STARTS = 400.0
"""Seconds within which a server must be healthy, and twice that a training must end."""


class Rehearsal:
    """A folder for every volume, the secrets, PostgreSQL, and the services that were started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.chmod(0o711)  # PostgreSQL's user passes through
        for name in VOLUMES:
            (folder / name).mkdir()
        closed = ["unshare", "--mount", "sh", "-c", READ_ONLY, str(folder)]
        may_mount = (
            shutil.which("unshare") and not subprocess.run([*closed, "true"], capture_output=True).returncode
        )
        self.closed = closed if may_mount else []
        self.ports = {"5000": str(free_port()), "8080": str(free_port())}
        self.running: dict[str, subprocess.Popen] = {}
        self.postgres: Server | None = None
        self.secrets = folder / "secrets"

    def start_postgres(self) -> None:
        """Make the secrets, start PostgreSQL with its password, and make the databases as its image would."""
        found = programs()
        assert found is not None
        home = self.folder / "postgres"
        home.mkdir()
        password = "not-known-before-the-port"
        server = self.postgres = Server(found, home, user="isic", password=password)
        make = [sys.executable, DOCKER / "make_secrets.py", self.secrets]
        subprocess.run([*make, "--postgres", f"127.0.0.1:{server.port}"], check=True, stdout=subprocess.PIPE)
        server.start()
        psql = [found / "psql", "-q", "-h", "127.0.0.1", "-p", str(server.port), "-U", "isic", "postgres"]
        wanted = self.secret("postgres_password")
        for words in (["-c", f"ALTER ROLE isic PASSWORD '{wanted}'"], ["-f", DOCKER / "databases.sql"]):
            subprocess.run([*psql, *words], check=True, env={"PGPASSWORD": password})
            password = wanted

    def secret(self, name: str) -> str:
        """A secret's text."""
        return (self.secrets / name).read_text().strip()

    def here(self, text: str) -> str:
        """A path, address or port of the containers as it is on this host."""
        paths = {
            "/run/secrets": self.secrets,
            "/app": CHECKOUT,
            **{f"/{name}": self.folder / name for name in ("data", *VOLUMES)},
        }
        text = re.sub(rf"(?<![\w./-])({'|'.join(paths)})(?![\w-])", lambda match: str(paths[match[1]]), text)
        text = re.sub(
            r"//(mlflow|127\.0\.0\.1):(5000|8080)\b",
            lambda match: f"//127.0.0.1:{self.ports[match[2]]}",
            text,
        )
        return {"0.0.0.0": "127.0.0.1", **self.ports}.get(text, text)

    def service(self, name: str) -> Service:
        """A service of compose.yaml, called with the variables of this rehearsal."""
        return Service(name, self.here, {"ISIC_SMP_DATA": "given", "SWEEP": SWEEP, "WORKER_THREADS": "1"})

    def environment(self, service: Service) -> dict[str, str]:
        """What the service's process finds: the image's PATH is this environment's."""
        given = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "PYTHONPATH": str(CHECKOUT)}
        ours = {"SECRETS": str(self.secrets), "TMPDIR": str(self.folder / "tmp"), "HF_HUB_OFFLINE": "1"}
        return {**given, **service.environment(), **ours}

    def start(self, name: str, *, instead: str | None = None, number: int = 1) -> subprocess.Popen:
        """Start a service; its output goes to a file."""
        service = self.service(name)
        with (self.folder / f"{name}{number}.log").open("w") as log:
            process = subprocess.Popen(
                [*self.closed, *service.command(instead)],
                env=self.environment(service),
                cwd=self.folder / "isic",
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.running[f"{name}{number}"] = process
        return process

    def wait_healthy(self, name: str) -> None:
        """Until the service's own health check says yes."""
        service, process = self.service(name), self.running[f"{name}1"]
        end = time.monotonic() + STARTS
        while subprocess.run(service.health(), env=self.environment(service), capture_output=True).returncode:
            assert process.poll() is None, f"{name} ended: {self.log(name)}"
            assert time.monotonic() < end, f"{name} is not healthy: {self.log(name)}"
            time.sleep(1)

    def wait_done(self, name: str, number: int = 1) -> None:
        """Until it has ended, and well."""
        code = self.running[f"{name}{number}"].wait(timeout=2 * STARTS)
        assert code == 0, f"{name} {number} ended with {code}: {self.log(name, number)}"

    def log(self, name: str, number: int = 1) -> str:
        """The end of what it printed."""
        return (self.folder / f"{name}{number}.log").read_text()[-3000:]

    def stop(self) -> None:
        """End all, in the other order, and PostgreSQL at last."""
        for process in reversed(self.running.values()):
            for kind, patience in ((signal.SIGTERM, 30), (signal.SIGKILL, 10)):
                try:
                    os.killpg(process.pid, kind)
                    process.wait(timeout=patience)
                except ProcessLookupError:
                    break
                except subprocess.TimeoutExpired:
                    continue
        if self.postgres is not None and (self.postgres.folder / "data" / "postmaster.pid").exists():
            self.postgres.stop()

    def left_over(self) -> list[str]:
        """Command lines of processes that still work in this rehearsal's folder."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                where = str((entry / "cwd").readlink())
            except OSError:
                continue  # it has ended meanwhile, or is another user's
            if str(self.folder) in words or where.startswith(str(self.folder)):
                found.append(words)
        return found

    def command_lines(self) -> str:
        """Of every process here, its words: a secret among them could be read by any user."""
        return "\n".join(self.left_over())


def rehearse(folder: Path, say: Callable[[str], None] = print) -> Rehearsal:
    """Start the servers, train, and sweep with two workers; the servers still run afterwards.

    Stop it with `stop`, which an error on the way has done already.
    """
    begun = time.monotonic()

    def step(words: str) -> None:
        say(f"[{time.monotonic() - begun:4.0f} s] {words}")

    rehearsal = Rehearsal(folder)
    step(
        "all but the volumes is read-only" if rehearsal.closed else "no right to mount: nothing is read-only"
    )
    try:
        rehearsal.start_postgres()
        step("PostgreSQL with three databases")
        rehearsal.start("mlflow")
        rehearsal.start("dashboard")
        draw = [sys.executable, "-m", "isic_smp.data", "synthetic", "--train", "16", "--val", "6"]
        draw += ["--test", "6", "--size", "64", folder / "data"]
        environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
        subprocess.run(draw, check=True, capture_output=True, cwd=folder, env=environment)
        for name in ("mlflow", "dashboard"):
            rehearsal.wait_healthy(name)
            step(f"{name} is healthy")
        rehearsal.start("trainer", instead=TRAIN)
        for number in (1, 2):
            rehearsal.start("worker", number=number)
        for name, number in (("trainer", 1), ("worker", 1), ("worker", 2)):
            rehearsal.wait_done(name, number)
            step(f"{name} {number} is done")
    except BaseException:
        rehearsal.stop()
        raise
    return rehearsal


def main() -> None:
    """Rehearse and say what is there then."""
    with tempfile.TemporaryDirectory(prefix="rehearsal-") as folder:
        rehearsal = rehearse(Path(folder))
        try:
            url = rehearsal.here("http://mlflow:5000/api/2.0/mlflow/registered-models/search")
            user = ("isic", rehearsal.secret("mlflow_password"))
            print(f"without credentials: HTTP {requests.get(url, timeout=30).status_code}")
            print(f"registered: {requests.get(url, auth=user, timeout=30).json()}")
            print((Path(folder) / "isic/runs/sweeps/rehearsal/answer.md").read_text())
        finally:
            rehearsal.stop()
        print(f"left over: {rehearsal.left_over()}")


if __name__ == "__main__":
    main()
