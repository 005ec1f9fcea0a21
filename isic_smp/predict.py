"""Predict masks for images of any size and format.

    python -m isic_smp.predict photo.jpg                 # by the model that comes with the package
    python -m isic_smp.predict photo.jpg --model runs/20260102-030405-frozen-seed0 --out predictions
    python -m isic_smp.predict images/ more/*.png --model models:/lesions@champion --out predictions --overlays
    python -m isic_smp.predict images/ --model model.onnx --out predictions

OUT/masks holds the masks and nothing else, each at its image's own size, 255 is lesion, named
<image>_Segmentation.png; the official scorer reads them as they are. Images of equal names get their
folder's before it, else their ending or a number after it. What is in OUT already is not predicted again,
so the same command goes on after an interruption; another model or threshold is refused there.

Exit code 0: all images. 1: some could not be used (said at the end, and in OUT/failures.csv). 2: bad input.
"""

import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from isic_smp import cli

PROG = "python -m isic_smp.predict"
SOME_FAILED = 1
SAID_DOUBTFUL = 5
SAID_FAILURES = 20
"""So many are listed on the screen; all are in the files."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is predicted, by which model, and what is written."""

    images: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="IMAGE...")]
    """Image files, folders (searched with their subfolders, less those that are links and what predict and
    evaluate wrote) and patterns such as 'scans/**/*.tif'."""
    model: str = "isic2016"
    """isic2016 is the model that comes with the package. Else a run's --output-dir, a model folder, a run id, runs:/ID, models:/NAME@ALIAS, models:/NAME/3, or an
    exported .onnx, .xml or .pt2 file."""
    out: Path = Path("predictions")
    """Folder for the results."""
    probabilities: bool = False
    """Write OUT/probabilities too: 8-bit pictures, 255 times the probability."""
    overlays: bool = False
    """Write OUT/overlays too: the images with the masks' outlines, at most 1024 pixels wide and high."""
    csv: bool = True
    """Write OUT/predictions.csv: area, bounding box, confidence, expected IoU and seconds of each image."""
    threshold: float | None = None
    """A pixel is lesion where its probability is above this. Default: the model's own."""
    batch_size: Annotated[int, tyro.conf.arg(metavar="N")] = 32
    """Images in the network at once."""
    engine: Literal["torch", "onnxruntime", "openvino"] = "torch"
    """What computes the network; the last two are extras: pip install 'isic-smp[onnx]' or '[openvino]'."""
    fast: bool = False
    """Compute in bf16 where the machine does so natively, and decode large JPEGs at a fraction of their
    size: about twice as fast; around one pixel in 200 changes sides."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    tracking_uri: str | None = None
    """MLflow store of runs and registered models. Default: MLFLOW_TRACKING_URI, else ./mlruns."""


def main(argv: Sequence[str] | None = None) -> int:
    """Predict, and say how many and how fast."""
    options = cli.parse(Options, prog=PROG, description=str(__doc__), argv=argv)
    # A scheduler's SIGTERM ends it as Ctrl-C does: what is done stays done.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return predict(options)


def predict(options: Options) -> int:
    """Predict all that is asked for; the exit code."""
    from tqdm import tqdm

    from isic_smp.errors import UserError
    from isic_smp.inference.inputs import find_images, name_masks

    if not options.images:
        raise UserError("no images: name image files, folders or patterns")
    if options.batch_size < 1:
        raise UserError(f"--batch-size must be at least 1, got {options.batch_size}")
    images = find_images(options.images, leave_out=options.out)

    from isic_smp.inference.batch_predict import predict_files
    from isic_smp.inference.open_predictor import open_predictor
    from isic_smp.inference.prediction_folder import PredictionFolder

    opened = open_predictor(
        options.model,
        engine=options.engine,
        device=options.device,
        bf16=options.fast,
        threshold=options.threshold,
        tracking_uri=options.tracking_uri,
    )
    identity = {**opened.identity, "reduced_decoding": options.fast}
    with PredictionFolder(
        options.out,
        identity,
        probabilities=options.probabilities,
        overlays=options.overlays,
        table=options.csv,
    ) as folder:
        names = name_masks(images, folder.names())
        done = sum(folder.is_done(image) for image in images)
        start = time.perf_counter()
        bar_format = "{desc} |{bar:20}| {n_fmt}/{total_fmt} {elapsed}<{remaining}, {rate_fmt}"
        with tqdm(
            total=len(images) - done,
            desc="predict",
            unit=" images",
            file=sys.stderr,
            disable=not sys.stderr.isatty(),
            bar_format=bar_format,
        ) as bar:
            predict_files(
                opened.predictor,
                names,
                folder,
                batch_size=options.batch_size,
                reduced_decoding=options.fast,
                expected_iou=opened.expected_iou,
                progress=bar.update,
            )
        seconds = time.perf_counter() - start
        failures = dict(folder.failures)
        doubtful = sorted(
            (row.expected_iou, row.id)
            for image in images
            if (row := folder.rows.get(image)) and row.expected_iou is not None
        )
        renamed = [image for image in images if image not in failures and names[image] != image.stem]
    tried = len(images) - done
    print(
        f"{count(tried - len(failures))} in {seconds:.1f} s, {tried / max(seconds, 1e-9):.1f} images/s"
        + (f"; {done} were there already" if done else "")
        + f": {options.out / 'masks'}"
        + (f", table {options.out / 'predictions.csv'}" if options.csv else "")
    )
    if renamed:
        print(
            f"{count(len(renamed))} of a name that another has: masks are named after their folder, ending "
            f"or a number too, such as {names[renamed[0]]}"
        )
    _say_doubtful(doubtful)
    return _say_failures(failures, options.out)


def count(images: int) -> str:
    """How many images, in words."""
    return f"{images} image{'' if images == 1 else 's'}"


def _say_doubtful(expected: list[tuple[float, str]]) -> None:
    """Say which masks need a look, the worst first.

    Args:
        expected: the expected IoU of each image and its name, lowest first.
    """
    from isic_smp.inference.expected_iou import FAILURE_IOU

    low = [name for iou, name in expected if iou < FAILURE_IOU]
    if low:
        more = f" and {len(low) - SAID_DOUBTFUL} more" if len(low) > SAID_DOUBTFUL else ""
        print(
            f"{count(len(low))} with an expected IoU under {FAILURE_IOU}, worst first: "
            f"{', '.join(low[:SAID_DOUBTFUL])}{more}"
        )


def _say_failures(failures: dict[Path, str], out: Path) -> int:
    """List what could not be used on stderr; the exit code."""
    if not failures:
        return 0
    print(f"{count(len(failures))} could not be used, listed in {out / 'failures.csv'}:", file=sys.stderr)
    for reason in list(failures.values())[:SAID_FAILURES]:
        print(f"  {reason}", file=sys.stderr)
    if len(failures) > SAID_FAILURES:
        print(f"  and {len(failures) - SAID_FAILURES} more", file=sys.stderr)
    return SOME_FAILED


if __name__ == "__main__":
    cli.command(main, prog=PROG)
