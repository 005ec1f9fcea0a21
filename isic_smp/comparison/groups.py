"""Runs of one recipe under several seeds, taken together."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from typing import Any

import numpy as np

from isic_smp.comparison.folds import FOLDS, in_words
from isic_smp.comparison.runs import ScoredRun

LONGEST_LABEL = 3
"""Differing settings that still make a readable label."""
LONGEST_SLUG = 80
"""Characters; names of files and metrics with it stay below the 250 that file systems and MLflow take."""


@dataclass(frozen=True, eq=False)
class Group:
    """Runs whose recipes are equal but for the seed, and what sets them apart from the other groups."""

    label: str
    runs: tuple[ScoredRun, ...]

    @property
    def slug(self) -> str:
        """The label, fit for names of files and metrics: a long one is cut, and told from others by a digest."""
        slug = re.sub(r"[^\w.]+", "-", self.label).strip("-.") or "group"
        if len(slug) <= LONGEST_SLUG:
            return slug
        return f"{slug[: LONGEST_SLUG - 9]}-{hashlib.sha256(self.label.encode()).hexdigest()[:8]}"

    @cached_property
    def scores(self) -> np.ndarray:
        """Score of each run on each image, (runs, N)."""
        return np.stack([run.scores for run in self.runs])

    @cached_property
    def per_image(self) -> np.ndarray:
        """Score of each image, averaged over the runs, (N,)."""
        return self.scores.mean(axis=0)


def group_runs(runs: Sequence[ScoredRun], *, each: bool = False) -> list[Group]:
    """Groups in the order in which their first runs are named.

    Runs are grouped where their recipes differ only in the seed, and were cross-validated alike if at all. Where that
    would leave a single group (two seeds of one recipe), and with `each`, every run stands for itself.
    """
    groups: list[list[ScoredRun]] = []
    for run in runs:
        for group in [] if each else groups:
            if _kind(group[0]) == _kind(run):
                group.append(run)
                break
        else:
            groups.append([run])
    if len(groups) == 1:
        groups = [[run] for run in runs]
    return [Group(label, tuple(group)) for label, group in zip(_labels(groups), groups, strict=True)]


def _kind(run: ScoredRun) -> dict[str, Any]:
    """What the runs of a group have in common: all settings but the seed, and of which folds they are."""
    settings = {name: value for name, value in run.recipe.items() if name != "seed"}
    return settings | ({FOLDS: run.data[FOLDS]} if FOLDS in run.data else {})


def _labels(groups: Sequence[Sequence[ScoredRun]]) -> list[str]:
    """What differs between the groups' recipes, in words; names of runs where that is too much or too little."""
    recipes = [_kind(group[0]) for group in groups]
    names = {name: None for recipe in recipes for name in recipe}  # a dict keeps the recipe's order
    differing = [name for name in names if any(r.get(name) != recipes[0].get(name) for r in recipes)]
    said = [[_say(name, recipe, differing) for name in differing] for recipe in recipes]
    labels = [", ".join(word for word in words if word) for words in said]
    if len(differing) > LONGEST_LABEL or len(set(labels)) < len(groups):
        labels = [group[0].name + (f" (+{len(group) - 1})" if len(group) > 1 else "") for group in groups]
    if len(set(labels)) < len(groups):
        labels = [f"{label} #{n}" for n, label in enumerate(labels, start=1)]
    return labels


def _say(name: str, recipe: dict[str, Any], differing: Sequence[str]) -> str:
    value = recipe.get(name)
    if name == "freeze":
        if recipe.get("freeze_epochs"):
            return "gradual"
        return "frozen" if value else "fine-tuned"
    if name == "freeze_epochs" and "freeze" in differing:
        return ""  # said with freeze
    if name == "freeze_epochs" and not value:
        return "fine-tuned"
    if name == FOLDS:
        return in_words(value) if value else ""
    if isinstance(value, str) and value.endswith(".safetensors"):
        value = PurePath(value).stem
    if isinstance(value, list):
        value = "-".join(map(str, value))
    return f"{name} {'default' if value is None else value}"
