"""Every setting of an experiment in one typed, frozen dataclass, and the named presets.

The command line, the MLflow parameters, the sweeps' search spaces and the YAML files are all made
from `Recipe`'s fields, so a setting exists exactly once. This module imports neither torch nor smp:
a command's `--help` must answer at once.
"""

import argparse
import dataclasses
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from isic_smp.errors import UserError
from isic_smp.training.recipe_check import AUGMENTATIONS, problems
from isic_smp.training.recipe_values import brief, converted, fits, type_name

Loss = Literal["bce", "dice", "jaccard", "bce_dice", "focal", "lovasz", "tversky"]
Optimizer = Literal["adam", "adamw", "sgd"]
Schedule = Literal["constant", "cosine", "onecycle"]
Precision = Literal["float32", "bf16", "auto"]
Keep = Literal["last", "best"]
Bank = Literal["auto", "on", "off"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that decides what is trained and how. Two equal recipes on the same data and machine give equal weights.

    A field's default is what was done before there was such a field, since checkpoints and studies of older releases
    lack it (`completed`); what is done now stands in `PRESETS`.
    """

    # --- the network
    encoder: str = "trunc-mobilenetv2_100-s4"
    """Encoder name: trunc-<timm MobileNet>-s<last block stage kept>."""
    encoder_weights: str = "imagenet"
    """imagenet (downloaded once by timm), isic2016 (the package's own, fine-tuned on lesions), none, or a .safetensors file with its .json beside it."""
    init_from: str | None = None
    """A trained model to go on from, encoder and decoder: an output folder, a run id, runs:/ID or models:/NAME@ALIAS.
    Its weights, normalisation and padding take the place of `encoder_weights`."""
    encoder_depth: int | None = None
    """How many halvings of the encoder are used. Default: all that the cut has."""
    decoder_depth: int | None = None
    """How many [transposed convolution, convolution, ReLU] steps; what is left is bilinear. Default: all."""
    decoder_channels: tuple[int, ...] | None = None
    """Channels of each decoder step, coarse to fine. Default: by depth, times decoder_width."""
    decoder_width: float = 1.0
    """Width of the decoder where its channels are not given: 1 is 128, 64, 32 and 16 from stride 8 to the image's own."""
    decoder_norm: bool = True
    """BatchNorm in the decoder."""
    decoder_context: bool = False
    """Let the decoder look over the encoder's coarsest map as a whole first."""
    skip_connections: bool = True
    """Hand the encoder's finer maps to the decoder, as a U-Net does."""

    # --- what is trained
    freeze: bool = False
    """Train the decoder only; the encoder keeps its weights and its BatchNorm statistics."""
    freeze_epochs: int = 0
    """Gradual unfreezing: the encoder is frozen for this many first epochs."""

    # --- the pictures
    size: int = 128
    """Side of the square, in pixels, that images are resized to."""
    flips: bool = True
    """Augment by the eight flips and quarter turns."""
    affine: float = 0.5
    """Strength of random scale, shift, rotation and shear, 0 (off) to 1."""
    colour: float = 0.5
    """Strength of random brightness, contrast, hue, saturation and colour cast, 0 (off) to 1."""
    tones: float = 0.0
    """Strength of random tone curves, most of which darken, 0 (off) to 1."""
    artefacts: float = 0.0
    """How often hairs, rulers, bubbles, stickers, uneven light, a dark rim, blur or noise are laid over an image,
    0 (never) to 1."""
    sharp_views: bool = False
    """Take the random views that zoom in from pictures of twice the size, so that they are as sharp as a second look."""
    pipeline: str | None = None
    """A file of albumentations transforms (JSON or YAML, made by its `save`), applied after the others."""
    teachers: tuple[str, ...] | None = None
    """Trained models, named as in `init_from`; what they see in the training images, all eight views averaged, is half of
    what is learned, the masks the other half."""

    # --- the optimisation
    epochs: int = 25
    """Passes over the training images."""
    batch_size: int = 32
    """Images a step, over all processes together."""
    loss: Loss = "bce_dice"
    """Loss on the logits."""
    optimizer: Optimizer = "adamw"
    """Update rule, from torch.optim."""
    lr: float = 3e-3
    """Learning rate (the highest one, where a schedule moves it)."""
    encoder_lr: float | None = None
    """Learning rate of the encoder. Default: the same as lr."""
    weight_decay: float = 1e-2
    """Weight decay."""
    schedule: Schedule = "onecycle"
    """Course of the learning rate over the run, step by step."""
    grad_clip: float = 1.0
    """Largest gradient norm; 0 turns clipping off."""
    ema: float = 0.0
    """Decay of an exponential moving average of the weights, which is then what is evaluated; 0 is off."""
    plain_statistics: float = 0.0
    """After training, measure BatchNorm's statistics anew, for the weights that are kept, this share of them on
    training images that are not augmented, 0 to 1. 0, or no augmentation beyond flips, leaves the running ones."""
    early_stopping: int = 0
    """Stop after this many epochs without a better validation IoU; 0 is off."""
    keep: Keep = "best"
    """Which weights are kept: of the best epoch by validation IoU, or of the last."""

    # --- arithmetic and chance
    precision: Precision = "auto"
    """auto takes bf16 where the processor or GPU computes it natively."""
    channels_last: bool = True
    """Memory layout that convolutions are faster in."""
    compile: bool = False
    """torch.compile the network; pays for itself in long runs only."""
    feature_bank: Bank = "auto"
    """Compute a frozen encoder's features once and train from them; auto does so where the recipe allows it."""
    seed: int = 0
    """Seed of weights, order, and augmentation."""

    # --- what a prediction is
    threshold: float = 0.5
    """A pixel is lesion where its probability is above this."""
    test_time_flips: bool = False
    """Average the prediction over the eight flips and quarter turns."""
    second_look: bool = False
    """Look at the part around the lesion once more, enlarged: one more pass, unless the lesion fills the frame."""
    raise_contrast: bool = False
    """Give lesions as faint as the faintest tenth in training more contrast for the second look."""
    largest_piece: bool = False
    """Keep the largest connected piece of each mask alone: a dermoscopy picture is taken of one lesion."""
    close_bays: bool = False
    """Close holes of each mask, and bays of its outline that are narrow for the lesion, as experts draw."""
    wrap_faint: bool = False
    """Draw the masks of lesions that are as faint as the faintest fifth in training around all of them, as experts do."""

    def __post_init__(self) -> None:
        found = problems(self)
        if found:
            raise UserError("impossible recipe: " + "; ".join(found))

    @property
    def makes_new_pixels(self) -> bool:
        """Whether training pictures are augmented beyond flips and turns, so that no two epochs see the same pixels."""
        return any(getattr(self, name) for name in AUGMENTATIONS) or bool(self.pipeline)

    @property
    def takes_finer_pixels(self) -> bool:
        """Whether training pictures are kept larger than the network takes them; without `affine` nothing zooms in."""
        return self.sharp_views and self.affine > 0

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON or YAML values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any], base: "Recipe | None" = None) -> "Recipe":
        """A recipe from `base` (default: the `default` preset) and `settings`.

        Where they give the decoder's channels and not its depth, their number is the depth.

        Raises:
            UserError: unknown names, wrong types or impossible values, all said at once.
        """
        known = typing.get_type_hints(cls)
        unknown = [f"unknown setting {brief(name)}" for name in settings if name not in known]
        wrong = [
            f"{name} must be {type_name(known[name])}, got {brief(value)}"
            for name, value in settings.items()
            if name in known and not fits(value, known[name])
        ]
        if unknown or wrong:
            hint = f" (settings are: {', '.join(known)})" if unknown else ""
            raise UserError("bad recipe: " + "; ".join(unknown + wrong) + hint)
        values = {name: converted(value, known[name]) for name, value in settings.items()}
        if values.get("decoder_channels") and "decoder_depth" not in values:
            values["decoder_depth"] = len(values["decoder_channels"])
        return dataclasses.replace(base or PRESETS["default"], **values)


