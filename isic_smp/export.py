"""Write a trained model as one file for use without this project, and check that it still says the same.

    python -m isic_smp.export runs/20260102-030405-frozen-seed0                     model.onnx
    python -m isic_smp.export models:/lesions@champion --format openvino --out lesions.xml
    python -m isic_smp.export RUN_ID --format torch-export --images photos/
    python -m isic_smp.export RUN_ID --int8 --data-dir data/isic2016

Input: float32 (B, 3, H, W), RGB, (pixel / 255 - mean) / std, any B, H and W (multiples of the encoder's
output stride). Output: logits (B, 1, H, W). Size, mean, std and threshold are inside the file, and whether flips, a
second look, more contrast in it, the largest piece, closed bays and wrapped faint lesions belong to a prediction:
`isic_smp.predict --model FILE` does these, others have to.
A TorchScript file is a program: whoever loads it runs it, and `predict` does not. The other formats hold no code.

Exit code 0: written, and equal to the model. 1: written, but not equal. 2: bad input.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from isic_smp import cli
from isic_smp.data.names import Data
from isic_smp.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from isic_smp.data.pairs import Pair
    from isic_smp.inference.load import Bundle

PROG = "python -m isic_smp.export"
NOT_EQUAL = 1
TOLERANCE = 1e-3
"""Largest difference of two probabilities that another order of rounding may make."""
PICTURES = 8
"""So many drawn pictures are compared where no images are given."""
CALIBRATION = 96
"""So many training images decide the ranges of 8-bit activations."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is exported and where to."""

    model: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL")]
    """isic2016 (the model that comes with the package), a run's --output-dir, a model folder, a run id, runs:/ID, models:/NAME@ALIAS or models:/NAME/3."""
    format: Literal["onnx", "torch-export", "torchscript", "openvino"] = "onnx"
    """onnx and openvino need an extra: pip install 'isic-smp[onnx]' or 'isic-smp[openvino]'."""
    out: Path | None = None
    """The file. Default: model.onnx, .pt2, .pt or .xml (with a .bin beside it) in the current folder."""
    images: Annotated[tuple[str, ...], tyro.conf.arg(metavar="IMAGE...")] = ()
    """Files, folders or patterns to compare the file and the model on. Default: drawn pictures."""
    int8: bool = False
    """Compute in 8-bit integers (onnx only); what that costs is measured on the validation images."""
    data: Data = "auto"
    """Training and validation images for --int8."""
    binarize_masks: bool = False
    """For --int8: accept masks with grey values; above 128 is lesion."""
    data_dir: Path | None = None
    """Folder that holds the four ISIC 2016 part 1 folders. Else ISIC_SMP_DATA, else ./data/isic2016."""
    cache_dir: Path | None = None
    """Drawn pictures and file digests. Default: ISIC_SMP_CACHE, else the user's cache folder."""
    tracking_uri: str | None = None
    """MLflow store of runs and registered models. Default: MLFLOW_TRACKING_URI, else ./mlruns."""


