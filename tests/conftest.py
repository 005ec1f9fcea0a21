"""Where tests find the real images and weights, and what keeps them off the network."""

import os
import signal
import subprocess
import sys
import venv
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# The nets of these tests are tiny: a second thread costs more than it brings, and the tests themselves
# run in parallel.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

CHECKOUT = Path(__file__).resolve().parent.parent


def _real(variable: str, beside: str) -> Path:
    folder = Path(os.environ.get(variable) or CHECKOUT.parent / "shared" / beside)
    if not folder.is_dir():
        pytest.skip(f"needs real files: set {variable} to their folder")
    return folder


@pytest.fixture(scope="session")
def isic_dir() -> Path:
    """The folder that holds the four ISIC 2016 part 1 folders."""
    return _real("ISIC_SMP_DATA", "isic2016")


@pytest.fixture(scope="session")
def weights_dir() -> Path:
    """The folder of .safetensors encoder weights with their .json files."""
    return _real("ISIC_SMP_WEIGHTS", "weights")


@pytest.fixture(scope="session")
def small_caches(tmp_path_factory):
    """Pixel caches of 20 training and 6 validation pictures at 32 px."""
    from drawn_pairs import write_pairs

    from isic_smp.data.cache import open_pixel_cache

    folder = tmp_path_factory.mktemp("small")
    pairs = write_pairs(folder / "pairs", 26)
    return tuple(
        open_pixel_cache(some, 32, cache_dir=folder / "cache", progress=False)
        for some in (pairs[:20], pairs[20:])
    )


@pytest.fixture
def in_this_process(monkeypatch, capfd):
    """A command with its words, without the ten seconds that a process of its own takes to start."""

    def start(module, *words) -> subprocess.CompletedProcess[str]:
        from isic_smp import cli

        monkeypatch.setattr(sys, "argv", [module.PROG, *map(str, words)])
        capfd.readouterr()
        former = signal.getsignal(signal.SIGTERM)
        try:
            with pytest.raises(SystemExit) as stop:
                cli.command(module.main, prog=module.PROG)
        finally:
            signal.signal(signal.SIGTERM, former)
        printed = capfd.readouterr()
        return subprocess.CompletedProcess(words, stop.value.code, printed.out, printed.err)

    return start


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a file system of so many megabytes, which is really full when it is full; its folder."""
    mounted = []

    def mount(megabytes: int) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(
                f"needs to mount a small file system, which is not allowed here: {done.stderr.strip()}"
            )
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(scope="session")
def clean_python(tmp_path_factory) -> Path:
    """The interpreter of an environment with a registered model's requirements, what those need, and nothing else.

    Made of links into this environment: what pip would install anew takes minutes and 6.5 GB.
    """
    from isic_smp.tracking.mlflow_model import _requirements

    folder = tmp_path_factory.mktemp("clean") / "environment"
    venv.create(folder, symlinks=True)
    packages = folder / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    wanted = [Requirement(line) for line in _requirements()]
    linked: set[str] = set()
    while wanted:
        name = canonicalize_name(wanted.pop().name)
        if name in linked:
            continue
        linked.add(name)
        found = distribution(name)
        for top in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            if not (packages / top).exists():
                (packages / top).symlink_to(found.locate_file(top))
        needed = [Requirement(line) for line in found.requires or ()]
        wanted += [need for need in needed if need.marker is None or need.marker.evaluate({"extra": ""})]
    python = folder / "bin" / "python"
    for name, module in (("mlflow", "mlflow.cli import cli"), ("uvicorn", "uvicorn.main import main as cli")):
        command = folder / "bin" / name
        command.write_text(f"#!{python}\nfrom {module}\ncli()\n")
        command.chmod(0o755)
    return python
