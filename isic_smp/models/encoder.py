"""timm's MobileNets, cut after a block stage, as encoders of segmentation-models-pytorch (smp).

What is cut off does not exist: neither in memory nor in the state dict, whose keys are timm's own. The
blocks are timm's (v1 https://arxiv.org/abs/1704.04861, v2 https://arxiv.org/abs/1801.04381,
v3 https://arxiv.org/abs/1905.02244, v4 https://arxiv.org/abs/2404.10518).

Example:
    >>> import isic_smp.plugin
    >>> import segmentation_models_pytorch as smp
    >>> encoder = smp.encoders.get_encoder("trunc-mobilenetv2_100-s4", depth=4, weights=None)
    >>> encoder.out_channels
    [3, 16, 24, 32, 96]
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch
from segmentation_models_pytorch.encoders._base import EncoderMixin
from timm.models import adapt_input_conv
from torch import nn

from isic_smp.errors import UserError
from isic_smp.models.families import (
    STAGE_STRIDES,
    STEM_STRIDE,
    encoder_name,
    is_antialiased,
    parse_encoder_name,
)
from isic_smp.models.same_padding import pad_statically

_HEAD_KEY = re.compile(r"(conv_head|bn2|norm_head|classifier)\.")
BLOCK_KEY = re.compile(r"blocks\.(\d+)\.")


class TruncatedMobileNet(nn.Module, EncoderMixin):
    """Stem and first block stages of a timm MobileNet; one feature map a stride, the last one at each.

    Args:
        timm_name: timm's name of the whole network, e.g. "mobilenetv2_100".
        cut: The last block stage kept, counted from 0.
        same_padding: Pad strided convolutions as TensorFlow does. Without effect on `tf_` networks, which
            are padded so in any case. Height and width must then be multiples of the output stride, also in
            smp's Unet, which takes any size.
        depth: How many halvings to keep, at most what the cut has (None: all). Block stages past them are cut
            off as well.
        output_stride: 32 leaves the network as it is; 16 and 8 replace the strides past it by dilation.
    """

    # TorchScript would compile properties that only Python needs.
    __jit_unused_properties__ = ("out_channels", "output_stride", "encoder_name")

    def __init__(
        self,
        *,
        timm_name: str,
        cut: int,
        same_padding: bool = False,
        depth: int | None = None,
        output_stride: int = 32,
    ) -> None:
        super().__init__()
        self._name = parse_encoder_name(encoder_name(timm_name, cut, same_padding))
        strides = self._name.strides
        self._depth = len(strides) if depth is None else depth
        self._check_depth()
        self._in_channels = 3
        self._output_stride = 32

        stage_strides = STAGE_STRIDES[timm_name][: cut + 1]
        kept = sum(stride <= strides[self._depth - 1] for stride in stage_strides)
        self._stage_strides = stage_strides[:kept]
        # The stem's map is the one at stride 2 only where no block stage works at that stride.
        self._stem_is_map = STEM_STRIDE not in self._stage_strides
        self._map_stages = [
            i for i, stride in enumerate(self._stage_strides) if stride not in self._stage_strides[i + 1 :]
        ]

        padding: dict[str, Any] = {"pad_type": "same"} if same_padding else {}
        whole: Any = timm.create_model(timm_name, pretrained=False, num_classes=0, **padding)
        self.conv_stem: nn.Conv2d = whole.conv_stem
        self.bn1 = whole.bn1
        self.blocks: nn.Sequential = whole.blocks[:kept]
        self._pads_as_tensorflow = same_padding or timm_name.startswith("tf_")
        if self._pads_as_tensorflow:
            pad_statically(self)

        stem_channels = [self.conv_stem.out_channels] if self._stem_is_map else []
        stage_channels = [_channels(self.blocks[i]) for i in self._map_stages]
        self._out_channels = [self._in_channels, *stem_channels, *stage_channels]
        if output_stride != 32:
            self.make_dilated(output_stride)

    @property
    def out_channels(self) -> list[int]:
        """Channels of each map that `forward` returns."""
        return self._out_channels

    @property
    def encoder_name(self) -> str:
        """The name under which smp knows this cut."""
        return str(self._name)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Feature maps of an image, fine to coarse.

        Args:
            x: (B, C, H, W), C as given to `set_in_channels` (3 unless it was called), H and W multiples of
                the output stride.

        Returns:
            `[x, (B, C1, H/2, W/2), (B, C2, H/4, W/4), …]`, depth + 1 maps with `out_channels` channels.

        Raises:
            UserError: another height or width, where it would be padded otherwise than the weights need.
        """
        if not torch.jit.is_scripting():
            self._check_size(x)
        maps = [x]
        x = self.bn1(self.conv_stem(x))
        if self._stem_is_map:
            maps.append(x)
        for i, stage in enumerate(self.blocks):
            x = stage(x)
            if i in self._map_stages:
                maps.append(x)
        return maps

    def get_stages(self) -> dict[int, Sequence[nn.Module]]:
        """The block stages that work at strides of 16 and 32, as smp's dilation asks for them."""
        stages = list(zip(self._stage_strides, self.blocks, strict=True))
        return {
            stride: [stage for at, stage in stages if at == stride]
            for stride in (16, 32)
            if stride in self._stage_strides
        }

    def make_dilated(self, output_stride: int) -> None:
        """Keep the resolution from `output_stride` on: replace the strides past it by dilation.

        A cut that ends at that stride or before it is left as it is; `output_stride` tells what it has.

        Raises:
            UserError: an output stride other than 8 and 16, or a network that strides in pooling layers.
        """
        if output_stride not in (8, 16):
            raise UserError(f"output stride must be 8, 16 or 32 (no dilation), got {output_stride}")
        if is_antialiased(self._name.timm_name) and self._stage_strides[-1:] > (output_stride,):
            raise UserError(
                f"{self.encoder_name} strides in its anti-aliasing layers, which cannot be dilated to an "
                f"output stride of {output_stride}: use 32, or a network without aa or blur in its name"
            )
        super().make_dilated(output_stride)
        self._output_stride = output_stride

    def set_in_channels(self, in_channels: int, pretrained: bool = True) -> None:
        """Change the number of channels of the image.

        Args:
            in_channels: 1 or more.
            pretrained: Adapt the stem's filters as timm does (one channel: their sum over RGB; others:
                repeated and scaled). Otherwise they are drawn anew.

        Raises:
            UserError: fewer than one channel.
        """
        if in_channels < 1:
            raise UserError(f"in_channels must be at least 1, got {in_channels}")
        if in_channels == self._in_channels:
            return
        stem, old = self.conv_stem, self.conv_stem.weight
        if pretrained:
            weight = adapt_input_conv(in_channels, old.detach())
        else:
            weight = old.new_empty(old.shape[0], in_channels, *old.shape[2:])
            nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")  # as timm draws it
        stem.weight = nn.Parameter(weight, requires_grad=old.requires_grad)
        stem.in_channels = self._in_channels = self._out_channels[0] = in_channels

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """As torch's, but a state dict of timm's whole network loads too: what was cut off is passed over."""
        kept = {key: value for key, value in state_dict.items() if not self._is_cut_off(key)}
        return super().load_state_dict(kept, strict=strict, assign=assign)

    def _is_cut_off(self, key: str) -> bool:
        """Whether `key` is of timm's head, or of a block stage of timm's that this network has not."""
        if _HEAD_KEY.match(key):
            return True
        block = BLOCK_KEY.match(key)
        stages = len(STAGE_STRIDES[self._name.timm_name])
        return block is not None and len(self._stage_strides) <= int(block[1]) < stages

    def _check_size(self, x: torch.Tensor) -> None:
        """Refuse a size at which the fixed pad is not TensorFlow's: the maps would be shifted, and nobody told."""
        height, width = x.shape[-2], x.shape[-1]
        stride = min(self._output_stride, self._name.strides[self._depth - 1])
        # While a graph is captured, sizes are no numbers; whoever captures it knows the sizes that it is for.
        if not self._pads_as_tensorflow or torch.compiler.is_compiling() or not isinstance(height, int):
            return
        if height % stride or width % stride:
            fitting = " × ".join(str(-(-side // stride) * stride) for side in (height, width))
            raise UserError(
                f"{self.encoder_name} pads as TensorFlow does where height and width are multiples of {stride}, "
                f"got {height} × {width}: pad or resize the images to {fitting}"
            )

    def _check_depth(self) -> None:
        strides = self._name.strides
        if 1 <= self._depth <= len(strides):
            return
        has = len(strides)
        deeper = f", or cut {self._name.timm_name} deeper" if has < min(self._depth, 5) else ""
        raise UserError(
            f"{self.encoder_name} has depth 1 to {has} (output stride {strides[-1]}), got {self._depth}: "
            f"pass encoder_depth={has}, with {has} decoder_channels where there is one a step{deeper}"
        )


def _channels(stage: nn.Module) -> int:
    """Output channels of a block stage: those of its last block's last convolution."""
    return [layer for layer in stage.modules() if isinstance(layer, nn.Conv2d)][-1].out_channels
