"""The MobileNets that can be cut, and the names of their cuts. No torch: a command's `--help` reads this.

An encoder is named `trunc-<timm name>-s<k>`: timm's MobileNet with its stem and `blocks[0..k]`, nothing
after them. The cut is in the name because smp hands an encoder of its registry no keyword arguments.
`-same` at the end pads strided convolutions as TensorFlow does ("SAME", one more pixel at the bottom and
right than at the top and left), which weights made there need; `tf_` models are padded so already.

Example:
    >>> parse_encoder_name("trunc-mobilenetv2_100-s4").strides
    (2, 4, 8, 16)
"""

import difflib
import re
from dataclasses import dataclass

from isic_smp.errors import UserError

STEM_STRIDE = 2

_V1 = (2, 4, 8, 16, 32)
_V2 = (2, 4, 8, 16, 16, 32, 32)
_V3_LARGE = (2, 4, 8, 16, 16, 32, 32)
_V3_SMALL = (4, 8, 16, 16, 32, 32)
_V4_CONV = (4, 8, 16, 32, 32)

STAGE_STRIDES: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("mobilenetv1_100", "mobilenetv1_100h", "mobilenetv1_125"), _V1),
    **dict.fromkeys((f"mobilenetv2_{w}" for w in ("035", "050", "075", "100", "110d", "120d", "140")), _V2),
    **dict.fromkeys((f"mobilenetv3_{w}" for w in ("large_075", "large_100", "large_150d", "rw")), _V3_LARGE),
    **dict.fromkeys((f"mobilenetv3_small_{w}" for w in ("050", "075", "100")), _V3_SMALL),
    **dict.fromkeys((f"tf_mobilenetv3_large_{w}" for w in ("075", "100", "minimal_100")), _V3_LARGE),
    **dict.fromkeys((f"tf_mobilenetv3_small_{w}" for w in ("075", "100", "minimal_100")), _V3_SMALL),
    **dict.fromkeys((f"mobilenetv4_conv_{w}" for w in ("small_035", "small_050", "small")), _V4_CONV),
    **dict.fromkeys((f"mobilenetv4_conv_{w}" for w in ("medium", "large")), _V4_CONV),
    **dict.fromkeys((f"mobilenetv4_conv_{w}" for w in ("aa_medium", "blur_medium", "aa_large")), _V4_CONV),
}
"""timm name → input pixels a pixel of each block stage's output, along a side. The stem's is 2 throughout."""

_NAME = re.compile(r"trunc-(?P<timm>\w+)-s(?P<cut>\d+)(?P<same>-same)?")


@dataclass(frozen=True)
class EncoderName:
    """An encoder's name, taken apart."""

    timm_name: str
    """timm's name of the whole network, e.g. "mobilenetv2_100"."""
    cut: int
    """The last block stage kept, counted from 0 as timm's `blocks` are."""
    same_padding: bool
    """Whether a symmetrically padded network is to be padded as TensorFlow pads."""
    strides: tuple[int, ...]
    """Strides of the maps that the cut offers, fine to coarse, e.g. (2, 4, 8, 16)."""

    def __str__(self) -> str:
        return f"trunc-{self.timm_name}-s{self.cut}" + ("-same" if self.same_padding else "")


def parse_encoder_name(name: str) -> EncoderName:
    """Take an encoder's name apart.

    Raises:
        UserError: no such encoder; the message names close ones.
    """
    match = _NAME.fullmatch(name)
    if not match or match["timm"] not in STAGE_STRIDES:
        close = difflib.get_close_matches(name, all_encoder_names(), n=3, cutoff=0.5)
        meant = f"did you mean {' or '.join(close)}?" if close else "e.g. trunc-mobilenetv2_100-s4"
        raise UserError(
            f"no encoder {name!r}: expected trunc-<timm MobileNet>-s<last block stage kept>; {meant}"
        )
    timm_name, cut, same_padding = match["timm"], int(match["cut"]), bool(match["same"])
    stages = STAGE_STRIDES[timm_name]
    if cut >= len(stages) or match["cut"] != str(cut):
        raise UserError(f"no encoder {name!r}: {timm_name} has block stages s0 to s{len(stages) - 1}")
    if same_padding and not has_same_twin(timm_name):
        raise UserError(
            f"no encoder {name!r}: {timm_name} comes in its own padding only; use trunc-{timm_name}-s{cut}"
        )
    strides = tuple(sorted({STEM_STRIDE, *stages[: cut + 1]}))
    return EncoderName(timm_name, cut, same_padding, strides)


def encoder_name(timm_name: str, cut: int, same_padding: bool = False) -> str:
    """The name of a cut; the inverse of `parse_encoder_name`.

    Raises:
        UserError: there is no such encoder.
    """
    name = f"trunc-{timm_name}-s{cut}" + ("-same" if same_padding else "")
    return str(parse_encoder_name(name))


def has_same_twin(timm_name: str) -> bool:
    """Whether timm pads this network symmetrically, in its strided convolutions alone.

    `tf_` models are padded as TensorFlow pads already; the anti-aliased ones stride in pooling layers,
    for which TensorFlow has made no weights.
    """
    return not timm_name.startswith("tf_") and not is_antialiased(timm_name)


def is_antialiased(timm_name: str) -> bool:
    """Whether the network strides in blur or average pooling rather than in convolutions."""
    return "_aa_" in timm_name or "_blur_" in timm_name


def all_encoder_names() -> list[str]:
    """Every encoder's name, networks in the table's order, cuts from shallow to deep."""
    return [
        f"trunc-{timm_name}-s{cut}{twin}"
        for timm_name, stages in STAGE_STRIDES.items()
        for cut in range(len(stages))
        for twin in (("", "-same") if has_same_twin(timm_name) else ("",))
    ]
