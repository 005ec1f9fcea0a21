"""What a run was made with: versions, commit, machine and command, as MLflow tags."""

import importlib.metadata
import platform
import shlex
import subprocess
import sys
from pathlib import Path

import psutil
import torch

import isic_smp
from isic_smp.processors import processors
from isic_smp.store import without_password

PACKAGES = (
    "torch",
    "segmentation-models-pytorch",
    "timm",
    "mlflow",
    "optuna",
    "albumentations",
    "opencv-python-headless",
    "numpy",
)


def run_tags() -> dict[str, str]:
    """Tags that say what made this run; no secrets, and no path of this machine beyond the working folder.

    Returns:
        `version.<package>`, `python`, `machine.{cpu,cores,ram,gpu,os}`, `command`, and in a checkout
        `git.commit` with `-dirty` behind it where files were changed. `mlflow.source.*` fills the
        columns Source and Version of the runs table.
    """
    tags = {f"version.{name}": version for name in PACKAGES if (version := _version(name))}
    tags |= {
        "version.isic-smp": isic_smp.__version__,
        "python": platform.python_version(),
        "machine.cpu": _cpu_model(),
        "machine.cores": str(processors()),
        "machine.ram": f"{psutil.virtual_memory().total / 2**30:.1f} GiB",
        "machine.os": platform.platform(terse=True),
        "command": _command(),
        "mlflow.source.name": _program(),
    }
    if torch.cuda.is_available():
        tags["machine.gpu"] = torch.cuda.get_device_name()
    if commit := git_commit():
        tags |= {"git.commit": commit, "mlflow.source.git.commit": commit.removesuffix("-dirty")}
    return tags


def git_commit(folder: Path = Path(__file__).parent) -> str | None:
    """The commit of the checkout that `folder` lies in, `-dirty` behind it; None outside of a checkout."""

    def git(*words: str) -> str:
        # --no-optional-locks: looking must not disturb a git command that runs beside this one.
        return subprocess.run(
            ["git", "--no-optional-locks", "-C", str(folder), *words],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout

    try:
        # An installed package in an environment inside some other checkout is not that checkout's.
        if not git("ls-files", "--", Path(__file__).name if folder == Path(__file__).parent else "."):
            return None
        dirty = git("status", "--porcelain", "--untracked-files=no").strip()
        return git("rev-parse", "HEAD").strip() + ("-dirty" if dirty else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _program() -> str:
    """`python -m isic_smp.run` as `isic_smp.run`, a script by its file name."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name.removesuffix(".__main__") if spec else Path(sys.argv[0]).name or "python"


def _command() -> str:
    """The command line, its paths relative to the working folder or else without their folders."""
    return shlex.join([_program(), *map(_without_folders, sys.argv[1:])])


def _without_folders(word: str) -> str:
    option, equals, value = word.partition("=")
    text = value if equals else option
    if text.startswith("sqlite:///"):  # a fourth slash begins an absolute path
        text = f"sqlite:///{_without_folders(text.removeprefix('sqlite:///'))}"
    elif "://" in text:
        text = without_password(text)
    elif text.startswith(("/", "~")):
        path = Path(text)
        here = Path.cwd()
        text = str(path.relative_to(here)) if path.is_relative_to(here) else f"…/{path.name}"
    return f"{option}={text}" if equals else text
