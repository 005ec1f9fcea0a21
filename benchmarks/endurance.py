"""Does memory stay flat? 500 epochs of a very small run, MLflow and all, and 10,000 predictions in one process.

    python benchmarks/endurance.py --epochs 500 --predictions 10000

Resident memory and open files at every tenth of the way; what is held after the first tenth (caches, the allocator's own)
is the level that the last must not exceed by more than a few megabytes.
"""

import argparse
import tempfile
from pathlib import Path

import common  # noqa: F401 - sets what keeps libraries off the network
import psutil


def train(epochs: int) -> list[tuple[int, float, int]]:
    """(epoch, MB resident, open files) at every tenth."""
    from isic_smp.data.synthetic import make_synthetic
    from isic_smp.experiment import run_experiment
    from isic_smp.setup import Setup
    from isic_smp.training.recipe import Recipe

    recipe = Recipe(
        encoder="trunc-mobilenetv2_035-s2", encoder_weights="none", decoder_channels=(8, 8, 8), size=32,
        batch_size=8, epochs=epochs, precision="float32",
    )  # fmt: skip
    seen = []
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        make_synthetic(place / "pictures", train=24, val=6, test=6, size=64)
        setup = Setup(
            data="synthetic",
            data_dir=place / "pictures",
            output_dir=place / "out",
            cache_dir=place / "cache",
            tracking_uri=f"sqlite:///{place}/mlflow.db",
            bars=False,
        )
        run_experiment(
            recipe,
            setup,
            say=lambda line: None,
            after_epoch=lambda record: note(seen, record.epoch + 1, epochs),
        )
    return seen


def predict(count: int) -> list[tuple[int, float, int]]:
    """(prediction, MB resident, open files) at every tenth; pictures of many sizes."""
    import numpy as np

    import isic_smp
    from isic_smp.inference.predictor import Predictor
    from isic_smp.inference.preprocessing import Preprocessing

    model = isic_smp.UpConvNet("trunc-mobilenetv2_035-s2", encoder_weights=None, decoder_channels=(8, 8, 8))
    predictor = Predictor(model.eval(), Preprocessing(size=32, mean=(0.5,) * 3, std=(0.5,) * 3))
    rng, seen = np.random.default_rng(0), []
    for n in range(1, count + 1):
        height, width = rng.integers(16, 600, 2)
        predictor.predict([rng.integers(0, 256, (height, width, 3), np.uint8)])
        note(seen, n, count)
    return seen


def note(seen: list, done: int, total: int) -> None:
    """Memory and files, at every tenth of the way."""
    if done % max(1, total // 10) == 0:
        me = psutil.Process()
        seen.append((done, me.memory_info().rss / 1e6, me.num_fds()))
        print(f"{done:>8} {seen[-1][1]:8.0f} MB {seen[-1][2]:5} open files", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=500)
    parser.add_argument("--predictions", type=int, default=10_000)
    options = parser.parse_args()
    for what, measure, count in (
        ("epochs", train, options.epochs),
        ("predictions", predict, options.predictions),
    ):
        if count:
            print(what)
            seen = measure(count)
            print(
                f"from the first tenth to the last: {seen[-1][1] - seen[0][1]:+.1f} MB, {seen[-1][2] - seen[0][2]:+d} files"
            )


if __name__ == "__main__":
    main()