def completed(saved: Mapping[str, Any]) -> dict[str, Any]:
    """The plain settings that some release saved; those that it did not know yet at their fields' defaults."""
    return Recipe().to_dict() | dict(saved)


def differences(saved: Mapping[str, Any], recipe: Recipe) -> list[tuple[str, Any, Any]]:
    """(setting, value there, value here) for each setting in which `recipe` is not the one that some release saved.

    One that this release does not know is "no such setting" here.
    """
    there, here = completed(saved), recipe.to_dict()
    return [
        (name, value, here.get(name, "no such setting"))
        for name, value in sorted(there.items())
        if name not in here or here[name] != value
    ]


def load_recipe(name_or_file: str) -> Recipe:
    """A preset by name, or a YAML file of settings over a preset (its key `recipe`, default `default`).

    Raises:
        UserError: no such preset or file, or a file that does not hold settings.
    """
    base, settings = _preset_and_settings(name_or_file)
    return Recipe.from_dict(settings, base)


def recipe_of_command(argv: Sequence[str] | None) -> tuple[str, Recipe]:
    """What a command's `--recipe` names, and that recipe, for its other options to change.

    Where they give the decoder's channels and not its depth, their number is the depth, as in a file.

    Args:
        argv: the command's words; None: this process's own.

    Raises:
        UserError: as of `load_recipe`; or an option that lacks its value.
    """
    words = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    words.add_argument("--recipe", default="default")
    words.add_argument("--decoder-channels", "--decoder_channels", nargs="*", default=[])
    words.add_argument("--decoder-depth", "--decoder_depth")
    try:
        given, _ = words.parse_known_args(argv)
    except argparse.ArgumentError as error:  # argparse's own end would show a usage that is not the command's
        raise UserError(f"{error}; --help shows all options") from None
    recipe = load_recipe(given.recipe)
    count = len(given.decoder_channels)
    if count and given.decoder_channels != ["None"] and given.decoder_depth is None:
        try:
            recipe = dataclasses.replace(recipe, decoder_channels=None, decoder_depth=count)
        except UserError:  # too deep for this recipe's encoder, but the command may name another
            recipe = dataclasses.replace(recipe, decoder_channels=None, decoder_depth=None)
    return given.recipe, recipe


