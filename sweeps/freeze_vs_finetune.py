"""Is it better to freeze the encoder, to fine-tune it, or to unfreeze it on the way?

    python sweeps/freeze_vs_finetune.py --data-dir DIR --encoder-weights FILE --seeds 3 --epochs 25
    python sweeps/freeze_vs_finetune.py --dry-run --encoders trunc-mobilenetv2_100-s4 trunc-mobilenetv2_100-s3

The full grid of ways, seeds and encoders; then a table, paired comparisons with intervals on the test
images, and a figure. The same command goes on with an interrupted study, or joins it from another process.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))  # in a clone the package need not be installed

from isic_smp import cli, sweep
from isic_smp.errors import UserError
from isic_smp.sweeping.options import Options, preset
from isic_smp.sweeping.plan import Params, Plan, check_not_varied, grid, seeds
from isic_smp.training.recipe import Recipe

if TYPE_CHECKING:
    from isic_smp.sweeping.answer import Answer, Findings

WAYS = ("frozen", "gradual", "fine-tuned")


@dataclass(frozen=True, kw_only=True)
class FreezeOptions(Options):
    """The grid."""

    encoders: tuple[str, ...] = ()
    """Encoders to try each way with. Default: the recipe's own."""


def plan(options: FreezeOptions) -> Plan:
    """Ways × seeds × encoders, the seeds varying slowest: an interrupted study has whole grids of fewer seeds."""
    recipe = options.settings
    check_not_varied(recipe, preset(options), ("freeze", "freeze_epochs"))
    if recipe.epochs < 2:
        raise UserError(
            f"epochs must be at least 2, got {recipe.epochs}: this sweep's way «gradual» trains frozen epochs, then others"
        )
    if len(set(options.encoders)) < len(options.encoders):
        raise UserError(
            f"--encoders must differ, got {' '.join(options.encoders)}: the same trial twice would count as two seeds"
        )
    distributions, cells = grid(
        seed=seeds(options.seeds, recipe), encoder=options.encoders or (recipe.encoder,), way=WAYS
    )
    return Plan(
        base=recipe, distributions=distributions, cells=cells[: options.trials], settings=recipe_settings
    )


def recipe_settings(params: Params, base: Recipe) -> dict:
    """A way as recipe settings; gradual unfreezes the encoder after the first third of the epochs."""
    freeze_epochs = max(1, base.epochs // 3) if params["way"] == "gradual" else 0
    return {
        "encoder": params["encoder"],
        "seed": params["seed"],
        "freeze": params["way"] == "frozen",
        "freeze_epochs": freeze_epochs,
    }


def main() -> None:
    """Run the sweep."""

    def answer(findings: "Findings") -> "Answer":
        from isic_smp.sweeping.paired_answer import paired_answer

        return paired_answer(findings, across="way", within=("encoder",))

    sweep.main(FreezeOptions, plan, answer, name="freeze_vs_finetune", description=str(__doc__))


if __name__ == "__main__":
    cli.command(main, prog="python sweeps/freeze_vs_finetune.py")
