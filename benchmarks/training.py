"""The project against the loop that an smp user writes today.

python benchmarks/training.py --data-dir DIR --encoder-weights FILE --work-dir DIR

Both train on the same images (`originals.py`) at the same size, with the same loss, optimizer, learning
rate, batch and dihedral flips, from the same encoder weights; the plain loop is in `plain_loop.py`.

"frozen" is the plain loop with the encoder in evaluation mode under no_grad, against the feature bank
with all eight views, its cost included, over 25 epochs.
"""

import argparse
import contextlib
import tempfile
import time
from pathlib import Path
from typing import Any

from clock import Clock, Reached
from common import NoProgress, cpu_seconds, isolated, report, silent
from originals import make_originals, pairs_of
from plain_loop import BATCH, LR, SEED, SIZE, plain

EPOCHS = 25
GOALS = (0.80, 0.83)


def main() -> None:
    """Measure all, print, and write results/training.json."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    words.add_argument("--data-dir", type=Path, required=True)
    words.add_argument("--encoder-weights", type=Path, required=True)
    words.add_argument("--work-dir", type=Path, required=True)
    words.add_argument("--limit", type=float, default=420, help="seconds a run to the IoU goals may take")
    words.add_argument("--only-prepare", action="store_true", help="write the originals and stop")
    words.add_argument(
        "--quick", type=int, default=0, metavar="N", help="only CPU time, one thread, N training images"
    )
    options = words.parse_args()
    originals = make_originals(options.data_dir, options.work_dir / "originals")
    if options.only_prepare:
        return
    same = {"root": originals, "weights": options.encoder_weights}
    if options.quick:
        quick(same, options.quick)
        return
    ours_frozen = isolated(ours, **same, freeze=True, limit=1e9, goals=(2.0,), epochs=EPOCHS)
    plain_frozen = isolated(plain, **same, freeze=True, limit=1e9, goals=(2.0,), epochs=1)
    ours_tuned = isolated(ours, **same, freeze=False, limit=options.limit, goals=GOALS, epochs=100)
    plain_tuned = isolated(plain, **same, freeze=False, limit=options.limit, goals=GOALS, epochs=100)

    tables = {
        "Fine-tuned": [row("plain smp loop", plain_tuned), row("isic_smp", ours_tuned)],
        "Frozen": [row("plain smp loop", plain_frozen), row("isic_smp, feature bank", ours_frozen)],
        "Ratios": ratios(plain_tuned, ours_tuned, plain_frozen, ours_frozen),
    }
    raw = {
        "plain_tuned": plain_tuned,
        "ours_tuned": ours_tuned,
        "plain_frozen": plain_frozen,
        "ours_frozen": ours_frozen,
    }
    report("training", tables, size=SIZE, batch=BATCH, lr=LR, raw=raw)


def quick(same: dict, images: int) -> None:
    """CPU seconds an image on one thread, for a machine that is busy with other things.

    Two threads that wait for each other's turn on a taken core burn processor time, one does not.
    """
    found = {}
    for way, run, freeze, epochs in (
        ("ours_frozen", ours, True, 3),
        ("plain_frozen", plain, True, 1),
        ("ours_tuned", ours, False, 2),
        ("plain_tuned", plain, False, 1),
    ):
        found[way] = isolated(
            run, **same, freeze=freeze, limit=0.0, goals=(2.0,), epochs=EPOCHS, images=images, last=epochs
        )
        print(way, found[way], flush=True)
    rows = [
        {
            "": way,
            "CPU ms an image, training and validation": 1000 * f["epoch_cpu_seconds"] / f["images"],
            "CPU ms an image, once": 1000 * f["prepare_cpu_seconds"] / f["images"],
        }
        for way, f in found.items()
    ]
    lines = ratios(found["plain_tuned"], found["ours_tuned"], found["plain_frozen"], found["ours_frozen"])[:2]
    for line in lines:
        line.pop("measured")
    report(
        "training_cpu", {"CPU time": rows, "Ratios": lines}, size=SIZE, batch=BATCH, images=images, raw=found
    )


def row(name: str, found: dict) -> dict[str, Any]:
    """One measurement as a line of a table."""
    total = found["prepare_seconds"] + EPOCHS * found["epoch_seconds"]
    reached = {
        f"min to IoU {goal}": found["reached"].get(str(goal), "-") for goal in GOALS if found["reached"]
    }
    return {
        "": name,
        "images/s": found["images"] / found["epoch_seconds"],
        "s/epoch": found["epoch_seconds"],
        "CPU s/epoch": found["epoch_cpu_seconds"],
        "s before": found["prepare_seconds"],
        f"min/{EPOCHS} epochs": total / 60,
        "peak MB": found["peak_memory_mb"],
        **reached,
    }


def ratios(plain_tuned: dict, ours_tuned: dict, plain_frozen: dict, ours_frozen: dict) -> list[dict]:
    """Reach and measurement, one line each."""

    def total(found: dict, kind: str = "") -> float:
        return found[f"prepare_{kind}seconds"] + EPOCHS * found[f"epoch_{kind}seconds"]

    lines: list[dict] = [
        {
            "what": "fine-tuned, images/s",
            "goal": 5,
            "measured": plain_tuned["epoch_seconds"] / ours_tuned["epoch_seconds"],
            "by CPU time": plain_tuned["epoch_cpu_seconds"] / ours_tuned["epoch_cpu_seconds"],
        },
        {
            "what": "frozen, 25 epochs, decoding and bank included",
            "goal": 12,
            "measured": total(plain_frozen) / total(ours_frozen),
            "by CPU time": total(plain_frozen, "cpu_") / total(ours_frozen, "cpu_"),
        },
    ]
    for goal in GOALS:
        theirs, own = (found["reached"].get(str(goal)) for found in (plain_tuned, ours_tuned))
        measured: Any = "not reached"
        if own:
            measured = theirs / own if theirs else f"> {plain_tuned['seconds'] / 60 / own:.1f}"
        lines.append(
            {
                "what": f"time to validation IoU {goal}",
                "goal": 8 if goal == GOALS[-1] else "",
                "measured": measured,
            }
        )
    return lines


def ours(
    root: Path,
    weights: Path,
    *,
    freeze: bool,
    limit: float,
    goals: tuple[float, ...],
    epochs: int,
    images: int | None = None,
    last: int = 1,
) -> dict:
    """The project: pixel cache and bank are built anew, and count."""
    import torch

    from isic_smp.data.isic2016 import LesionData
    from isic_smp.prepare import Place, prepare
    from isic_smp.training.checkpoint import Checkpoints
    from isic_smp.training.distributed import Ranks
    from isic_smp.training.fit import fit
    from isic_smp.training.recipe import Recipe
    from isic_smp.training.recipe_check import AUGMENTATIONS

    # The default recipe's network, trained as the plain loop trains its own.
    recipe = Recipe.from_dict(
        {
            "encoder_weights": str(weights),
            "size": SIZE,
            "batch_size": BATCH,
            "epochs": epochs,
            "freeze": freeze,
            **dict.fromkeys(AUGMENTATIONS, 0.0),
            "lr": LR,
            "encoder_lr": None,
            "schedule": "constant",
            "grad_clip": 0.0,
            "ema": 0.0,
            "keep": "best",
            "seed": SEED,
        }
    )
    train, val = pairs_of(root, images)
    data = LesionData("isic2016", root, tuple(train), tuple(val), (), "benchmark", {})
    device = torch.device("cpu")
    clock = Clock(goals, limit, last)
    seconds: list[float] = []

    def on_epoch(record: Any, model: Any) -> None:
        seconds.append(record.seconds)
        clock.epoch(record.val_iou)

    with tempfile.TemporaryDirectory(dir=root) as folder:
        place = Place(Ranks(), device, Path(folder), silent)
        torch.manual_seed(SEED)
        prepared = prepare(recipe, data, place)
        prepare_seconds = time.perf_counter() - clock.start
        clock.cpu.append(cpu_seconds())
        with contextlib.suppress(Reached):
            fit(
                prepared.model,
                recipe,
                prepared.train,
                prepared.validation,
                device=device,
                network=prepared.network,
                checkpoints=Checkpoints(Path(folder)),
                fingerprint="benchmark",
                on_epoch=on_epoch,
                progress=NoProgress(),
            )
    return clock.found(prepare_seconds, seconds, len(train))


if __name__ == "__main__":
    main()
