"""What the benchmarks share: a fresh process each measurement, peak memory, tables, JSON."""

import argparse
import concurrent.futures
import dataclasses
import json
import multiprocessing
import os
import platform
import resource
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

RESULTS = Path(__file__).parent / "results"


def takes_no_options(description: str | None) -> None:
    """Answer --help, and refuse words that would be passed over."""
    argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()


def isolated(function: Callable[..., dict], **arguments: Any) -> dict:
    """`function(**arguments)` in a process of its own, with the peak memory of its tree in MB added."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_measured, function, arguments).result()


def _measured(function: Callable[..., dict], arguments: dict) -> dict:
    with PeakMemory() as memory:
        found = function(**arguments)
    return {**found, "peak_memory_mb": round(memory.peak_mb)}


class PeakMemory:
    """The most memory that this process and its children held: the sum of their proportional set sizes.

    Unlike the sum of resident sizes, that counts a page which forked workers share once.
    """

    def __enter__(self) -> "PeakMemory":
        self.peak_mb, self._stop = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        import psutil

        while not self._stop.wait(0.5):
            total = 0
            for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:  # ended meanwhile
                    continue
            self.peak_mb = max(self.peak_mb, total / 1e6)


def cpu_seconds() -> float:
    """Processor time of this process and of its children that have ended."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def median_seconds(work: Callable[[], Any], *, seconds: float, least: int = 5) -> float:
    """Median duration of `work`, called for about `seconds`, after two calls that do not count."""
    work(), work()
    durations = []
    end = time.perf_counter() + seconds
    while len(durations) < least or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        durations.append(time.perf_counter() - start)
    return sorted(durations)[len(durations) // 2]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a Markdown table; the first row's keys are its head."""
    head = list(rows[0])
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(_text(row.get(key, "")) for key in head) + " |" for row in rows]
    return "\n".join(lines)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return str(value)


def report(name: str, tables: Mapping[str, Sequence[Mapping[str, Any]]], **facts: Any) -> None:
    """Print the tables and write them with date and machine to results/<name>.json."""
    import torch

    for title, rows in tables.items():
        print(f"\n{title}\n\n{table(rows)}")
    RESULTS.mkdir(exist_ok=True)
    found = {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": {
            "cpu": cpu(),
            "cores": len(os.sched_getaffinity(0)),
            "load_average": round(os.getloadavg()[0], 1),
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        **facts,
        "tables": tables,
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")


def cpu() -> str:
    """The processor's name, and whether it computes in bf16, as training then does."""
    import torch

    from isic_smp.training.device import resolve_precision

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor()
    in_bf16 = resolve_precision("auto", torch.device("cpu")) == "bf16"
    return f"{name}, {'with' if in_bf16 else 'without'} bf16"


def silent(*_: object, **__: object) -> None:
    """A callback that does nothing."""


class NoProgress:
    """A `training.history.Progress` that shows nothing."""

    start = step = end = silent


def options_of_a_model(description: str | None) -> argparse.ArgumentParser:
    """What a benchmark is asked that looks at one model on `validation_pictures`."""
    words = argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)
    words.add_argument("--data-dir", type=Path, required=True)
    words.add_argument("--model", default="isic2016", help="default: the one that comes with the package")
    words.add_argument("--hold-out", help="the group that the model was trained without")
    return words


def options_of_models(description: str | None) -> argparse.ArgumentParser:
    """What a benchmark is asked that looks at several models on `validation_pictures`."""
    words = argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)
    words.add_argument("--data-dir", type=Path, required=True)
    words.add_argument(
        "--models", nargs="+", default=["isic2016"], help="default: the one that comes with the package"
    )
    words.add_argument("--hold-out", help="the group that the models were trained without")
    return words


def options_of_models_or_folds(description: str | None) -> argparse.ArgumentParser:
    """What a benchmark is asked that looks at models on `asked_pictures`."""
    words = options_of_models(description)
    words.add_argument("--folds", nargs="+", metavar="RUN", help="in place of models: folds of one recipe")
    return words


def validation_pictures(data_dir: Path, group: str | None) -> tuple[Sequence[Any], Sequence[Any]]:
    """The validation images, or those of a group that was held out, and their masks, at their own sizes."""
    from isic_smp.data.held_out import hold_out
    from isic_smp.data.isic2016 import load_isic2016
    from isic_smp.data.pairs import read_pair
    from isic_smp.data.source import default_cache_dir

    data = load_isic2016(data_dir)
    if group:
        data = hold_out(data, group, cache_dir=default_cache_dir())
    images, masks = zip(*(read_pair(pair) for pair in data.val), strict=True)
    return images, masks


