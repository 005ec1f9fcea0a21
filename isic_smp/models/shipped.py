"""The trained model that comes with the package: where it lies, and its encoder as a choice of weights.

`pretrained/isic2016` is a saved model folder like any other (`inference/load.py`), its kernels in 16 bits, with
its model card beside them.
"""

import json
from importlib import resources
from pathlib import Path

import torch

from isic_smp.errors import UserError
from isic_smp.models.families import parse_encoder_name
from isic_smp.models.weights_file import Description, read_tensors, sha256_of

NAME = "isic2016"
"""What the shipped model is called where a model or encoder weights are asked for."""

_ENCODER = "encoder."


def shipped_folder() -> Path:
    """The saved model folder."""
    return Path(str(resources.files("isic_smp") / "pretrained" / NAME))


def shipped_data() -> dict[str, str]:
    """`name`, `fingerprint` and `description` of the pictures that it was trained on."""
    return json.loads((shipped_folder() / "isic_smp.json").read_text(encoding="utf-8"))["info"]["data"]


def shipped_encoder(timm_name: str) -> tuple[Description, dict[str, torch.Tensor]]:
    """The shipped model's encoder, fine-tuned on lesions, as weights of a timm network.

    Args:
        timm_name: The network that they are wanted for.

    Returns:
        What must be known of them, and float32 tensors by timm's keys, up to the block stage that is kept.

    Raises:
        UserError: they are of another network.
    """
    folder = shipped_folder()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    encoder = parse_encoder_name(config["encoder_name"])
    if timm_name != encoder.timm_name:
        raise UserError(
            f"the encoder weights {NAME} are of {encoder.timm_name}, cut after block stage {encoder.cut}, "
            f"expected {timm_name}: take an encoder trunc-{encoder.timm_name}-s{encoder.cut} or a shorter cut"
        )
    weights = folder / "model.safetensors"
    tensors = {
        key.removeprefix(_ENCODER): value.float() if value.is_floating_point() else value
        for key, value in read_tensors(weights).items()
        if key.startswith(_ENCODER)
    }
    about = Description(
        timm_name, encoder.same_padding, tuple(config["mean"]), tuple(config["std"]), sha256_of(weights)
    )
    return about, tensors
