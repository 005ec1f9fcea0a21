"""By how much does a run differ on another processor? Its code paths on this one, and its number of threads.

    python benchmarks/other_cpu.py --seeds 3 --epochs 10

One very small network is trained on drawn pictures, each time in a fresh process that is told which
instructions it may use: how validation Dice and the first epoch's loss differ from this machine's own
way. `ATEN_CPU_CAPABILITY` holds torch's own kernels back, `ONEDNN_MAX_CPU_ISA` the convolutions.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import common  # noqa: F401 - sets what keeps libraries off the network

WAYS = {
    "as it is, 1 thread": {},
    "the same again": {},
    "2 threads": {"OMP_NUM_THREADS": "2"},
    "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
    "SSE4.1": {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"},
}


def train(place: Path, *, seeds: int, epochs: int) -> dict[str, list]:
    """For each precision and seed: the first epoch's training loss, and each epoch's validation Dice."""
    import torch

    import isic_smp
    from isic_smp.data.augment import Augmenter
    from isic_smp.data.cache import open_pixel_cache
    from isic_smp.data.source import resolve_data
    from isic_smp.training.batches import Order, PixelBatches
    from isic_smp.training.checkpoint import Checkpoints
    from isic_smp.training.fit import fit
    from isic_smp.training.recipe import Recipe

    data, _ = resolve_data("synthetic", place / "pictures", cache_dir=place / "cache")
    caches = [
        open_pixel_cache(p, 64, cache_dir=place / "cache", progress=False) for p in (data.train, data.val)
    ]
    silent = SimpleNamespace(start=lambda *_: None, step=lambda *_: None, end=lambda *_: None)
    found = {}
    for precision in ("float32", "bf16"):
        for seed in range(seeds):
            recipe = Recipe(
                encoder="trunc-mobilenetv2_035-s2", encoder_weights="none", decoder_channels=(16, 8, 8), size=64,
                batch_size=16, epochs=epochs, precision=precision, seed=seed,
            )  # fmt: skip
            torch.manual_seed(seed)
            model = isic_smp.UpConvNet(
                recipe.encoder, encoder_weights=None, decoder_channels=recipe.decoder_channels
            )
            norm = {"mean": model.mean, "std": model.std}
            augmenter = Augmenter(flips=recipe.flips, affine=recipe.affine, colour=recipe.colour)
            with tempfile.TemporaryDirectory() as folder:
                result = fit(
                    model,
                    recipe,
                    PixelBatches(
                        caches[0],
                        Order(len(caches[0]), 16, shuffle=True, seed=seed),
                        augmenter=augmenter,
                        **norm,
                    ),
                    PixelBatches(caches[1], Order(len(caches[1]), 16, shuffle=False), **norm),
                    device=torch.device("cpu"),
                    checkpoints=Checkpoints(Path(folder)),
                    fingerprint="",
                    on_epoch=lambda *_: None,
                    progress=silent,
                )
            history = result.history
            found[f"{precision} {seed}"] = [history[0].train_loss, [record.val_dice for record in history]]
    return found


def run(way: str, place: Path, options: argparse.Namespace) -> dict[str, list]:
    """`train` in a process that computes in this way."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **WAYS[way]}
    words = [f"--seeds={options.seeds}", f"--epochs={options.epochs}", f"--in={place}"]
    done = subprocess.run(
        [sys.executable, __file__, *words], env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--in", type=Path, dest="place", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.place:
        print(json.dumps(train(options.place, seeds=options.seeds, epochs=options.epochs)))
        return
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        from isic_smp.data.synthetic import make_synthetic

        make_synthetic(place / "pictures", train=96, val=32, test=2, size=64)
        own = run("as it is, 1 thread", place, options)
        for key, (_, dices) in own.items():
            print(f"{key}: validation Dice {dices[-1]:.4f}", flush=True)
        print(f"{'':20} {'':8} {'loss, epoch 1':>14} {'Dice, mean':>12} {'most':>8} {'last epoch, most':>17}")
        for way in list(WAYS)[1:]:
            other = run(way, place, options)
            for precision in ("float32", "bf16"):
                keys = [key for key in own if key.startswith(precision)]
                loss = max(abs(own[key][0] - other[key][0]) / own[key][0] for key in keys)
                off = [[abs(a - b) for a, b in zip(own[k][1], other[k][1], strict=True)] for k in keys]
                every = [value for values in off for value in values]
                print(
                    f"{way:20} {precision:8} {loss:14.1e} {sum(every) / len(every):12.5f} {max(every):8.5f} "
                    f"{max(values[-1] for values in off):17.5f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
