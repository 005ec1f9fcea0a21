"""Time and memory against the number of images.

python benchmarks/scale.py --work-dir DIR [--counts 1000 10000 100000]

Every data set is made of hard links to the same 2,000 drawn pictures, 128 px a side; the network sees
64 px. Each count runs in a process of its own, which finds the pairs, builds the cache, reads one epoch
with augmentation, trains for some steps and validates; its resident memory is read at the end of each.
"""

import argparse
import os
import re
import shutil
import time
from itertools import islice
from pathlib import Path

from common import isolated, report

SIZE, BATCH, STEPS, DISTINCT = 64, 32, 20, 2000


def main() -> None:
    """Measure all, print, and write results/scale.json."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    words.add_argument("--work-dir", type=Path, required=True)
    words.add_argument("--counts", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    options = words.parse_args()
    drawn = options.work_dir / "drawn"
    if not drawn.is_dir():
        from isic_smp.data.synthetic import make_synthetic

        options.work_dir.mkdir(parents=True, exist_ok=True)
        make_synthetic(drawn, train=DISTINCT, val=1, test=1, size=128)
    rows = []
    for count in options.counts:
        folder = options.work_dir / f"linked-{count}"
        link(drawn, folder, count)
        found = isolated(measure, folder=folder, cache_dir=options.work_dir / "cache")
        rows.append({"images": count, **found})
        shutil.rmtree(options.work_dir / "cache")
        shutil.rmtree(folder)
        print(rows[-1], flush=True)
    ratio = rows[-1]["resident MB after training"] / rows[0]["resident MB after training"]
    summary = [
        {
            "what": f"resident memory, {options.counts[-1]} / {options.counts[0]}",
            "goal": 1.2,
            "measured": ratio,
        }
    ]
    report("scale", {"Against the number of images": rows, "Ratio": summary})


def link(drawn: Path, folder: Path, count: int) -> None:
    """`count` pairs as hard links."""
    from isic_smp.data.isic2016 import TRAINING

    images, masks = (sorted((drawn / name).iterdir())[:DISTINCT] for name in TRAINING)
    shutil.rmtree(folder, ignore_errors=True)
    for name, files in (("images", images), ("masks", masks)):
        (folder / name).mkdir(parents=True)
        suffix = "_Segmentation.png" if name == "masks" else ".jpg"
        for i in range(count):
            os.link(files[i % len(files)], folder / name / f"SYN_{i:07}{suffix}")


def measure(folder: Path, cache_dir: Path) -> dict:
    """One data set, from its folders to trained steps."""
    import torch

    from isic_smp.data.augment import Augmenter
    from isic_smp.data.cache import open_pixel_cache
    from isic_smp.data.pairs import find_pairs
    from isic_smp.network import build_network
    from isic_smp.training.batches import Order, PixelBatches
    from isic_smp.training.distributed import Ranks
    from isic_smp.training.recipe import Recipe
    from isic_smp.training.trainer import Trainer

    device = torch.device("cpu")
    recipe = Recipe.from_dict({"encoder_weights": "none", "size": SIZE, "batch_size": BATCH})
    model = build_network(recipe, "none").to(memory_format=torch.channels_last)
    start = time.perf_counter()
    pairs = find_pairs(folder / "images", folder / "masks")
    listed = time.perf_counter()
    cache = open_pixel_cache(pairs, SIZE, cache_dir=cache_dir, progress=False)
    built = time.perf_counter()
    resident_after_build = resident_mb()
    batches = PixelBatches(
        cache,
        Order(len(cache), BATCH, shuffle=True),
        mean=model.mean,
        std=model.std,
        augmenter=Augmenter(flips=True, affine=0.5, colour=0.5),
    )
    for _ in batches.epoch(0, device):
        pass
    read = time.perf_counter()
    trainer = Trainer(model, model, recipe, steps=batches.steps(), device=device, ranks=Ranks())
    trainer.set_frozen(False)

    class Quiet:
        def step(self, *_: object) -> None: ...

    for epoch in (1, 2):
        begun = time.perf_counter()
        trainer.train_epoch(islice(batches.epoch(epoch, device), STEPS), batches.names, Quiet())
        step_seconds = (time.perf_counter() - begun) / min(STEPS, batches.steps())
    return {
        "find pairs s": listed - start,
        "build cache s": built - listed,
        "build images/s": len(cache) / (built - listed),
        "read epoch s": read - built,
        "read images/s": len(cache) / (read - built),
        "train step ms": 1000 * step_seconds,
        "epoch min (from steps)": step_seconds * batches.steps() / 60,
        "resident MB after build": resident_after_build,
        "resident MB after training": resident_mb(),
    }


def resident_mb() -> float:
    """VmRSS of this process, in MB."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1e3


if __name__ == "__main__":
    main()
