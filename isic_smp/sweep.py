"""Sweeps: many recipes tried as one study, on one machine or many, with one answer at the end.

The scripts in `sweeps/` are a `Plan` and a call of `main`. The same command with the same --study and
--storage goes on with a study, or joins it from another process or machine.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from isic_smp import cli
from isic_smp.errors import UserError
from isic_smp.sweeping import options as opts
from isic_smp.sweeping.options import Options, parse
from isic_smp.sweeping.plan import Plan

if TYPE_CHECKING:
    from isic_smp.sweeping.answer import Answer, Findings

T = TypeVar("T", bound=Options)
MakePlan = Callable[[T], Plan]
MakeAnswer = Callable[["Findings"], "Answer"]


def main(
    kind: type[T],
    make_plan: MakePlan[T],
    make_answer: MakeAnswer,
    *,
    name: str,
    description: str,
) -> None:
    """A sweep's command: parse, list or run the trials, print the answer.

    Args:
        kind: the sweep's options.
        make_plan: what they ask for.
        make_answer: what the finished study says.
        name: of the study where none is given.
        description: for --help.
    """
    options = parse(kind, prog=f"python sweeps/{name}.py", description=description)
    if options.register is not None:  # before the work, not after it
        from isic_smp.tracking.registry import check_name

        check_name(options.register)
    plan = make_plan(options)
    if plan.is_grid:
        for cell in plan.cells:  # an impossible one is said before the work, not in the middle of it
            plan.recipe(cell)
    study_name = options.study or name
    if options.dry_run:
        print(dry_run(plan, study_name))
        return
    cli.end_on_sigterm()
    # Imported late: --help and --dry-run shall answer at once.
    from isic_smp.sweeping.database import told_in_a_line
    from isic_smp.sweeping.session import Session
    from isic_smp.sweeping.workers import start_workers, worker_number

    folder = opts.study_folder(options, study_name)
    url = opts.storage_url(options, folder)
    _check_folder(folder, url)
    with told_in_a_line(url):
        session = Session.open(options, plan, study_name, folder=folder, url=url)
        if worker_number() is not None:
            session.work(options.processes_per_trial)
            return
        _say(f"study {study_name} in {session.shown_storage}, trials in {folder}")
        _say(session.run.hint())
        try:
            if options.workers > 1:
                start_workers(options.workers, session)
            else:
                session.work(options.processes_per_trial, say=_say)
            print(session.answer(make_answer, register=options.register))
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the same command goes on; finished trials are kept") from None


def dry_run(plan: Plan, name: str) -> str:
    """The trials that the study would have, one a line."""
    lines = [f"study {name}, {len(plan.cells)} trial{'' if len(plan.cells) == 1 else 's'}"]
    for index, cell in enumerate(plan.cells):
        words = " ".join(f"{key}={value}" for key, value in cell.items())
        lines.append(f"trial {index:3d}  {words or 'chosen by the sampler'}")
    if not plan.is_grid:
        lines += [f"{key}: {distribution}" for key, distribution in plan.distributions.items()]
    if plan.confirm_seeds:
        lines.append(f"then the winner under the seeds {', '.join(map(str, plan.confirm_seeds))}")
    return "\n".join(lines)


def _check_folder(folder: Path, url: str) -> None:
    """Refuse a folder whose study would be kept elsewhere: a URL ends a path at ?, and %20 in it is a space."""
    from isic_smp.sweeping.database import check_url

    database = f"{folder.absolute()}/study.db"
    if url == f"sqlite:///{database}" and check_url(url).database != database:
        raise UserError(
            f"a study cannot be kept in {folder.absolute()}: ? or %20 in a path means something else in a "
            "database's URL; choose another --study or --output-dir, or give --storage"
        )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
