"""An ONNX model in 8-bit integers, where processors compute these faster.

Weights are rounded channel by channel, activations on ranges seen in real images
(https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html).
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from isic_smp.data.images import read_image
from isic_smp.data.resize import resize_image
from isic_smp.inference.conversion import INPUT
from isic_smp.inference.extras import require
from isic_smp.inference.preprocessing import Preprocessing

if TYPE_CHECKING:
    import onnx


def quantise(
    model: "onnx.ModelProto", preprocessing: Preprocessing, images: Sequence[Path]
) -> "onnx.ModelProto":
    """The model in int8, with the same input, output and metadata.

    Args:
        model: as `to_onnx` makes it.
        preprocessing: what belongs to it.
        images: whose activations decide the ranges; some dozens, and none that scores are told of.
    """
    onnx = require("onnx")
    require("onnxruntime")
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = _batches(images, preprocessing)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    with tempfile.TemporaryDirectory() as folder:
        given, prepared, quantised = (Path(folder) / f"{step}.onnx" for step in ("given", "prepared", "int8"))
        given.write_bytes(model.SerializeToString())
        # The exporter has written the shapes already. The symbolic search for them, where it finds not all,
        # leaves files in the current folder.
        quant_pre_process(str(given), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(quantised),
            Images(),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        result = onnx.load(str(quantised))
    del result.metadata_props[:]
    result.metadata_props.extend(model.metadata_props)
    return result


def _batches(images: Sequence[Path], preprocessing: Preprocessing) -> Iterator[dict[str, np.ndarray]]:
    network = preprocessing.of_the_network()
    for path in images:
        small = resize_image(read_image(path), network.size)[None]
        yield {INPUT: network.to_tensor(small).contiguous().numpy()}