def main(argv: Sequence[str] | None = None) -> int:
    """Export one model, and print how equal the file is."""
    options = cli.parse(Options, prog=PROG, description=str(__doc__), argv=argv)
    if options.int8 and options.format != "onnx":
        raise UserError(
            f"--int8 is for --format onnx, got {options.format}; OpenVINO runs the ONNX file as well"
        )
    from isic_smp.inference.conversion import ENDINGS, save_as, to_onnx
    from isic_smp.inference.engines import example_input
    from isic_smp.inference.expected_iou import ExpectedIoU
    from isic_smp.inference.exported import open_exported
    from isic_smp.inference.fuse import fused_for_inference
    from isic_smp.inference.load import load_bundle
    from isic_smp.inference.parity import compare_networks
    from isic_smp.inference.predictor import check_binary_logits

    ending = ENDINGS[options.format]
    out = options.out or Path(f"model{ending}")
    files = [out, out.with_suffix(".bin")] if options.format == "openvino" else [out]
    _check_writable(files, ending)
    bundle = load_bundle(options.model, tracking_uri=options.tracking_uri)
    check_binary_logits(bundle.model)
    pictures = _pictures(options, bundle)
    expected_iou = ExpectedIoU.from_facts(bundle.info)
    network = fused_for_inference(bundle.model, example_input(bundle.preprocessing))
    if options.int8:
        from isic_smp.data.source import default_cache_dir, resolve_data
        from isic_smp.inference.quantisation import quantise

        cache_dir = options.cache_dir or default_cache_dir()
        data, _ = resolve_data(options.data, options.data_dir, cache_dir=cache_dir)
        train, step = data.train, max(1, len(data.train) // CALIBRATION)
        small = quantise(
            to_onnx(network, bundle.preprocessing, expected_iou),
            bundle.preprocessing,
            [pair.image for pair in train[::step][:CALIBRATION]],
        )
        out.write_bytes(small.SerializeToString())
    else:
        save_as(options.format, network, bundle.preprocessing, out, expected_iou=expected_iou)
    print(f"{out}: {options.format}, {sum(f.stat().st_size for f in files) / 1e6:.1f} MB")
    engine = open_exported(out).network
    parity = compare_networks(bundle.model, engine, pictures, bundle.preprocessing.threshold)
    kind = "images" if options.images else "drawn pictures"
    print(f"against the model, on {len(pictures)} {kind}, together, singly and at other proportions:")
    print(parity.describe())
    if options.int8:
        print(_cost(bundle, engine, data.val, binarize_masks=options.binarize_masks))
    elif not parity.largest_difference <= TOLERANCE:  # also where it is no number
        print(f"NOT EQUAL: a difference above {TOLERANCE:g} is more than rounding; don't use this file")
        return NOT_EQUAL
    return 0


def _check_writable(files: Sequence[Path], ending: str) -> None:
    """Before the work, not after it; the first is the one that is named."""
    out = files[0]
    if out.suffix != ending:
        raise UserError(f"--out must end in {ending}, got {out}")
    for file in files:
        if file.exists():
            raise UserError(f"{file} exists: remove it or choose another --out")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; choose another --out") from None
    if not os.access(out.parent, os.W_OK):
        raise UserError(f"cannot write {out}: no permission; choose another --out")


def _pictures(options: Options, bundle: "Bundle") -> "Tensor":
    """Normalised pictures of the network's size to compare on: float32 (B, 3, size, size)."""
    import numpy as np

    from isic_smp.data.images import read_image
    from isic_smp.data.resize import resize_image
    from isic_smp.data.synthetic import draw_lesion
    from isic_smp.inference.inputs import find_images

    size = bundle.preprocessing.size
    if options.images:
        paths = find_images(options.images, leave_out=Path(os.devnull))
        images = [resize_image(read_image(path), size) for path in paths]
    else:
        images = [resize_image(draw_lesion(0, i, max(64, size))[0], size) for i in range(PICTURES)]
    return bundle.preprocessing.of_the_network().to_tensor(np.stack(images)).contiguous()


def _cost(bundle: "Bundle", engine: "nn.Module", val: "Sequence[Pair]", *, binarize_masks: bool) -> str:
    """Validation scores of the model and of `engine`, as a table."""
    from isic_smp.inference.predictor import Predictor
    from isic_smp.inference.scoring import score

    before, after = (
        score(Predictor(network, bundle.preprocessing), val, binarize_masks=binarize_masks).summary()
        for network in (bundle.model, engine)
    )
    lines = [f"{len(val)} validation images", f"{'':8}{'float32':>10}{'int8':>10}{'cost':>10}"]
    for label, key in (("Dice", "dice_per_image_own"), ("IoU", "iou_per_image_own")):
        lines.append(f"{label:8}{before[key]:>10.4f}{after[key]:>10.4f}{before[key] - after[key]:>+10.4f}")
    return "\n".join(lines)


if __name__ == "__main__":
    cli.command(main, prog=PROG)
