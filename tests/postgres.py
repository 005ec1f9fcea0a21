"""A private PostgreSQL server: its own data folder, a free port of 127.0.0.1, a password in a libpq file.

For tests, the rehearsal of docker/compose.yaml and benchmarks. It needs PostgreSQL's programs
(Debian: `apt-get install --no-install-recommends postgresql`) and no running service.
"""

import contextlib
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

INSTALL = "apt-get install --no-install-recommends postgresql"
USER = "isic_smp"


def find_programs() -> Path | None:
    """The folder of initdb and pg_ctl, newest version first; Debian keeps it off the PATH."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda f: int(f.parent.name), reverse=True)
    folders += [Path(found).parent for found in (shutil.which("initdb"),) if found]
    return next((folder for folder in folders if (folder / "pg_ctl").exists()), None)


class Postgres:
    """A running server. Make one with `start_postgres`.

    `url(database)` has no password: libpq takes it from the file `pgpass`, which PGPASSFILE must name.
    """

    def __init__(self, programs: Path, folder: Path, port: int, user: str) -> None:
        self.programs, self.folder, self.port, self.user = programs, folder, port, user
        self.data, self.log, self.pgpass = folder / "data", folder / "server.log", folder / "pgpass"

    def url(self, database: str) -> str:
        """For SQLAlchemy, and so for MLflow and Optuna."""
        return f"postgresql+psycopg://{self.user}@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str) -> str:
        """A new, empty database; its URL."""
        self.sql(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def sql(self, command: str, *, database: str = "postgres") -> str:
        """What psql prints for `command`."""
        place = ["-h", "127.0.0.1", "-p", str(self.port), "-U", self.user, "-d", database]
        done = subprocess.run(
            [self.programs / "psql", "-X", "-At", "-v", "ON_ERROR_STOP=1", *place, "-c", command],
            env=os.environ | {"PGPASSFILE": str(self.pgpass)},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{command}: {done.stderr.strip()}")
        return done.stdout.strip()

    def start(self) -> None:
        """Start; returns when the server answers."""
        # No socket file: its path may be too long. No fsync: nothing here outlives the machine.
        options = f"-p {self.port} -h 127.0.0.1 -k '' -F -c max_connections=200"
        self._control("start", "-l", str(self.log), "-o", options)

    def stop(self, mode: str = "fast") -> None:
        """Stop; `immediate` is what a crash leaves."""
        self._control("stop", "-m", mode)

    def restart(self, mode: str = "immediate") -> None:
        """Stop and start on the same port, with the same data."""
        self.stop(mode)
        self.start()

    def _control(self, *words: str) -> None:
        run([self.programs / "pg_ctl", "-D", self.data, "-w", "-t", "60", *words], log=self.log)


def run(command: Sequence[object], *, log: Path | None = None) -> None:
    """Run one of PostgreSQL's programs, as the user `postgres` where we are root: it refuses root."""
    words = [str(word) for word in command]
    if os.geteuid() == 0:
        words = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *words]
    # Into a file and not a pipe, which the server would inherit and hold open.
    with tempfile.TemporaryFile() as output:
        code = subprocess.run(words, cwd="/", stdout=output, stderr=output, stdin=subprocess.DEVNULL).returncode
        if code:
            output.seek(0)
            said = output.read().decode(errors="replace")
            said += log.read_text(errors="replace")[-2000:] if log and log.exists() else ""
            raise RuntimeError(f"{' '.join(words)} ended with code {code}: {said.strip()}")


@contextlib.contextmanager
def start_postgres(
    programs: Path, *, user: str = USER, password: str | None = None, port: int | None = None
) -> Iterator[Postgres]:
    """A new server, gone with its data afterwards.

    Args:
        programs: from `find_programs`.
        user: the superuser of the new server; everybody else needs a password too.
        password: default: a random one.
        port: default: a free one.
    """
    # Not pytest's folders: those are closed to the user `postgres`.
    folder = Path(tempfile.mkdtemp(prefix="isic-smp-postgres-"))
    server = Postgres(programs, folder, port or free_port(), user)
    password = password or secrets.token_urlsafe(24)
    password_file = folder / "password"
    try:
        for file, text in ((password_file, password), (server.pgpass, f"*:*:*:{user}:{password}")):
            file.touch(mode=0o600)
            file.write_text(text + "\n")
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            for path in (folder, password_file):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        scram = ["--auth-host=scram-sha-256", "--auth-local=scram-sha-256", "--no-sync"]
        run([programs / "initdb", "-D", server.data, "-U", user, f"--pwfile={password_file}", "-E", "UTF8", *scram])
        server.start()
        try:
            yield server
        finally:
            server.stop("immediate")
    finally:
        shutil.rmtree(folder)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]
