"""What `mlflow.pyfunc.load_model` and `mlflow models serve` run: images in, masks at their own sizes out.

This module and those it imports from isic_smp are written into each model's folder as one file
(`isic_smp.inference.standalone`), so a model predicts where isic_smp is not installed, and goes on
predicting the same when isic_smp changes.
"""

import base64
import json
import threading
from pathlib import Path
from typing import Any

import cv2
import mlflow.pytorch
import numpy as np
import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel

from isic_smp.data.resize import resize_image, upsample_probabilities
from isic_smp.errors import UserError
from isic_smp.inference.confidence import confidence
from isic_smp.inference.expected_iou import FITTED, ExpectedIoU
from isic_smp.inference.finish import finished
from isic_smp.inference.preprocessing import Preprocessing
from isic_smp.inference.received import is_served, list_images, read_pixels
from isic_smp.inference.symmetries import mean_over_symmetries

MAX_IMAGES = 32
"""A request over HTTP may hold so many images."""
MAX_ARRAY_PIXELS = 1_000_000
"""A request over HTTP may ask for so many pixels as JSON numbers, which take about 60 bytes each on the way."""
IMAGES_AT_ONCE = 2
"""Images in work at the same time in one process: what bounds its memory when many clients ask at once."""
OUTPUTS = ("auto", "arrays", "png")


class BadRequest(MlflowException):
    """Bad input. MLflow's server answers HTTP 400 with these words alone: it would repeat the input as well."""

    def __init__(self, words: str) -> None:
        super().__init__(words, error_code=INVALID_PARAMETER_VALUE)
        self.words = words

    def serialize_as_json(self) -> str:
        """The body of the answer."""
        return json.dumps({"error_code": self.error_code, "message": self.words})


class LesionModel(PythonModel):
    """A segmentation network with all that belongs to it, as MLflow loads it."""

    def load_context(self, context: Any) -> None:
        """Load the network and its settings from the model's folder."""
        settings = dict(context.model_config)
        self.read_files = settings.pop("read_files")
        if self.read_files not in ("auto", True, False):
            raise BadRequest(f"read_files must be auto, true or false, got {self.read_files!r}")
        try:
            self.expected_iou = ExpectedIoU.from_facts(settings)
            settings.pop(FITTED, None)
            self.preprocessing = Preprocessing.from_dict(settings)
        except UserError as error:
            raise BadRequest(str(error)) from None
        # By MLflow's own loader, which refuses programs that hold pickles where pickles are switched off.
        self.network = mlflow.pytorch.load_model(str(Path(context.artifacts["program"]).parent.parent))
        self.turns = threading.BoundedSemaphore(IMAGES_AT_ONCE)

    # The hint is not all that is taken: of any other kind MLflow makes a schema, which refuses arrays.
    def predict(  # type: ignore[override]
        self, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Segment images.

        Args:
            model_input: images, as `list_images` and `read_pixels` take them.
            params: `threshold`, a probability between 0 and 1, in place of the model's own; `output`,
                which is `arrays` or `png` (base64 text), or `auto`: png over HTTP, else arrays.

        Returns:
            One row an image: `height` and `width` in pixels; `lesion_pixels`, `lesion_share` (0 to 1);
            `confidence`, the mean probability of the mask's pixels, or where the mask is empty the mean
            of 1 - probability over the image; `expected_iou`, 0 to 1, the lowest being the masks that need a
            look, None where the model has no estimate; `mask`, uint8 (H, W), 1 is lesion (as PNG 255);
            `probability`, float32 (H, W) (as PNG 255 times that, rounded).

        Raises:
            BadRequest: an image or a parameter that cannot be used.
        """
        threshold, output = self._settings(params or {})
        try:
            images = list_images(model_input)
            if is_served() and len(images) > MAX_IMAGES:
                raise UserError(f"{len(images)} images in one request: at most {MAX_IMAGES} are taken")
            rows = []
            pixels = 0
            for n, image in enumerate(images, start=1):
                with self.turns:
                    row = self._segment(image, f"image {n} of {len(images)}", threshold)
                    pixels += row["height"] * row["width"]
                    if output == "arrays" and is_served() and pixels > MAX_ARRAY_PIXELS:
                        raise UserError(
                            f"more than {MAX_ARRAY_PIXELS} pixels as JSON numbers: ask for output png"
                        )
                    rows.append(row if output == "arrays" else _with_png(row))
        except UserError as error:
            raise BadRequest(str(error)) from None
        index = model_input.index if isinstance(model_input, (pd.DataFrame, pd.Series)) else None
        return pd.DataFrame(rows, index=index)

    def _settings(self, params: dict[str, Any]) -> tuple[float, str]:
        threshold = params.get("threshold")
        threshold = self.preprocessing.threshold if threshold is None else threshold
        if not 0 < threshold < 1:
            raise BadRequest(f"threshold must lie between 0 and 1, got {threshold}")
        output = params.get("output", "auto")
        if output not in OUTPUTS:
            raise BadRequest(f"output must be one of {', '.join(OUTPUTS)}, got {output!r}")
        if output == "auto":
            output = "png" if is_served() else "arrays"
        return threshold, output

    def _segment(self, image: Any, name: str, threshold: float) -> dict[str, Any]:
        read_files = not is_served() if self.read_files == "auto" else self.read_files
        pixels = read_pixels(image, name, read_files=read_files)
        small = resize_image(pixels, self.preprocessing.input_size)[None]
        height, width = pixels.shape[:2]
        chance = finished(self._probabilities(small)[0], small[0], self.preprocessing, threshold)
        probability = upsample_probabilities(chance, (height, width))
        mask = probability > threshold
        lesion_pixels = int(np.count_nonzero(mask))
        return {
            "height": height,
            "width": width,
            "lesion_pixels": lesion_pixels,
            "lesion_share": lesion_pixels / mask.size,
            "confidence": confidence(mask, probability),
            "expected_iou": self.expected_iou.of(chance, threshold) if self.expected_iou else None,
            "mask": mask.astype(np.uint8),
            "probability": probability,
        }

    @torch.inference_mode()
    def _probabilities(self, images: np.ndarray) -> np.ndarray:
        """Float32 (B, S, S) of uint8 (B, S, S, 3), S being the preprocessing's input size."""
        batch = self.preprocessing.to_tensor(images).contiguous()
        if self.preprocessing.test_time_flips:
            maps = mean_over_symmetries(lambda view: self._seen(view).sigmoid(), batch)
        else:
            maps = self._seen(batch).sigmoid()
        return maps.squeeze(1).numpy()

    def _seen(self, batch: torch.Tensor) -> torch.Tensor:
        """Logits, (B, 1, S, S) of (B, 3, S, S)."""
        return self.preprocessing.look(self.network, batch)


def _with_png(row: dict[str, Any]) -> dict[str, Any]:
    return {
        **row,
        "mask": _png(row["mask"] * np.uint8(255)),
        "probability": _png((row["probability"] * 255).round().astype(np.uint8)),
    }


def _png(grey: np.ndarray) -> str:
    """A uint8 (H, W) picture as a PNG file in base64."""
    return base64.b64encode(cv2.imencode(".png", grey)[1].tobytes()).decode("ascii")
