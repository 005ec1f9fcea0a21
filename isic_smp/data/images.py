"""One file to one array: any picture to 8-bit RGB, any mask to zeros and ones, and one-line refusals."""

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from isic_smp.errors import UserError

MAX_PIXELS = 89_000_000
"""Largest picture that is decoded; just below the size at which Pillow warns of a decompression bomb."""

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What is decoded. Pillow knows more, some of it by starting other programs (EPS)."""

_UNKNOWN = f"empty, or not in a format that is read ({', '.join(FORMATS)})"

OFFICIAL_THRESHOLD = 128
"""The official scorer takes mask values above this as lesion."""


def read_image(path: Path) -> np.ndarray:
    """The picture in `path` as uint8 RGB, shape (H, W, 3), turned as its EXIF orientation says.

    Grey, palette, CMYK and 16-bit pictures are converted, 16-bit ones by their whole range (65535 is
    255). Transparent pixels are laid over black, the colour around a dermoscope's field of view, which
    networks know from their training images. Of an animation the first frame is taken.

    Raises:
        UserError: no such file, not a picture, truncated, over `MAX_PIXELS`, or floating-point pixels.
    """
    try:
        with open_file(path) as stream:
            return decode_image(stream, str(path))
    except OSError as error:
        raise UserError(f"cannot read the image {path}: {error.strerror or error}") from None


def read_mask(path: Path, *, binarize: bool = False) -> np.ndarray:
    """The lesion mask in `path` as uint8, shape (H, W): 1 is lesion, 0 is skin.

    On disk, lesion is 255, or 1, or in a 16-bit file 65535 as well.

    Args:
        path: an image file with one channel, or with equal ones.
        binarize: take a mask that holds grey values, with values above 128 (of 255) as lesion, as the
            official scorer does (isic-challenge-scoring).

    Raises:
        UserError: as `read_image`; or coloured; or with grey values while `binarize` is off, or of which
            none is above the threshold, as where a label file has its lesions as 2.
    """
    try:
        with open_file(path) as stream:
            values = _one_channel(_open(stream, str(path)), str(path))
    except OSError as error:
        raise UserError(f"cannot read the mask {path}: {error.strerror or error}") from None
    peak = int(values.max())
    # A deep file may hold what was an 8-bit mask.
    top = 255 if peak <= 255 else np.iinfo(values.dtype).max
    lesion = 1 if peak <= 1 else top
    grey = np.count_nonzero((values != 0) & (values != lesion))
    if not grey:
        return (values != 0).astype(np.uint8)
    threshold = OFFICIAL_THRESHOLD * (top // 255)
    if not binarize:
        # The option is no way out where it would leave no lesion.
        way_out = (
            f"--binarize-masks takes values above {OFFICIAL_THRESHOLD} as lesion"
            if peak > threshold
            else "rewrite it as 0 and 255"
        )
        raise UserError(
            f"the mask {path} holds {grey} grey pixels of {values.size}, values up to {peak}: "
            f"expected only 0 and {top}; {way_out}"
        )
    if peak <= threshold:
        raise UserError(
            f"the mask {path} holds values up to {peak}: --binarize-masks takes those above {threshold} as "
            "lesion and would leave no lesion; rewrite it as 0 and 255"
        )
    return (values > threshold).astype(np.uint8)


def open_file(path: Path) -> BinaryIO:
    """`path`, opened to be read.

    Raises:
        OSError: there is no such file, or it is a pipe or a device, which may never end or never begin.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError("it is a pipe or a device, not a file")
    return path.open("rb")


def frame_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels, from the head of the file alone and as the file has them, upright or not.

    Raises:
        UserError: no such file, or not a picture.
    """
    try:
        with open_file(path) as stream, Image.open(stream, formats=FORMATS) as image:
            return image.size
    except Exception as error:  # Pillow raises whatever a broken file makes it stumble over
        reason = _UNKNOWN if isinstance(error, Image.UnidentifiedImageError) else _one_line(error)
        raise UserError(f"cannot read the size of the image {path}: {reason}") from None


def decode_image(stream: BinaryIO, name: str) -> np.ndarray:
    """As `read_image`, from an open binary stream; `name` stands for it in error messages."""
    return _rgb(_open(stream, name), name)


def convert_image(image: Image.Image, name: str) -> np.ndarray:
    """As `read_image`, from an opened picture, which stays as it is."""
    return _rgb(_upright(lambda: image, name, in_place=False), name)


def _open(stream: BinaryIO, name: str) -> Image.Image:
    return _upright(lambda: Image.open(stream, formats=FORMATS), name)


def _upright(opened: Callable[[], Image.Image], name: str, *, in_place: bool = True) -> Image.Image:
    """The decoded, upright picture, in its own mode."""
    try:
        image = opened()
        width, height = image.size
        if width * height <= MAX_PIXELS:
            image.load()
            if not in_place:
                return ImageOps.exif_transpose(image)
            ImageOps.exif_transpose(image, in_place=True)
            return image
    except Image.DecompressionBombError as error:
        raise UserError(f"the file {name} is refused: {error}") from None
    except Exception as error:  # Pillow's decoders raise whatever a broken file makes them stumble over
        reason = _UNKNOWN if isinstance(error, Image.UnidentifiedImageError) else _one_line(error)
        raise UserError(f"the file {name} cannot be decoded as an image: {reason}") from None
    raise UserError(
        f"the file {name} is refused: {width} × {height} pixels are more than the "
        f"{MAX_PIXELS // 10**6} million that are decoded; scale it down first"
    )


def _rgb(image: Image.Image, name: str) -> np.ndarray:
    if image.mode.startswith(("I", "F")):
        return np.repeat(_sixteen_bit(image, name)[..., None] >> 8, 3, axis=-1).astype(np.uint8)
    return np.array(_over_black(image, name))


def _over_black(image: Image.Image, name: str) -> Image.Image:
    """As RGB, transparency laid over black."""
    try:
        if ("A" in image.mode.upper() and image.mode != "LAB") or "transparency" in image.info:
            image = image.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image).convert("RGB")
        return image.convert("RGB")
    except (ValueError, OSError) as error:
        raise UserError(f"the file {name} cannot be converted to RGB: {_one_line(error)}") from None


def _one_channel(image: Image.Image, name: str) -> np.ndarray:
    """A mask's values, (H, W), uint8 or uint16."""
    if image.mode.startswith(("I", "F")):
        return _sixteen_bit(image, name)
    if image.mode in ("1", "L") and "transparency" not in image.info:
        return np.array(image.convert("L"))
    rgb = np.array(_over_black(image, name))
    if not rgb.any():
        alpha = np.array(image.convert("RGBA").getchannel("A"))
        if alpha.min() != alpha.max():
            raise UserError(
                f"the mask {name} is black all over, and only its transparency differs: expected a black-and-white image; "
                "rewrite it as 0 and 255"
            )
    if (rgb != rgb[..., :1]).any():
        raise UserError(f"the mask {name} is coloured ({image.mode}): expected a black-and-white image")
    return rgb[..., 0]


def _sixteen_bit(image: Image.Image, name: str) -> np.ndarray:
    """Pixels of a deep grey picture as uint16, (H, W)."""
    values = np.array(image)
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 0xFFFF:
        raise UserError(
            f"the file {name} holds {image.mode} pixels from {values.min()} to {values.max()}: "
            "expected 8 or 16-bit ones"
        )
    return values.astype(np.uint16)


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
