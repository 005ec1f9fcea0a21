"""The project against the loop that an smp user writes today.

python benchmarks/training.py --data-dir DIR --encoder-weights FILE --work-dir DIR

The plain loop: `smp.Unet` with timm's MobileNetV2, a DataLoader with two workers that decodes JPEG and
PNG at the original sizes every epoch, float32, NCHW. Both train on the same images at the same size,
with the same loss, optimizer, learning rate, batch and dihedral flips, from the same encoder weights.
The originals are re-made once: the images at hand are enlarged to the sizes that manifest.csv gives.

"frozen" is the plain loop with the encoder in evaluation mode under no_grad, against the feature bank
with all eight views, its cost included, over 25 epochs.
"""

import argparse
import contextlib
import csv
import json
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from common import NoProgress, cpu_seconds, isolated, report, silent

SIZE, BATCH, EPOCHS, LR, SEED = 128, 32, 25, 1e-3, 0
GOALS = (0.80, 0.83)
TYPICAL = (1024, 768)  # where the manifest knows no original size


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
            "reach": 5,
            "measured": plain_tuned["epoch_seconds"] / ours_tuned["epoch_seconds"],
            "by CPU time": plain_tuned["epoch_cpu_seconds"] / ours_tuned["epoch_cpu_seconds"],
        },
        {
            "what": "frozen, 25 epochs, decoding and bank included",
            "reach": 12,
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
                "reach": 8 if goal == GOALS[-1] else "",
                "measured": measured,
            }
        )
    return lines


def make_originals(data_dir: Path, folder: Path) -> Path:
    """The data set with every picture enlarged to its original size, in the same folders."""
    import cv2

    from isic_smp.data.isic2016 import TRAINING, load_isic2016

    done = folder / "done"
    if done.exists():
        return folder
    sizes = {}
    with (data_dir / "manifest.csv").open() as file:
        for line in csv.DictReader(file):
            width, height = (int(line[f"original_{side}"] or 0) for side in ("width", "height"))
            sizes[line["id"]] = (width, height) if width else TYPICAL
    data = load_isic2016(data_dir)
    for name in TRAINING:
        (folder / name).mkdir(parents=True, exist_ok=True)

    def enlarge(pair: Any) -> None:
        image, mask = cv2.imread(str(pair.image)), cv2.imread(str(pair.mask), cv2.IMREAD_GRAYSCALE)
        image = cv2.resize(image, dsize=sizes[pair.id], interpolation=cv2.INTER_CUBIC)
        mask = cv2.resize(mask, dsize=sizes[pair.id], interpolation=cv2.INTER_NEAREST)
        cv2.imwrite(str(folder / TRAINING[0] / pair.image.name), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
        cv2.imwrite(str(folder / TRAINING[1] / pair.mask.name), mask)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(enlarge, [*data.train, *data.val]))
    done.touch()
    return folder


