"""Search for a good recipe.

    python sweeps/search.py --data-dir DIR --encoder-weights FILE --trials 40 --epochs 10 --seeds 3
    python sweeps/search.py --study lesions --storage postgresql+pg8000://isic_smp@db:5432/optuna --workers 4
    python sweeps/search.py --objectives val_iou gmacs --trials 60     # accuracy against cost, no pruning

Learning rates, loss, augmentation, cut and width are sampled by TPE; bad trials are pruned. The winner by
validation IoU is trained again under --seeds seeds, and only then scored on the test images.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

sys.path.insert(0, str(Path(__file__).parents[1]))  # in a clone the package need not be installed

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import TPESampler

from isic_smp import cli, sweep
from isic_smp.errors import UserError
from isic_smp.models.families import encoder_name, parse_encoder_name
from isic_smp.sweeping.options import Options, preset
from isic_smp.sweeping.plan import Objective, Params, Plan, check_not_varied, seeds
from isic_smp.training.recipe import Recipe
from isic_smp.training.recipe_check import AUGMENTATIONS

if TYPE_CHECKING:
    from isic_smp.sweeping.answer import Answer, Findings

DEFAULT_TRIALS = 30
WIDTHS = {"half": 0.5, "full": 1.0, "double": 2.0}


@dataclass(frozen=True, kw_only=True)
class SearchOptions(Options):
    """The search."""

    pruner: Literal["median", "hyperband", "none"] = "median"
    """What ends bad trials early; with several objectives none does."""
    objectives: tuple[Objective, ...] = ("val_iou",)
    """val_iou alone, or with gmacs: the front of what accuracy costs."""


def plan(options: SearchOptions) -> Plan:
    """The space around the recipe; freezing is the recipe's own choice."""
    recipe = options.settings
    check_not_varied(
        recipe,
        preset(options),
        (
            "lr",
            "encoder_lr",
            "loss",
            "weight_decay",
            *AUGMENTATIONS,
            "ema",
            "skip_connections",
        )
        + ("encoder_depth", "decoder_depth", "decoder_channels", "decoder_width"),
    )
    if options.objectives[:1] != ("val_iou",) or len(set(options.objectives)) < len(options.objectives):
        raise UserError(f"--objectives must be val_iou or val_iou gmacs, got {' '.join(options.objectives)}")
    return Plan(
        base=recipe,
        distributions=space(recipe),
        cells=({},) * (options.trials or DEFAULT_TRIALS),
        settings=recipe_settings,
        objectives=options.objectives,
        # Away from what other workers try just now, who may be on other machines; alone it changes nothing.
        sampler=lambda seed: TPESampler(seed=seed, constant_liar=True),
        pruner=pruner(options),
        confirm_seeds=seeds(options.seeds, recipe)[1:] if len(options.objectives) == 1 else (),
        is_grid=False,
    )


def space(recipe: Recipe) -> dict[str, BaseDistribution]:
    """What is varied."""
    name = parse_encoder_name(recipe.encoder)
    # Lovász compares with masks of 0 and 1, which teachers' are not.
    losses = ("bce", "bce_dice", "dice", *(("lovasz",) if recipe.teachers is None else ()), "tversky")
    cuts = [cut for cut in (name.cut - 1, name.cut) if cut >= 1]
    found: dict[str, BaseDistribution] = {
        "cut": CategoricalDistribution(cuts),
        "width": CategoricalDistribution(tuple(WIDTHS)),
        "skip_connections": CategoricalDistribution((True, False)),
        "loss": CategoricalDistribution(losses),
        "lr": FloatDistribution(3e-4, 1e-2, log=True),
        "weight_decay": FloatDistribution(1e-4, 1e-1, log=True),
        "ema": CategoricalDistribution((0.0, 0.98)),
    }
    if not recipe.freeze:
        found["encoder_lr_share"] = FloatDistribution(0.05, 1.0, log=True)
        found |= {augmentation: FloatDistribution(0.0, 1.0) for augmentation in AUGMENTATIONS}
    return found


def recipe_settings(params: Params, base: Recipe) -> dict:
    """Sampled parameters as recipe settings."""
    from isic_smp.models.decoder import default_channels  # late: it needs torch

    name = parse_encoder_name(base.encoder)
    encoder = encoder_name(name.timm_name, params["cut"], same_padding=name.same_padding)
    settings = {k: v for k, v in params.items() if k not in ("cut", "width", "encoder_lr_share")}
    halvings = len(parse_encoder_name(encoder).strides)
    steps = min(base.decoder_depth or halvings, halvings)
    if "encoder_lr_share" in params:
        settings["encoder_lr"] = params["lr"] * params["encoder_lr_share"]
    if base.freeze and base.feature_bank != "off":
        settings |= dict.fromkeys(AUGMENTATIONS, 0.0)  # so that all trials train from the feature bank
    channels = [max(8, int(c * WIDTHS[params["width"]])) for c in default_channels(halvings, steps)]
    return settings | {"encoder": encoder, "decoder_depth": steps, "decoder_channels": channels}


def pruner(options: SearchOptions) -> BasePruner:
    """The chosen pruner."""
    if options.pruner == "none" or len(options.objectives) > 1:
        return NopPruner()
    if options.pruner == "hyperband":
        return HyperbandPruner(min_resource=2, max_resource=options.settings.epochs)
    return MedianPruner(n_startup_trials=5, n_warmup_steps=2)


def main() -> None:
    """Run the search."""

    def answer(findings: "Findings") -> "Answer":
        from isic_smp.sweeping.search_answer import search_answer

        return search_answer(findings)

    sweep.main(SearchOptions, plan, answer, name="search", description=str(__doc__))


if __name__ == "__main__":
    cli.command(main, prog="python sweeps/search.py")
