"""What several processes would send a training step, and how long that would take: on paper, nothing is timed.

python benchmarks/traffic.py --step 0.67      # seconds of a step on one worker, measured elsewhere

A ring all-reduce over N workers sends 2 (N - 1) / N times its bytes through each link (Patarasuk and Yuan 2009),
in 2 (N - 1) turns that each wait once for the network. Nothing is taken to overlap with the computation, so
these are upper bounds; the gradients' part does overlap in DistributedDataParallel.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from torch.nn.modules.batchnorm import _BatchNorm

from isic_smp.network import build_network
from isic_smp.training.recipe import PRESETS

GIGABIT = 1e9 / 8
BUCKET = 25 * 2**20
"""Bytes of gradients that DistributedDataParallel sends at once."""


def main() -> None:
    """Print the bytes and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--step", type=float, default=0.67, help="seconds of a step on one worker")
    parser.add_argument(
        "--turn", type=float, default=50, help="microseconds that one turn waits for the network"
    )
    options = parser.parse_args()
    recipe = PRESETS["default"]
    model = build_network(recipe, "none")
    parameters = sum(p.numel() for p in model.parameters())
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    gradients = 4 * parameters
    # mean and square a channel and a count, in float64, once forward and once backward
    statistics = sum(2 * 8 * (2 * m.num_features + 1) for m in norms)
    messages = -(-gradients // BUCKET) + 2 * len(norms)
    print(
        f"{recipe.encoder}: {parameters:,} parameters, {gradients / 1e6:.2f} MB of gradients a step in float32"
    )
    print(f"{len(norms)} BatchNorm layers: {statistics / 1e6:.2f} MB a step in {2 * len(norms)} messages\n")
    print(
        "| workers | network | gradients, ms | BatchNorm, ms | of that waiting, ms | step, s | times one worker |"
    )
    print("|---|---|---|---|---|---|---|")
    for workers in (2, 8, 64):
        for gigabits in (1, 10, 25):
            share = 2 * (workers - 1) / workers / (gigabits * GIGABIT)
            wait = 2 * (workers - 1) * options.turn * 1e-6
            of_gradients = gradients * share + wait * (messages - 2 * len(norms))
            of_statistics = statistics * share + wait * 2 * len(norms)
            whole = options.step + of_gradients + of_statistics
            print(
                f"| {workers} | {gigabits} Gbit/s | {of_gradients * 1e3:.1f} | {of_statistics * 1e3:.1f} "
                f"| {wait * messages * 1e3:.1f} | {whole:.2f} | {workers * options.step / whole:.1f} |"
            )


if __name__ == "__main__":
    main()
