"""The answer of a grid of ways: which is better, with intervals over images and seeds."""

import json
from collections.abc import Sequence

from isic_smp.comparison.effects import METRIC_NAMES, compare_groups
from isic_smp.comparison.files import PICTURES, write_files
from isic_smp.comparison.groups import Group
from isic_smp.comparison.runs import Metric, find_runs
from isic_smp.comparison.text import caveats, describe_setting
from isic_smp.comparison.text import table as effects_table
from isic_smp.sweeping.answer import Answer, Findings
from isic_smp.sweeping.results import Cell, table

METRIC: Metric = "dice"


def paired_answer(findings: Findings, *, across: str, within: Sequence[str]) -> Answer:
    """Compare the values of parameter `across` pairwise on the same test images, with `compare`'s statistics.

    Args:
        findings: with test scores of every cell.
        across: the parameter in question; its first value is what the others are compared with.
        within: parameters by which the question is asked separately, where they vary.
    """
    parts, files = [table(findings.cells)], []
    asked: dict[str, list[Cell]] = {}
    for cell in findings.cells:
        key = json.dumps({name: cell.params[name] for name in within})
        asked.setdefault(key, []).append(cell)
    for key, members in asked.items():
        if len(members) < 2:
            continue
        where = " ".join(map(str, json.loads(key).values()))
        groups = [_group(cell, str(cell.params[across]), findings.tracking_uri) for cell in members]
        comparisons = compare_groups(groups, metric=METRIC)
        name = "comparison" if len(asked) == 1 else f"comparison-{where}".replace("/", "-")
        folder = findings.folder / name
        (folder / PICTURES).mkdir(parents=True, exist_ok=True)
        setting = describe_setting(groups[0].runs[0], split="test", metric_name=METRIC_NAMES[METRIC])
        notes = caveats(groups)
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
            f"## {where}\n\n{sentences}\n{said}\n\n```\n{effects_table(comparisons)}\n```\n\nreport: {folder / 'report.html'}"
        )
    return Answer("\n\n".join(parts), files)


def _group(cell: Cell, label: str, tracking_uri: str) -> Group:
    """The trials of a cell, one a seed, as runs to compare."""
    specs = [trial.model for trial in cell.trials]
    return Group(label, tuple(find_runs(specs, metric=METRIC, split="test", tracking_uri=tracking_uri)))
