"""Importing this module registers the encoders and `UpConvNet` with segmentation-models-pytorch (smp).

    import isic_smp.plugin
    import segmentation_models_pytorch as smp

    smp.Unet("trunc-mobilenetv2_100-s4", encoder_depth=4, decoder_channels=(128, 64, 32, 16))
    smp.create_model("upconvnet", encoder_name="trunc-mobilenetv2_100-s4")

Only smp's registries are touched. smp's own architectures load `encoder_weights="imagenet"` from timm's
repositories on the Hugging Face hub; `isic_smp.load_encoder_weights` loads a file into any of them.
"""

from typing import Any

import segmentation_models_pytorch as smp

from isic_smp.models.encoder import TruncatedMobileNet
from isic_smp.models.families import EncoderName, all_encoder_names, parse_encoder_name
from isic_smp.models.upconvnet import UpConvNet
from isic_smp.models.weights import hub_repository


def register() -> None:
    """Put the encoders and the architecture into smp's registries; a second call changes nothing."""
    for name in all_encoder_names():
        smp.encoders.encoders[name] = _entry(parse_encoder_name(name))
    smp.MODEL_ARCHITECTURES_MAPPING["upconvnet"] = UpConvNet
    smp.UpConvNet = UpConvNet  # where smp.from_pretrained looks a class up


def _entry(name: EncoderName) -> dict[str, Any]:
    """What smp's registry holds of an encoder."""
    # timm's hub weights of these networks were trained with timm's own padding, not the twin's.
    repository = None if name.same_padding else hub_repository(name.timm_name)
    return {
        "encoder": TruncatedMobileNet,
        "params": {"timm_name": name.timm_name, "cut": name.cut, "same_padding": name.same_padding},
        "pretrained_settings": (
            {"imagenet": {"repo_id": repository, "revision": "main"}} if repository is not None else {}
        ),
    }


register()