def pairs_of(root: Path, images: int | None = None) -> tuple[list, list]:
    """Training and validation pairs of the enlarged data set; of the first `images`, a ninth validates."""
    from isic_smp.data.isic2016 import TRAINING, split_lists
    from isic_smp.data.pairs import find_pairs

    lists = split_lists()
    pairs = find_pairs(root / TRAINING[0], root / TRAINING[1])
    train = [p for p in pairs if p.id in lists["train"]]
    val = [p for p in pairs if p.id in lists["val"]]
    if images is None:
        return train, val
    # Evenly over the ids, whose originals differ in size.
    return train[:: len(train) // images][:images], val[:: len(val) * 9 // images][: images // 9]


class Reached(Exception):
    """The last goal is reached, or time is up."""


class Clock:
    """Minutes at which the goals are first reached."""

    def __init__(self, goals: tuple[float, ...], limit: float, last: int) -> None:
        self.last = last
        self.goals, self.limit, self.start = goals, limit, time.perf_counter()
        self.cpu = [cpu_seconds()]
        self.reached: dict[str, float] = {}
        self.ious: list[float] = []

    def epoch(self, iou: float) -> None:
        """Note an epoch's validation IoU."""
        seconds = time.perf_counter() - self.start
        self.cpu.append(cpu_seconds())
        self.ious.append(iou)
        for goal in self.goals:
            if iou >= goal:
                self.reached.setdefault(str(goal), seconds / 60)
        if len(self.reached) == len(self.goals) or (seconds > self.limit and len(self.ious) >= self.last):
            raise Reached


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
    return _found(clock, prepare_seconds, seconds, len(train))


def plain(
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
    """The loop of an smp user."""
    import segmentation_models_pytorch as smp
    import torch
    from safetensors.torch import load_file

    about = json.loads(weights.with_suffix(".json").read_text())
    torch.manual_seed(SEED)
    # The weights ask for TensorFlow's padding; random ones would run in timm's own.
    padding = about.get("create_model_kwargs", {})
    model = smp.Unet(f"tu-{about['timm_model']}", encoder_weights=None, **padding)
    model.encoder.model.load_state_dict(load_file(weights), strict=False)
    train, val = pairs_of(root, images)
    loaders = [
        torch.utils.data.DataLoader(
            Pictures(pairs, about["mean"], about["std"], flips=i == 0),
            batch_size=BATCH,
            shuffle=i == 0,
            drop_last=i == 0,
            num_workers=2,
        )
        for i, pairs in enumerate((train, val))
    ]
    bce, dice = torch.nn.BCEWithLogitsLoss(), smp.losses.DiceLoss("binary")
    parts = [model.decoder, model.segmentation_head] if freeze else [model]
    optimizer = torch.optim.AdamW([p for part in parts for p in part.parameters()], lr=LR)
    clock = Clock(goals, limit, last)
    seconds = []
    try:
        for _ in range(epochs):
            start, images = time.perf_counter(), 0
            model.train()
            if freeze:
                model.encoder.eval()
            for x, truth in loaders[0]:
                logits = _through(model, x, freeze)
                loss = bce(logits, truth) + dice(logits, truth)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                images += len(x)
            seconds.append((time.perf_counter() - start) * len(train) / images)
            clock.epoch(_validate(model, loaders[1]))
    except Reached:
        pass
    return _found(clock, 0.0, seconds, len(train))


def _through(model: Any, x: Any, freeze: bool) -> Any:
    import torch

    if not freeze:
        return model(x)
    with torch.no_grad():
        features = model.encoder(x)
    return model.segmentation_head(model.decoder(features))


def _validate(model: Any, loader: Any) -> float:
    """Mean of the images' IoU."""
    import segmentation_models_pytorch as smp
    import torch

    model.eval()
    stats = []
    with torch.no_grad():
        for x, truth in loader:
            stats.append(smp.metrics.get_stats(model(x), truth.long(), mode="binary", threshold=0.0))
    tp, fp, fn, tn = (torch.cat(some) for some in zip(*stats, strict=True))
    return smp.metrics.iou_score(tp, fp, fn, tn, reduction="micro-imagewise").item()


class Pictures:
    """A map-style dataset: decode, shrink, flip, normalise."""

    def __init__(self, pairs: list, mean: list[float], std: list[float], *, flips: bool) -> None:
        self.pairs, self.mean, self.std, self.flips = pairs, mean, std, flips

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple:
        import cv2
        import numpy as np
        import torch

        pair = self.pairs[index]
        image = cv2.cvtColor(cv2.imread(str(pair.image)), cv2.COLOR_BGR2RGB)
        mask = cv2.imread(str(pair.mask), cv2.IMREAD_GRAYSCALE)
        image = cv2.resize(image, dsize=(SIZE, SIZE), interpolation=cv2.INTER_AREA)
        mask = cv2.resize(mask, dsize=(SIZE, SIZE), interpolation=cv2.INTER_AREA)
        if self.flips:
            turns, mirrored = int(torch.randint(4, ())), bool(torch.randint(2, ()))
            image, mask = np.rot90(image, turns), np.rot90(mask, turns)
            if mirrored:
                image, mask = image[:, ::-1], mask[:, ::-1]
        x = (image.astype(np.float32) / 255 - self.mean) / self.std
        x = np.ascontiguousarray(x.transpose(2, 0, 1), dtype=np.float32)
        return torch.from_numpy(x), torch.from_numpy((mask >= 128)[None].astype(np.float32))


def _found(clock: Clock, prepare_seconds: float, seconds: list[float], images: int) -> dict:
    return {
        "prepare_seconds": prepare_seconds,
        "epoch_seconds": sorted(seconds)[len(seconds) // 2],
        "epochs_run": len(seconds),
        # With validation. On a machine that others use too, these compare better than the clock does.
        "prepare_cpu_seconds": clock.cpu[-1 - len(clock.ious)] - clock.cpu[0],
        "epoch_cpu_seconds": (clock.cpu[-1] - clock.cpu[-1 - len(clock.ious)]) / max(1, len(clock.ious)),
        "images": images,
        "seconds": time.perf_counter() - clock.start,
        "reached": clock.reached,
        "validation_iou": clock.ious,
    }


if __name__ == "__main__":
    main()
