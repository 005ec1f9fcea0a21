"""Where an encoder's weights come from, and the normalisation and padding that belong to them.

A specification is `imagenet` (timm's weights from the Hugging Face hub, kept in its cache), `isic2016` (the
encoder of the model that comes with the package, fine-tuned on lesions), `none`, or the path of a `.safetensors`
file in timm's key layout with a `.json` of the same name beside it:

    {"timm_model": "mobilenetv2_100", "create_model_kwargs": {"pad_type": "same"},
     "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "sha256": "…"}

Pickled weights (`.pth`, `.bin`) can run code when they are opened and are refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
from timm.models import adapt_input_conv
from torch import nn

from isic_smp.errors import UserError
from isic_smp.models import shipped
from isic_smp.models.encoder import BLOCK_KEY, TruncatedMobileNet
from isic_smp.models.families import encoder_name, has_same_twin, parse_encoder_name
from isic_smp.models.weights_file import Description, described_weights, read_tensors, sha256_of

_RGB = tuple[float, float, float]
_HUB_FILE = "model.safetensors"
_HUB_SECONDS = 5.0
_CHOICES = (
    f"encoder weights are imagenet, {shipped.NAME}, none, or a .safetensors file with its .json beside it"
)


@dataclass(frozen=True, eq=False)
class EncoderWeights:
    """Weights of a whole timm network and what a user of them must know."""

    state_dict: dict[str, torch.Tensor] | None
    """By timm's keys; None: the encoder starts from chance."""
    mean: _RGB
    """RGB mean that is subtracted from pixels in 0..1."""
    std: _RGB
    """RGB standard deviation that the difference is divided by."""
    same_padding: bool
    """Whether a network that timm pads symmetrically must be padded as TensorFlow does."""
    source: str
    """The hub repository, the file's name, "isic2016" or "none"."""
    sha256: str | None
    """Of the file; None without one."""


def resolve_encoder_weights(spec: str | Path | None, timm_name: str) -> EncoderWeights:
    """Find, check and read the weights for a timm network.

    Args:
        spec: "imagenet", "isic2016", "none" or None, or the path of a `.safetensors` file.
        timm_name: The network that they are for, e.g. "mobilenetv2_100".

    Raises:
        UserError: no such weights, they are for another network, they cannot be had without a network
            (within seconds), or the file is damaged, pickled, or without its `.json`.
    """
    if spec is None or spec == "none":
        return EncoderWeights(None, *_normalisation(timm_name), False, "none", None)
    if spec == "imagenet":
        return _from_hub(timm_name)
    if spec == shipped.NAME:
        return _described(*shipped.shipped_encoder(timm_name), source=shipped.NAME)
    return _from_file(Path(spec), timm_name)


def hub_repository(timm_name: str) -> str | None:
    """The Hugging Face repository of timm's default weights for a network, or None where timm has none."""
    config = timm.get_pretrained_cfg(timm_name)
    return config.hf_hub_id if config is not None else None


def load_encoder_weights(model_or_encoder: nn.Module, spec: str | Path | None) -> EncoderWeights:
    """Load weights into a truncated MobileNet, alone or as the encoder of any smp architecture.

    smp itself loads weights from the hub only; this is the way for a file.

    Args:
        model_or_encoder: A `TruncatedMobileNet`, or a model whose `encoder` is one.
        spec: As for `resolve_encoder_weights`.

    Returns:
        What was loaded. Inputs must be normalised with its `mean` and `std`.

    Raises:
        UserError: as `resolve_encoder_weights`, or the weights do not fit the encoder or its padding.

    Example:
        >>> model = smp.Unet("trunc-mobilenetv2_100-s4-same", encoder_weights=None, encoder_depth=4,
        ...                  decoder_channels=(128, 64, 32, 16))
        >>> weights = isic_smp.load_encoder_weights(model, "mobilenetv2_100.keras160_in1k.safetensors")
        >>> weights.mean
        (0.5, 0.5, 0.5)
    """
    encoder = getattr(model_or_encoder, "encoder", model_or_encoder)
    if not isinstance(encoder, TruncatedMobileNet):
        raise UserError(
            "expected a truncated MobileNet or a model that has one as its encoder, got "
            f"{type(encoder).__name__}: name an encoder trunc-<timm MobileNet>-s<stage>"
        )
    name = parse_encoder_name(encoder.encoder_name)
    weights = resolve_encoder_weights(spec, name.timm_name)
    if weights.state_dict is not None:
        twin = padded_for(encoder.encoder_name, weights)
        if twin != encoder.encoder_name:
            raise UserError(
                f"{weights.source} needs strided convolutions padded as TensorFlow does, but the encoder is "
                f"{encoder.encoder_name}: build the model with encoder_name={twin!r}"
            )
        fill(encoder, weights)
        remember = getattr(model_or_encoder, "set_normalisation", None)
        if remember is not None:  # UpConvNet; smp's own architectures have no place for it
            remember(weights.mean, weights.std)
    return weights


