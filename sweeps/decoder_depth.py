"""How deep should the decoder be, and does it need skip connections?

    python sweeps/decoder_depth.py --data-dir DIR --encoder-weights FILE --seeds 2 --epochs 15
    python sweeps/decoder_depth.py --dry-run

Decoder depth × skip connections × frozen or fine-tuned × seeds; then a table of scores, parameters,
multiply-adds and images per second, and the picture of what accuracy costs.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))  # in a clone the package need not be installed

from isic_smp import cli, sweep
from isic_smp.models.families import parse_encoder_name
from isic_smp.sweeping.options import Options, preset
from isic_smp.sweeping.plan import Params, Plan, check_not_varied, grid, seeds
from isic_smp.training.recipe import Recipe

if TYPE_CHECKING:
    from isic_smp.sweeping.answer import Answer, Findings


def plan(options: Options) -> Plan:
    """Every depth that the encoder allows, the seeds varying slowest."""
    recipe = options.settings
    check_not_varied(
        recipe,
        preset(options),
        ("freeze", "freeze_epochs", "skip_connections", "decoder_depth", "decoder_channels"),
    )
    deepest = recipe.encoder_depth or len(parse_encoder_name(recipe.encoder).strides)
    distributions, cells = grid(
        seed=seeds(options.seeds, recipe),
        decoder_depth=range(1, deepest + 1),
        skip_connections=(True, False),
        freeze=(True, False),
    )
    return Plan(
        base=recipe, distributions=distributions, cells=cells[: options.trials], settings=recipe_settings
    )


def recipe_settings(params: Params, base: Recipe) -> dict:
    """A cell as recipe settings; where the recipe names the decoder's channels, each depth has the first ones of them."""
    settings = dict(params)
    if base.decoder_channels is not None:
        settings["decoder_channels"] = list(base.decoder_channels[: params["decoder_depth"]])
    return settings


def main() -> None:
    """Run the sweep."""

    def answer(findings: "Findings") -> "Answer":
        from isic_smp.sweeping.trade_answer import trade_answer

        return trade_answer(
            findings,
            label=lambda p: f"depth {p['decoder_depth']}",
            group=lambda p: (
                f"{'frozen' if p['freeze'] else 'fine-tuned'}, {'with' if p['skip_connections'] else 'without'} skips"
            ),
        )

    sweep.main(Options, plan, answer, name="decoder_depth", description=str(__doc__))


if __name__ == "__main__":
    cli.command(main, prog="python sweeps/decoder_depth.py")
