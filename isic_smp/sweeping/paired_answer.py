"""The answer of a grid of ways: which is better, with intervals over images and seeds."""

import json
from collections.abc import Sequence

from isic_smp.comparison.effects import METRIC_NAMES, compare_groups
from isic_smp.comparison.files import PICTURES, write_files
from isic_smp.comparison.groups import Group
from isic_smp.comparison.runs import Metric, Split, find_runs
from isic_smp.comparison.text import caveats, describe_setting
from isic_smp.comparison.text import table as effects_table
from isic_smp.sweeping.answer import Answer, Findings
from isic_smp.sweeping.results import Cell, table


def paired_answer(
    findings: Findings,
    *,
    across: str,
    within: Sequence[str] = (),
    metric: Metric = "dice",
    paired_seeds: bool = False,
) -> Answer:
    """Compare the values of parameter `across` pairwise on the same images, with `compare`'s statistics.

    The images are the test images where the study was tested, else those that were validated on.

    Args:
        findings: of a finished grid.
        across: the parameter in question; its first value is what the others are compared with.
        within: parameters by which the question is asked separately, where they vary.
        metric: what is compared.
        paired_seeds: trials of one seed share what chance decides, so that a seed is good or bad for all of them.
    """
    split: Split = "test" if findings.tested else "validation"
    parts, files = [table(findings.cells)], []
    asked = questions(findings, across, within)
    for key, members in asked.items():
        if len(members) < 2:
            continue
        where = " ".join(map(str, json.loads(key).values()))
        # The trials of a cell, one a seed, are the runs of a group.
        runs = [
            find_runs(
                [trial.model for trial in cell.trials],
                metric=metric,
                split=split,
                tracking_uri=findings.tracking_uri,
            )
            for cell in members
        ]
        groups = [
            Group(str(cell.params[across]), tuple(its)) for cell, its in zip(members, runs, strict=True)
        ]
        comparisons = compare_groups(groups, metric=metric, paired_seeds=paired_seeds)
        name = "comparison" if len(asked) == 1 else f"comparison-{where}".replace("/", "-")
        folder = findings.folder / name
        (folder / PICTURES).mkdir(parents=True, exist_ok=True)
        setting = describe_setting(groups[0].runs[0], split=split, metric_name=METRIC_NAMES[metric])
        notes = about_reference(findings, across, members) + caveats(groups)
        written, more = write_files(
            folder,
            comparisons,
            setting=setting,
            caveats=notes,
            data=findings.data,
            diagnosis=None,
            images=3,
            tracking_uri=findings.tracking_uri,
        )
        files += written
        sentences = "\n".join(f"- {comparison.answer()}" for comparison in comparisons)
        said = "\n".join(f"- {line}" for line in [*notes, *more])
        parts.append(
            f"## {where or f'by {across}'}\n\n{sentences}\n{said}\n\n```\n{effects_table(comparisons)}\n```\n\nreport: {folder / 'report.html'}"
        )
    return Answer("\n\n".join(parts), files)


def questions(findings: Findings, across: str, within: Sequence[str]) -> dict[str, list[Cell]]:
    """The cells that are compared with one another, as `across` was planned, by the values of `within` as JSON.

    `findings` has them as they were first completed: a trial of the first value that failed must not change which cell
    the others are compared with.
    """
    planned = _planned(findings, across)
    asked: dict[str, list[Cell]] = {}
    for cell in sorted(findings.cells, key=lambda cell: planned.index(cell.params[across])):
        key = json.dumps({name: cell.params[name] for name in within})
        asked.setdefault(key, []).append(cell)
    return asked


def about_reference(findings: Findings, across: str, members: Sequence[Cell]) -> list[str]:
    """A sentence where not the first value of `across` is what `members` are compared with, since it has no complete trial."""
    first, taken = _planned(findings, across)[0], members[0].params[across]
    if taken == first:
        return []
    return [f"No trial of {first} was complete, so {taken} is what the others are compared with."]


def _planned(findings: Findings, across: str) -> list:
    """The values of `across` cell by cell, as the study was planned, and what more was tried when more was planned."""
    return [cell[across] for cell in findings.plan.cells] + [c.params[across] for c in findings.cells]