def padded_for(name: str, weights: EncoderWeights) -> str:
    """The encoder's name with the padding that `weights` need: itself, or its `-same` twin.

    Raises:
        UserError: a `-same` encoder was asked for, but the weights need timm's own padding.
    """
    asked = parse_encoder_name(name)
    plain = encoder_name(asked.timm_name, asked.cut)
    if weights.state_dict is None or asked.same_padding == weights.same_padding:
        return name
    if asked.same_padding:
        raise UserError(f"{weights.source} needs timm's own padding, got the encoder {name}: use {plain}")
    return encoder_name(asked.timm_name, asked.cut, same_padding=True)


def fill(encoder: TruncatedMobileNet, weights: EncoderWeights) -> None:
    """Copy `weights` into an encoder; the stem is adapted to its input channels as timm does.

    Raises:
        UserError: keys or shapes do not fit.
    """
    if weights.state_dict is None:
        return
    state_dict = dict(weights.state_dict)
    stages = [int(block[1]) for block in map(BLOCK_KEY.match, state_dict) if block]
    last = len(encoder.blocks) - 1
    if stages and max(stages) < last:
        timm_name = parse_encoder_name(encoder.encoder_name).timm_name
        raise UserError(
            f"{weights.source} ends with block stage {max(stages)}, but {encoder.encoder_name} goes on to {last}: "
            f"take a cut trunc-{timm_name}-s{max(stages)} or a shorter one"
        )
    stem = state_dict.get("conv_stem.weight")
    if stem is not None and stem.ndim == 4 and stem.shape[1] == len(weights.mean):
        state_dict["conv_stem.weight"] = adapt_input_conv(encoder.out_channels[0], stem)
    try:
        encoder.load_state_dict(state_dict)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{weights.source} does not fit {encoder.encoder_name}: {reason[:300]}; "
            "expected timm's keys and shapes"
        ) from None


def _from_hub(timm_name: str) -> EncoderWeights:
    repository = hub_repository(timm_name)
    if repository is None:
        raise UserError(f"timm has no imagenet weights for {timm_name}: take another network; {_CHOICES}")
    path = _cached_or_downloaded(repository)
    return EncoderWeights(read_tensors(path), *_normalisation(timm_name), False, repository, sha256_of(path))


def _cached_or_downloaded(repository: str) -> Path:
    """The weights' file in the hub's cache, put there first where need be."""
    # What the hub client raises differs between its versions and transports, so nothing narrower would do.
    try:
        return Path(hf_hub_download(repository, _HUB_FILE, local_files_only=True))
    except Exception:  # noqa: S110 - not in the cache: ask the hub
        pass
    try:
        # One request without retries: the download itself would retry for a minute where there is no network.
        get_hf_file_metadata(hf_hub_url(repository, _HUB_FILE), timeout=_HUB_SECONDS)
        return Path(hf_hub_download(repository, _HUB_FILE, etag_timeout=_HUB_SECONDS))
    except Exception as error:
        raise UserError(
            f"cannot get imagenet weights {repository} from the hub ({type(error).__name__}), and they "
            f"are not in its cache: {_CHOICES}"
        ) from None


def _from_file(path: Path, timm_name: str) -> EncoderWeights:
    if path.suffix.lower() != ".safetensors":
        pickled = "; pickled weights can run code and are refused" if path.suffix else ""
        raise UserError(f"encoder weights {str(path)!r} are none of the choices: {_CHOICES}{pickled}")
    if not path.is_file():
        raise UserError(f"no encoder weights {path}: expected an existing file; {_CHOICES}")
    about, state_dict = described_weights(path)
    if about.timm_name != timm_name:
        raise UserError(
            f"{path.name} holds weights of {about.timm_name}, expected {timm_name}: "
            f"take a cut of {about.timm_name}"
        )
    return _described(about, state_dict, source=path.name)


def _described(about: Description, state_dict: dict[str, torch.Tensor], *, source: str) -> EncoderWeights:
    same_padding = about.pads_as_tensorflow and has_same_twin(about.timm_name)
    return EncoderWeights(state_dict, about.mean, about.std, same_padding, source, about.sha256)


def _normalisation(timm_name: str) -> tuple[_RGB, _RGB]:
    """Mean and standard deviation that timm's default weights of a network were trained with."""
    config = timm.get_pretrained_cfg(timm_name)
    assert config is not None, f"timm knows no {timm_name}"
    return _rgb(config.mean), _rgb(config.std)


def _rgb(values: Sequence[float]) -> _RGB:
    red, green, blue = values
    return red, green, blue
