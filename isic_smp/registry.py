"""Register trained models, choose the champion among them, and look at them.

    python -m isic_smp.registry register RUN --name lesions      # a run id, runs:/ID or a run's --output-dir
    python -m isic_smp.registry promote lesions                  # the newest version, if it is no worse
    python -m isic_smp.registry promote lesions --version 3 --alias challenger
    python -m isic_smp.registry list
    python -m isic_smp.registry show lesions

The champion is then models:/lesions@champion for isic_smp.load, predict and evaluate, and for mlflow where
MLFLOW_TRACKING_URI names the same store.
"""

import json
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from isic_smp import cli
from isic_smp.errors import UserError
from isic_smp.store import without_password

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

PROG = "python -m isic_smp.registry"


@dataclass(frozen=True, kw_only=True)
class Store:
    """Where the registry is."""

    tracking_uri: str | None = None
    """MLflow store. Default: MLFLOW_TRACKING_URI, else SQLite under ./mlruns."""


@dataclass(frozen=True, kw_only=True)
class Register(Store):
    """Make a finished run's model a version of a named model."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """A run id, runs:/ID, or a run's --output-dir."""
    name: str
    """The registered model, made where it is missing."""


@dataclass(frozen=True, kw_only=True)
class Promote(Store):
    """Give an alias to a version, if its validation scores are no worse than those of the one that has it."""

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
    """The registered model."""
    version: int | None = None
    """The candidate. Default: the newest version."""
    alias: str = "champion"
    """Who the candidate is to become."""
    force: bool = False
    """Promote a worse one too, or one without comparable scores; noted with the version."""


@dataclass(frozen=True, kw_only=True)
class List(Store):
    """All versions of all models, a line each."""


@dataclass(frozen=True, kw_only=True)
class Show(Store):
    """What one version is: scores, data, recipe, and how it was promoted."""

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
    """The registered model."""
    version: int | None = None
    """Default: the champion, else the newest version."""


Options = (
    Annotated[Register, tyro.conf.subcommand("register")]
    | Annotated[Promote, tyro.conf.subcommand("promote")]
    | Annotated[List, tyro.conf.subcommand("list")]
    | Annotated[Show, tyro.conf.subcommand("show")]
)


def main(argv: Sequence[str] | None = None) -> None:
    """Do what the command line says, and print what came of it."""
    options: Register | Promote | List | Show = cli.parse(
        Options,  # type: ignore[arg-type]
        prog=PROG,
        description=str(__doc__),
        argv=argv,
    )
    from isic_smp.tracking.registry import CHAMPION, Registry, check_name

    if isinstance(options, Register):
        check_name(options.name)
    registry = Registry(options.tracking_uri)
    if isinstance(options, Register):
        version = registry.register(run_id_of(options.run), options.name)
        print(f"{options.name} version {version.version}: models:/{options.name}/{version.version}")
    elif isinstance(options, Promote):
        wanted = None if options.version is None else str(options.version)
        done = registry.promote(options.name, version=wanted, alias=options.alias, force=options.force)
        before = f" (was version {done.former})" if done.former not in (None, done.version) else ""
        print(f"{done.name}: {done.alias} is version {done.version}{before}; {done.grounds}")
        print(f"load it as models:/{done.name}@{done.alias}")
        if os.environ.get("MLFLOW_TRACKING_URI") != registry.uri:  # mlflow looks elsewhere, in ./mlflow.db
            print(
                f"with mlflow itself: export MLFLOW_TRACKING_URI={shlex.quote(without_password(registry.uri))}"
            )
    elif isinstance(options, List):
        print(table(registry.versions(), registry.uri))
    elif isinstance(options, Show):
        versions = registry.versions(options.name)
        if options.version is not None:
            versions = [v for v in versions if str(v.version) == str(options.version)]
        if not versions:
            raise UserError(
                f"{options.name} has {'no version' if options.version is None else f'no version {options.version}'}"
            )
        print(card(next((v for v in versions if CHAMPION in v.aliases), versions[0])))


def run_id_of(run: str) -> str:
    """The run id that `run` means: an id, `runs:/ID`, or an output folder, which notes it.

    Raises:
        UserError: none of these, or a run that MLflow does not know yet.
    """
    from isic_smp.inference.from_mlflow import RUN
    from isic_smp.tracking.run_note import OFFLINE, RUN_FILE

    if named := RUN.fullmatch(run):
        return named["run_id"]
    try:
        noted = str(json.loads((Path(run) / RUN_FILE).read_text(encoding="utf-8"))["run_id"])
    except (OSError, ValueError, KeyError):
        raise UserError(f"no run {run!r}: expected a run id, runs:/ID, or a run's --output-dir") from None
    if noted.startswith(OFFLINE):
        raise UserError(
            f"{run} was trained with --offline and MLflow does not know it yet; "
            f"send it first: python -m isic_smp.sync {shlex.quote(run)}"
        )
    return noted


def table(versions: "Sequence[ModelVersion]", store: str) -> str:
    """A line a version; where there is none, which `store` was looked into."""
    if not versions:
        return (
            f"no model is registered yet in {without_password(store)}: "
            "python -m isic_smp.registry register RUN --name NAME"
        )
    lines = [f"{'model':24}{'version':>8}  {'aliases':20}{'val Dice':>9}{'test Dice':>10}  run"]
    for version in versions:
        known = [version.tags.get(f"{split}.dice_per_image_own") for split in ("validation", "test")]
        dice = [f"{float(value):.4f}" if value else "–" for value in known]
        aliases = ", ".join(version.aliases)
        run = version.tags.get("run_name") or version.run_id
        lines.append(f"{version.name:24}{version.version:>8}  {aliases:20}{dice[0]:>9}{dice[1]:>10}  {run}")
    return "\n".join(lines)


def card(version: "ModelVersion") -> str:
    """All that the registry knows of a version."""
    lines = [
        f"{version.name} version {version.version}"
        + (f" ({', '.join(version.aliases)})" if version.aliases else "")
    ]
    lines += [f"run {version.run_id}", "", version.description or "", ""]
    scores = ("validation.", "test.")
    lines += [f"{k}: {v}" for k, v in sorted(version.tags.items()) if not k.startswith(scores)]
    return "\n".join(lines)


if __name__ == "__main__":
    cli.command(main, prog=PROG)
