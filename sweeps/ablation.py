"""What does each part of a recipe bring? The whole recipe against the same without one of its parts.

    python sweeps/ablation.py --hold-out hard --data-dir DIR --encoder-weights FILE --seeds 3 --epochs 20 --ema 0.98
    python sweeps/ablation.py --parts artefacts tones --dry-run

Parts are left out one at a time, those that the recipe has; then a table, comparisons of validation IoU, paired by
image and by seed, with intervals over both, and a figure. With --hold-out the validation images are pictures unlike
those that were trained on, where parts differ most. What only finishes a mask (`second_look` and the like) needs
no training to be left out: benchmarks/finishing.py.
"""

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # in a clone the package need not be installed

from isic_smp import cli, sweep
from isic_smp.errors import UserError
from isic_smp.sweeping.options import Options
from isic_smp.sweeping.plan import Params, Plan, grid, seeds
from isic_smp.training.recipe import Recipe

if TYPE_CHECKING:
    from isic_smp.sweeping.answer import Answer, Findings

WHOLE = "whole"

WITHOUT: Mapping[str, Mapping[str, Any]] = {
    "flips": {"flips": False},
    "affine": {"affine": 0.0},
    "colour": {"colour": 0.0},
    "tones": {"tones": 0.0},
    "artefacts": {"artefacts": 0.0},
    "sharp views": {"sharp_views": False},
    "context": {"decoder_context": False},
    "skips": {"skip_connections": False},
    "norm": {"decoder_norm": False},
    "Dice loss": {"loss": "bce"},
    "encoder's own rate": {"encoder_lr": None},
    "schedule": {"schedule": "constant"},
    "average": {"ema": 0.0},
    "plain statistics": {"plain_statistics": 0.0},
    "pretraining": {"encoder_weights": "none"},
}
"""The parts of a recipe, and the settings that leave each out."""


@dataclass(frozen=True, kw_only=True)
class AblationOptions(Options):
    """What is left out."""

    parts: tuple[str, ...] = ()
    """Parts to leave out, one at a time. Default: all that the recipe has."""


NETWORK = ("context", "skips", "norm", "pretraining")
"""Parts that a training that goes on from a model has by that model."""


def has(recipe: Recipe, part: str) -> bool:
    """Whether leaving the part out changes what is trained."""
    if part == "Dice loss":  # any other loss would be replaced, not lose a part
        return recipe.loss == "bce_dice"
    if part == "encoder's own rate" and recipe.freeze:  # which no frozen encoder uses
        return False
    if part in NETWORK and recipe.init_from is not None:
        return False
    if part == "sharp views" and not recipe.takes_finer_pixels:
        return False
    if part == "plain statistics" and not recipe.makes_new_pixels:
        return False
    return dataclasses.replace(recipe, **WITHOUT[part]) != recipe


def plan(options: AblationOptions) -> Plan:
    """The whole recipe and each part left out, the seeds varying slowest: an interrupted study has whole tables."""
    recipe = options.settings
    there = [part for part in WITHOUT if has(recipe, part)]
    if absent := [part for part in options.parts if part not in there]:
        raise UserError(
            f"cannot leave out {', '.join(map(repr, absent))}: expected some of this recipe's parts, {', '.join(there)}"
        )
    left_out = [part for part in there if part in (options.parts or there)]
    if not left_out:
        raise UserError("this recipe has no part that could be left out: choose another --recipe")
    ways = (WHOLE, *(f"without {part}" for part in left_out))
    distributions, cells = grid(seed=seeds(options.seeds, recipe), recipe=ways)
    return Plan(
        base=recipe,
        distributions=distributions,
        cells=cells[: options.trials],
        settings=recipe_settings,
        tested=False,
    )


def recipe_settings(params: Params, _: Recipe) -> dict:
    """The whole recipe, or one without a part."""
    part = params["recipe"].removeprefix("without ")
    return {"seed": params["seed"], **({} if part == WHOLE else WITHOUT[part])}


def main() -> None:
    """Run the sweep."""

    def answer(findings: "Findings") -> "Answer":
        from isic_smp.sweeping.paired_answer import paired_answer

        return paired_answer(findings, across="recipe", metric="iou", paired_seeds=True)

    sweep.main(AblationOptions, plan, answer, name="ablation", description=str(__doc__))


if __name__ == "__main__":
    cli.command(main, prog="python sweeps/ablation.py")
