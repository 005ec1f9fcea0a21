"""A private PostgreSQL server for tests and benchmarks: a cluster of its own on a free loopback port."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from free_port import free_port


class Server:
    """Started by `private_server`. Debian's programs, password authentication.

    Its folder may not lie in pytest's tmp_path, whose parents are closed to the user postgres.
    """

    def __init__(
        self,
        programs: Path,
        folder: Path,
        *,
        timezone: str = "UTC",
        user: str = "postgres",
        password: str = "of-this-test",
    ) -> None:
        self.programs, self.folder, self.timezone = programs, folder, timezone
        self.port = free_port()
        self.url = f"postgresql+pg8000://{user}:{password}@127.0.0.1:{self.port}/postgres"
        file = folder / "password"
        file.write_text(password)
        if os.geteuid() == 0:  # PostgreSQL refuses to be root
            shutil.chown(folder, "postgres", "postgres")
            shutil.chown(file, "postgres", "postgres")
        self._run("initdb", "-D", f"{folder}/data", "-A", "scram-sha-256", "-U", user, f"--pwfile={file}")

    def start(self) -> None:
        """Start, and wait until it answers."""
        words = f"-p {self.port} -h 127.0.0.1 -k {self.folder} -c timezone={self.timezone}"
        log = f"{self.folder}/log"
        self._run("pg_ctl", "-D", f"{self.folder}/data", "-w", "-l", log, "-o", words, "start")

    def stop(self) -> None:
        """Stop at once, as a crash would: connections break, transactions under way are lost."""
        self._run("pg_ctl", "-D", f"{self.folder}/data", "-w", "-m", "immediate", "stop")

    def _run(self, program: str, *words: str) -> None:
        user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        command = [str(self.programs / program), *words]
        subprocess.run(command, check=True, cwd="/", stdout=subprocess.DEVNULL, **user)


def programs() -> Path | None:
    """The folder of the newest PostgreSQL's programs; None where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


@contextlib.contextmanager
def private_server(timezone: str = "UTC") -> Iterator[Server]:
    """A running server, gone with all its data at the end."""
    where = programs()
    if where is None:
        raise FileNotFoundError("needs PostgreSQL's programs (Debian: apt-get install postgresql)")
    with tempfile.TemporaryDirectory() as folder:
        server = Server(where, Path(folder), timezone=timezone)
        server.start()
        try:
            yield server
        finally:
            server.stop()
