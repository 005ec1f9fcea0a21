"""What a sweep tries: which settings vary, between which bounds, and what is queued.

Nothing here needs torch, so that a sweep's `--help` and `--dry-run` answer at once.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler

from isic_smp.errors import UserError
from isic_smp.training.recipe import Recipe

Params = Mapping[str, Any]
Objective = Literal["val_iou", "gmacs"]
DIRECTIONS: Mapping[Objective, Literal["minimize", "maximize"]] = {"val_iou": "maximize", "gmacs": "minimize"}
"""Per-image mean IoU of the validation images at their own sizes; 10⁹ multiply-adds an image."""


def _as_recipe_fields(params: Params, _: Recipe) -> dict[str, Any]:
    return dict(params)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A study before it is begun."""

    base: Recipe
    """What is not varied."""
    distributions: Mapping[str, BaseDistribution]
    """What is varied, by the names that Optuna and MLflow show."""
    cells: tuple[Params, ...]
    """What is queued, in this order; the sampler chooses what a cell leaves out."""
    settings: Callable[[Params, Recipe], dict[str, Any]] = _as_recipe_fields
    """Recipe settings from a trial's parameters and the base recipe."""
    objectives: tuple[Objective, ...] = ("val_iou",)
    sampler: Callable[[int], BaseSampler] = RandomSampler
    """Makes a sampler from a seed; a search has another seed for each trial, and so may be resumed and shared."""
    pruner: BasePruner = field(default_factory=NopPruner)
    confirm_seeds: tuple[int, ...] = ()
    """Further seeds under which the winners are trained once all cells are done."""
    is_grid: bool = True
    """Every cell names all parameters, and the answer is about all of them, not about the best."""
    tested: bool = True
    """Test images are scored once the study is finished; not where its answer is for choosing by."""

    def recipe(self, params: Params, *, seed: int | None = None) -> Recipe:
        """The recipe of a trial.

        Raises:
            UserError: the parameters do not go together.
        """
        settings = self.settings(params, self.base)
        return Recipe.from_dict(settings | ({} if seed is None else {"seed": seed}), self.base)

    def identity(self) -> dict[str, Any]:
        """What must be the same for a worker to join the study: plain JSON values."""
        from optuna.distributions import distribution_to_json

        return {
            "base": self.base.to_dict(),
            "varied": {name: distribution_to_json(d) for name, d in self.distributions.items()},
            "objectives": list(self.objectives),
            "pruner": type(self.pruner).__name__,
        }


def grid(**choices: Sequence[Any]) -> tuple[dict[str, CategoricalDistribution], tuple[Params, ...]]:
    """Every combination of `choices`, the first of them varying slowest: distributions and cells."""
    distributions = {name: CategoricalDistribution(tuple(values)) for name, values in choices.items()}
    cells = tuple(dict(zip(choices, cell, strict=True)) for cell in itertools.product(*choices.values()))
    return distributions, cells


def seeds(count: int, recipe: Recipe) -> tuple[int, ...]:
    """`count` seeds from the recipe's own on."""
    return tuple(range(recipe.seed, recipe.seed + count))


def check_not_varied(recipe: Recipe, default: Recipe, varied: Sequence[str]) -> None:
    """Refuse a change, by an option or a file of settings, of what the sweep itself varies.

    Args:
        recipe: all settings.
        default: the preset that they build on.
        varied: names of the settings that the sweep varies.

    Raises:
        UserError: naming the settings.
    """
    both = [name for name in varied if getattr(recipe, name) != getattr(default, name)]
    if both:
        raise UserError(
            f"cannot set {', '.join(both)}: this sweep sets {', '.join(varied)}; leave it out, or use isic_smp.run"
        )
