"""The smallest run that is a whole one: a network of 20,000 weights, on a few drawn pictures."""

from pathlib import Path

import yaml

SETTINGS = {
    "recipe": "report",
    "encoder": "trunc-mobilenetv2_035-s2",
    "encoder_weights": "none",
    "decoder_channels": [8, 8, 8],
    "size": 32,
    "batch_size": 8,
    "epochs": 2,
}


def write_recipe(file: Path, **changes: object) -> None:
    """The recipe, with settings changed or added."""
    file.write_text(yaml.safe_dump({**SETTINGS, **changes}, sort_keys=False))


def draw_pictures(folder: Path, *, train: int = 24) -> None:
    """`train` pictures to train on, 6 to validate on and 6 to test on."""
    from isic_smp.data.synthetic import make_synthetic

    make_synthetic(folder, train=train, val=6, test=6, size=64)
