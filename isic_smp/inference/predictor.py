"""From pictures of any size to lesion probabilities at that size."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from isic_smp.data.resize import resize_image, upsample_probabilities
from isic_smp.errors import UserError
from isic_smp.inference.finish import finished
from isic_smp.inference.preprocessing import Preprocessing
from isic_smp.inference.symmetries import mean_over_symmetries
from isic_smp.training.device import autocast


class Predictor:
    """A model with its preprocessing, ready to predict.

    The model is moved to `device` in channels_last memory order; each call runs it in evaluation
    mode and then gives every layer its former mode back, so a model in training may be looked at.

    Args:
        model: binary smp segmentation model that gives logits (`classes=1`, `activation=None`).
        preprocessing: size, normalisation, threshold, test-time flips, a second look, and the shape of masks.
        device: a torch device.
        precision: bf16 computes the network under autocast.

    Raises:
        UserError: a model of several classes, or with an activation of its own.
    """

    def __init__(
        self,
        model: nn.Module,
        preprocessing: Preprocessing,
        *,
        device: str | torch.device = "cpu",
        precision: Literal["float32", "bf16"] = "float32",
    ) -> None:
        check_binary_logits(model)
        self.device = torch.device(device)
        self.model = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.preprocessing = preprocessing
        self.precision = precision

    def logits(self, images: np.ndarray | Tensor) -> Tensor:
        """Logits of pictures of `preprocessing.input_size`; with test-time flips, those of the mean probability.

        Args:
            images: uint8 (B, input_size, input_size, 3), RGB.

        Returns:
            float32 (B, 1, input_size, input_size), on the predictor's device.
        """
        with torch.inference_mode(), _evaluating(self.model):
            batch = self.preprocessing.to_tensor(images, device=self.device)
            if not self.preprocessing.test_time_flips:
                return self._seen(batch)
            mean = mean_over_symmetries(lambda view: self._seen(view).sigmoid(), batch)
            return mean.logit(eps=torch.finfo(torch.float32).eps)

    def probabilities(self, images: np.ndarray | Tensor) -> Tensor:
        """Lesion probabilities of pictures of `preprocessing.input_size`.

        Args:
            images: uint8 (B, input_size, input_size, 3), RGB.

        Returns:
            float32 (B, input_size, input_size) from 0 to 1, on the predictor's device.
        """
        return self.from_logits(self.logits(images), images)

    def from_logits(self, logits: Tensor, images: np.ndarray | Tensor) -> Tensor:
        """Lesion probabilities from what `logits` gave; here the mask gets its shape (`finished`).

        Args:
            logits: float32 (B, 1, S, S).
            images: what it was given, uint8 (B, S, S, 3).

        Returns:
            float32 (B, S, S) from 0 to 1, on the same device.
        """
        maps = logits.sigmoid().squeeze(1)
        settings = self.preprocessing
        if not (settings.largest_piece or settings.close_bays or settings.wrap_below):
            return maps
        pictures = images.cpu().numpy() if isinstance(images, Tensor) else images
        shaped = [
            finished(m, picture, settings, settings.threshold)
            for m, picture in zip(maps.cpu().numpy(), pictures, strict=True)
        ]
        return torch.from_numpy(np.stack(shaped)).to(maps.device)

    def predict(self, images: Sequence[np.ndarray], *, batch_size: int = 32) -> list[np.ndarray]:
        """Lesion probabilities at each image's own size.

        Images are shrunk as in training, probabilities are enlarged bilinearly; a mask is where
        they are above `preprocessing.threshold`.

        Args:
            images: uint8 (H, W, 3) RGB each, of any sizes.
            batch_size: images in the network at once.

        Returns:
            float32 (H, W) from 0 to 1 for each image, in order.
        """
        found: list[np.ndarray] = []
        for start in range(0, len(images), batch_size):
            some = images[start : start + batch_size]
            small = np.stack([resize_image(image, self.preprocessing.input_size) for image in some])
            maps = self.probabilities(small).cpu().numpy()
            found += [upsample_probabilities(m, image.shape[:2]) for m, image in zip(maps, some, strict=True)]
        return found

    def _seen(self, batch: Tensor) -> Tensor:
        return self.preprocessing.look(self._forward, batch)

    def _forward(self, batch: Tensor) -> Tensor:
        batch = batch.contiguous(memory_format=torch.channels_last)
        with autocast(self.device, self.precision):
            output = self.model(batch)
        masks = (
            output[0] if isinstance(output, tuple) else output
        )  # smp gives (masks, labels) with aux_params
        return masks.float()


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Every layer in evaluation mode, and afterwards in the mode it had.

    Layer by layer, because smp's `eval()` passes over a frozen encoder, whose dropout then stays on.
    """
    modes = [(module, module.training) for module in model.modules()]
    for module, _ in modes:
        module.training = False
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def check_binary_logits(model: nn.Module) -> None:
    """Refuse a model that is not made for one class and logits.

    Raises:
        UserError: an smp model of several classes, or with an activation of its own.
    """
    head = getattr(model, "segmentation_head", None)
    if not isinstance(head, nn.Sequential):  # not an smp model: its output is taken on trust
        return
    classes = next((layer.out_channels for layer in head if isinstance(layer, nn.Conv2d)), 1)
    if classes != 1:
        raise UserError(f"the model has {classes} classes: only binary models (classes=1) can be scored")
    activation = getattr(head[-1], "activation", None)
    if activation is not None and not isinstance(activation, nn.Identity):
        raise UserError(
            f"the model ends in {type(activation).__name__}: expected logits, build it with activation=None"
        )