def base_preset(name_or_file: str) -> Recipe:
    """The preset that `load_recipe` starts from: itself, or the one that the file builds on.

    Raises:
        UserError: as of `load_recipe`.
    """
    return _preset_and_settings(name_or_file)[0]


def _preset_and_settings(name_or_file: str) -> tuple[Recipe, dict[Any, Any]]:
    if name_or_file in PRESETS:
        return PRESETS[name_or_file], {}
    path = Path(name_or_file)
    if path.suffix.lower() not in {".yaml", ".yml"} or not path.is_file():
        raise UserError(
            f"no recipe {name_or_file!r}: expected one of {', '.join(PRESETS)}, or an existing .yaml file of settings"
        )
    from isic_smp.training.settings_file import read_settings

    settings = read_settings(path, "recipe")
    base = settings.pop("recipe", "default")
    if not isinstance(base, str) or base not in PRESETS:
        raise UserError(f"the recipe {path} builds on {brief(base)}: expected one of {', '.join(PRESETS)}")
    return PRESETS[base], settings


_DEFAULT = Recipe(
    decoder_depth=2,  # as good as all four for two thirds of the sums
    decoder_width=0.75,
    decoder_context=True,
    affine=1.0,
    colour=1.0,
    tones=1.0,  # the training images show no dark skin, and other people's do
    artefacts=1.0,
    sharp_views=True,  # a second look is sharp, so training pictures have to be
    encoder_lr=7.5e-4,  # pretrained weights need smaller steps than a decoder that starts from nothing
    epochs=100,  # under such augmentation 50 are too few: pictures unlike the training ones gain most by more
    ema=0.99,
    plain_statistics=0.5,
    keep="last",  # the schedule and the average end well; the best of 100 epochs on 90 images is mostly luck
    second_look=True,  # as much as averaging the flips, for one more pass in place of seven
    raise_contrast=True,  # half of the masks that fail are of faint lesions, and other people's may be fainter
    largest_piece=True,
    close_bays=True,
    wrap_faint=True,  # experts draw what they can hardly see with a round outline
)

PRESETS: dict[str, Recipe] = {
    # What the report describes, to the letter; it names no normalisation layers in its decoder.
    "report": Recipe(
        skip_connections=False,
        decoder_norm=False,
        flips=False,
        affine=0.0,
        colour=0.0,
        size=128,
        batch_size=32,
        epochs=25,
        loss="bce",
        optimizer="adam",
        lr=1e-3,
        weight_decay=0.0,
        schedule="constant",
        grad_clip=0.0,
        keep="last",
        precision="float32",
    ),
    # What docs/recipe.md found: strong augmentation and context for pictures unlike the training ones.
    "default": _DEFAULT,
    # The least that is still useful, under 0.3 M parameters.
    "small": dataclasses.replace(
        _DEFAULT,
        encoder="trunc-mobilenetv2_100-s3",
        decoder_depth=None,
        decoder_channels=(32, 24, 16, 12),
        decoder_context=False,
    ),
}
