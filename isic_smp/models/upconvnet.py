"""`UpConvNet`: a truncated MobileNet and a decoder of transposed convolutions, as an smp architecture.

Example:
    >>> import torch
    >>> import segmentation_models_pytorch as smp
    >>> import isic_smp.plugin
    >>> model = smp.create_model("upconvnet", encoder_name="trunc-mobilenetv2_100-s4", encoder_weights=None)
    >>> model(torch.zeros(1, 3, 128, 128)).shape
    torch.Size([1, 1, 128, 128])
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import ModelCard
from segmentation_models_pytorch.base import ClassificationHead, SegmentationHead, SegmentationModel
from segmentation_models_pytorch.base.hub_mixin import supports_config_loading
from torch import nn

from isic_smp.errors import UserError
from isic_smp.models.decoder import UpConvDecoder, default_channels
from isic_smp.models.encoder import TruncatedMobileNet
from isic_smp.models.families import parse_encoder_name
from isic_smp.models.weights import fill, padded_for, resolve_encoder_weights


class UpConvNet(SegmentationModel):
    """Steps of [ConvTranspose2d ×2, Conv2d, ReLU] on a truncated MobileNet; what is left is bilinear.

    Args:
        encoder_name: `trunc-<timm MobileNet>-s<last block stage kept>`. Where the weights need it, the
            encoder becomes its `-same` twin, and the model's `config` says so.
        encoder_depth: How many halvings of the encoder are used; default: all that the cut has.
        encoder_weights: "imagenet", "isic2016", "none" or None, or the path of a `.safetensors` file with its
            `.json` beside it (`isic_smp.models.weights`).
        decoder_depth: Number of decoder steps, from 1 to `encoder_depth`; default: `encoder_depth`.
        decoder_channels: Channels of each step, coarse to fine; default, by the stride that the step reaches: 256 at
            16, 128 at 8, 64 at 4, 32 at 2, 16 at 1, times `decoder_width`.
        decoder_width: See `decoder_channels`.
        decoder_norm: BatchNorm in the decoder.
        skip_connections: Hand the encoder's finer maps to the decoder.
        decoder_context: Let the decoder look over the encoder's coarsest map as a whole first.
        in_channels: Channels of the image.
        classes: Channels of the output.
        activation: Applied to the output, as smp's architectures have it; None: logits. A model is saved with
            its name only: a class or a function cannot be.
        aux_params: Make a classification head on the encoder's coarsest map, as smp's architectures do.
        mean: Channel means of pixels in 0..1; default: what the encoder's weights were trained with.
        std: Channel standard deviations, likewise.

    Raises:
        UserError: impossible settings, or weights that cannot be had or do not fit.

    Inputs are (B, in_channels, H, W), normalised as (pixel / 255 - mean) / std, H and W multiples of the
    encoder's output stride. Outputs are (B, classes, H, W), and (B, aux classes) with `aux_params`.
    """

    __jit_unused_properties__ = ("mean", "std")

    @supports_config_loading
    def __init__(
        self,
        encoder_name: str = "trunc-mobilenetv2_100-s4",
        encoder_depth: int | None = None,
        encoder_weights: str | Path | None = "imagenet",
        decoder_depth: int | None = None,
        decoder_channels: Sequence[int] | None = None,
        decoder_width: float = 1.0,
        decoder_norm: bool = True,
        skip_connections: bool = True,
        decoder_context: bool = False,
        in_channels: int = 3,
        classes: int = 1,
        activation: str | Callable[..., Any] | None = None,
        aux_params: dict[str, Any] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if classes < 1:
            raise UserError(f"classes must be at least 1, got {classes}")
        weights = resolve_encoder_weights(encoder_weights, parse_encoder_name(encoder_name).timm_name)
        name = parse_encoder_name(padded_for(encoder_name, weights))
        depth = len(name.strides) if encoder_depth is None else encoder_depth
        self.encoder = TruncatedMobileNet(
            timm_name=name.timm_name, cut=name.cut, same_padding=name.same_padding, depth=depth
        )
        channels = _decoder_channels(depth, decoder_depth, decoder_channels, decoder_width)
        self.encoder.set_in_channels(in_channels, pretrained=False)
        fill(self.encoder, weights)

        self.decoder = UpConvDecoder(
            self.encoder.out_channels,
            channels,
            norm=decoder_norm,
            skip_connections=skip_connections,
            context=decoder_context,
        )
        self.segmentation_head = SegmentationHead(
            channels[-1],
            classes,
            kernel_size=3,
            activation=activation,
            upsampling=2 ** (depth - len(channels)),
        )
        self.classification_head = (
            None if aux_params is None else ClassificationHead(self.encoder.out_channels[-1], **aux_params)
        )
        self.name = f"upconvnet-{name}"
        self.initialize()

        # A saved model is built from its config: it must need no network, and not lose its normalisation.
        self.config.update(encoder_name=str(name), encoder_weights=None)
        self._write_down(
            encoder_depth=encoder_depth,
            decoder_depth=decoder_depth,
            decoder_channels=decoder_channels,
            decoder_width=decoder_width,
            decoder_norm=decoder_norm,
            skip_connections=skip_connections,
            decoder_context=decoder_context,
            in_channels=in_channels,
            classes=classes,
        )
        self.set_normalisation(weights.mean if mean is None else mean, weights.std if std is None else std)

    @property
    def mean(self) -> tuple[float, ...]:
        """What is subtracted from pixels in 0..1, a channel each."""
        return tuple(self.config["mean"])

    @property
    def std(self) -> tuple[float, ...]:
        """What the difference is divided by, a channel each."""
        return tuple(self.config["std"])

    def set_normalisation(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Say how the inputs are normalised; saved with the model.

        Args:
            mean: Channel means of pixels in 0..1, one for each of `in_channels`. Three, for red, green and
                blue, are adapted to another number of channels as the stem's filters are.
            std: Channel standard deviations, likewise.

        Raises:
            UserError: another number of values, or a standard deviation that is not above 0.
        """
        channels = self.encoder.out_channels[0]
        means, stds = _by_channel(mean, channels), _by_channel(std, channels)
        for name, values, given in (("mean", means, mean), ("std", stds, std)):
            if len(values) != channels or not all(map(math.isfinite, values)):
                raise UserError(
                    f"{name} must be {channels} numbers, one an input channel, got {tuple(given)}"
                )
        if min(stds) <= 0:
            raise UserError(f"std must be numbers above 0, got {tuple(std)}")
        self.config.update(mean=means, std=stds)

    def save_pretrained(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> str | None:
        """As smp's, which would leave out an activation that is no name: the loaded model would give logits.

        Raises:
            UserError: an activation that is a class or a function.
        """
        lost = [
            name
            for name, is_set in (
                ("activation", not isinstance(self.segmentation_head[-1].activation, nn.Identity)),
                ("aux_params", self.classification_head is not None),
            )
            if is_set and self.config.get(name, "a subclass's") is None
        ]
        if lost:
            raise UserError(
                f"cannot save {' and '.join(lost)}: config.json holds no class or function; set "
                "model.config to what names it, e.g. model.config['activation'] = 'sigmoid'"
            )
        return super().save_pretrained(save_directory, *args, **kwargs)

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """As smp's, whose lines for loading the model know nothing of the import that they need here."""
        card = super().generate_model_card(*args, **kwargs)
        smps = "import segmentation_models_pytorch as smp\n"
        card.content = card.content.replace(smps, f"{smps}import isic_smp.plugin  # registers UpConvNet\n", 1)
        return card

    def train(self, mode: bool = True) -> "UpConvNet":
        """As torch's, but a frozen encoder stays in evaluation mode, all of it.

        smp leaves a frozen encoder in the mode that it is in, dropout and drop-path switched on for good.
        """
        super().train(mode)
        if self._is_encoder_frozen:
            self.encoder.eval()
        return self

    def _write_down(self, **given: Any) -> None:
        """Put settings into `config` as JSON has them: huggingface_hub leaves numpy's at their default there."""
        for setting, value in given.items():
            if setting in self.config and value is not None:  # a subclass may have settings of its own
                self.config[setting] = np.asarray(value).tolist()

    def _set_encoder_trainable(self, mode: bool) -> None:
        """What smp's `freeze_encoder` and `unfreeze_encoder` call."""
        super()._set_encoder_trainable(mode)
        self.encoder.train(mode and self.training)


def _decoder_channels(
    depth: int, steps: int | None, channels: Sequence[int] | None, width: float
) -> tuple[int, ...]:
    """The channels of each decoder step, checked."""
    if steps is None:
        steps = depth
    if not 1 <= steps <= depth:
        raise UserError(f"decoder_depth must be from 1 to {depth}, the encoder's depth, got {steps}")
    if channels is None:
        if not 0 < width < math.inf:
            raise UserError(f"decoder_width must be above 0, got {width}")
        return default_channels(depth, steps, width)
    if len(channels) != steps or min(channels) < 1:
        raise UserError(
            f"decoder_channels must be {steps} positive numbers, one a decoder step, got {tuple(channels)}"
        )
    return tuple(channels)


def _by_channel(values: Sequence[float], channels: int) -> list[float]:
    """Values for red, green and blue as values for `channels` channels, as the stem's filters are adapted.

    One channel stands for all three, and gets their average; more than three go round.
    """
    numbers = [float(value) for value in values]
    if len(numbers) != 3 or channels == 3:
        return numbers
    return [sum(numbers) / 3] if channels == 1 else [numbers[i % 3] for i in range(channels)]