def predictors_of_folds(data: Any, runs: Sequence[str]) -> dict[str, Any]:
    """For each training image the predictor of the run (`run --fold K/N`) that was validated on it, so has not seen it.

    Raises:
        UserError: a run was not trained on a fold of these data.
    """
    from isic_smp.data.division import as_divided
    from isic_smp.data.source import default_cache_dir
    from isic_smp.errors import UserError
    from isic_smp.inference.load import load_bundle
    from isic_smp.inference.predictor import Predictor

    found = {}
    for run in runs:
        bundle = load_bundle(run)
        trained_on = bundle.info["data"]
        part = as_divided(data, trained_on["fingerprint"], cache_dir=default_cache_dir())
        if "fold" not in trained_on or part.fingerprint != trained_on["fingerprint"]:
            raise UserError(f"{run} was not trained on a fold of the data in {data.root}")
        predictor = Predictor(bundle.model, bundle.preprocessing)
        found |= {pair.id: predictor for pair in part.val}
    return found


def asked_pictures(options: argparse.Namespace) -> tuple[Sequence[Any], Sequence[Any], dict[str, list[Any]]]:
    """Images and masks at their own sizes, and for each model the predictor that each picture is asked of.

    Args:
        options: of `options_of_models_or_folds`. With folds all that they were validated on, each picture asked of the one
            that has not seen it; without, `validation_pictures`, asked of each of the models.
    """
    from isic_smp.data.isic2016 import load_isic2016
    from isic_smp.data.pairs import read_pair
    from isic_smp.inference.open_predictor import open_predictor

    if not options.folds:
        images, masks = validation_pictures(options.data_dir, options.hold_out)
        return (
            images,
            masks,
            {model: [open_predictor(model).predictor] * len(images) for model in options.models},
        )
    data = load_isic2016(options.data_dir)
    asked = predictors_of_folds(data, options.folds)
    pairs = [pair for pair in (*data.train, *data.val) if pair.id in asked]
    images, masks = zip(*map(read_pair, pairs), strict=True)
    return images, masks, {"folds": [asked[pair.id] for pair in pairs]}


def predicted(predictors: Sequence[Any], images: Sequence[Any], **settings: Any) -> list[Any]:
    """The mask of each image, bool (H, W), by its predictor, some of whose settings are others."""
    from isic_smp.inference.predictor import Predictor

    found: list[Any] = [None] * len(images)
    for predictor in dict.fromkeys(predictors):
        finish = dataclasses.replace(predictor.preprocessing, **settings)
        own = [n for n, one in enumerate(predictors) if one is predictor]
        chances = Predictor(predictor.model, finish).predict([images[n] for n in own])
        for n, chance in zip(own, chances, strict=True):
            found[n] = chance > finish.threshold
    return found


def as_score(value: float, error: float = 0.0, form: str = ".4f") -> str:
    """A score from 0 to 1 as the pages have it: `.8547`, or `.8547 ± .0021` where an error is given."""
    numbers = (value, error) if error else (value,)
    return " ± ".join(f"{number:{form}}".replace("0.", ".", 1) for number in numbers)


def with_error(values: Any) -> str:
    """The mean of values, (N,), with its sign and standard error."""
    return f"{values.mean():+.4f} ± {values.std(ddof=1) / len(values) ** 0.5:.4f}"


def columns_of_scores(models: Iterable[str], scores: Any, plain: Any, faint: Any) -> dict[str, str]:
    """Of a way of asking: each model's mean IoU, the mean change of images, of the faint ones, and the share under .65.

    Args:
        models: their names, M.
        scores: IoU of this way, (M, N).
        plain: of the way that it is held against, (M, N).
        faint: which images are of faint lesions, bool (N,).
    """
    change = (scores - plain).mean(0)
    return {
        **{Path(model).name: as_score(score.mean()) for model, score in zip(models, scores, strict=True)},
        "change": with_error(change),
        "of faint": with_error(change[faint]),
        "failed": f"{(scores < 0.65).mean():.1%}",
    }


def in_group(group: str, images: Sequence[Any], masks: Sequence[Any]) -> Any:
    """Which pictures belong to a group of `isic_smp.data.groups`, bool (N,)."""
    import numpy as np

    from isic_smp.data.groups import GROUPS, SIZE, marks
    from isic_smp.data.resize import resize_image, resize_mask

    small = np.stack([resize_image(image, SIZE) for image in images])
    return GROUPS[group](marks(small, np.stack([resize_mask(mask, SIZE) for mask in masks])))


def draw_outlines(
    picture: Path,
    images: Sequence[Any],
    masks: Sequence[Any],
    picked: Iterable[int],
    ways: Mapping[str, Sequence[Any]],
) -> None:
    """The picked images with true and predicted outlines, a row for each way's probabilities, as a JPEG file."""
    import cv2
    import numpy as np

    from isic_smp.tracking.figures import overlay

    columns = [
        np.concatenate(
            [overlay(images[n], masks[n], chances[n], way, side=360) for way, chances in ways.items()]
        )
        for n in picked
    ]
    drawn = np.concatenate(columns, axis=1)
    cv2.imwrite(str(picture), drawn[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])


def iou(predicted: Any, truth: Any) -> float:
    """Of two masks, bool (H, W); 1 where both are empty, as the official scorer has it."""
    union = (predicted | truth).sum()
    return float((predicted & truth).sum() / union) if union else 1.0
