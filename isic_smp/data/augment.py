"""Random views of training images: flips and quarter turns, affine warps, colour, tones.

A view depends on (seed, epoch, sample id) alone. The eight flips and quarter turns (the dihedral group
of the square) stand apart from the rest, because a feature bank can hold all eight.

Every image costs one `cv2.warpAffine` for image and mask together and one `cv2.transform`: all colour
changes here are affine maps of RGB, so any chain of them is a single 3 × 3 matrix with an offset. Tones, which
are no such maps, cost one `cv2.LUT`.

A view that zooms in shows fewer pixels than the network takes, and a second look (`inference/second_look.py`)
does not: so the warp can be given finer pictures, and views that zoom in are then as sharp as such a look.
"""

import cv2
import numpy as np

from isic_smp.data.artefacts import add_artefacts
from isic_smp.data.draws import uniforms
from isic_smp.data.pipeline import SavedPipeline

# Purposes of draws: any numbers, as long as they differ.
_DIHEDRAL, _AFFINE, _COLOUR, _ARTEFACTS, _TONES = 1, 2, 3, 4, 9
_TURNS = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}

# Greatest change at strength 1; of factors the logarithm, so that halving is as likely as doubling.
_ROTATION = np.pi / 4  # with the quarter turns, every angle
_LOG_SCALE = 0.5
_LOG_ASPECT = 0.2  # pictures are squashed to a square from differing aspect ratios
_SHEAR = 0.2
_SHIFT = 0.15  # of the side
_LOG_BRIGHTNESS = 0.25
_LOG_CONTRAST = 0.35
_LOG_SATURATION = 0.4
_HUE = 0.2  # radians about the grey axis
_LOG_CAST = 0.08  # of each channel's gain: white balance and colour of the light
_LOG_GAMMA = (-0.42, 0.98)  # mostly above 0, which darkens: the training images show no dark skin
_TONED = 0.5  # share of the views

# A view whose pixels are smaller than this, in pixels of its size, is taken from the finer ones.
_ZOOMS_IN = 0.8


def dihedral_codes(sample_ids: np.ndarray, *, seed: int, epoch: int) -> np.ndarray:
    """Which of the eight views each of the (B,) samples shows in `epoch`: int64 (B,), 0 to 7.

    A sample passes through all eight, in a random order of its own, within epochs 0 to 7, again within
    8 to 15, and so on.
    """
    keys = uniforms(sample_ids, 8, seed=seed, epoch=epoch // 8, purpose=_DIHEDRAL)
    return np.argsort(keys, axis=1)[:, epoch % 8]


def apply_dihedral(batch: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Flip and turn each square of a batch as its code (B,) says; a new array of the same shape.

    The batch is uint8 or float32, (B, S, S) or (B, S, S, C) with up to 4 channels. Code c turns by
    (c mod 4) quarter turns anticlockwise, after a left-right flip where c ≥ 4; 0 changes nothing.
    """
    turned = np.empty_like(batch)
    for i, code in enumerate(codes.tolist()):  # OpenCV's loops are 20 times faster than numpy's rot90 here
        square = cv2.flip(batch[i], 1) if code >= 4 else batch[i]
        turned[i] = cv2.rotate(square, _TURNS[code % 4]) if code % 4 else square
    return turned


class Augmenter:
    """Draws a random view of each training image and its mask.

    Args:
        flips: the eight flips and quarter turns.
        affine: strength of scale, aspect, shear, rotation and shift, 0 (off) to 1. What a warp brings in
            from outside the frame is the frame's mirror image, in image and mask alike.
        colour: strength of brightness, contrast, saturation, hue and colour cast, 0 (off) to 1.
        tones: strength of tone curves, 0 (off) to 1: half of the views are raised to a power, black and white staying
            where they are, so that middle tones become as dark as on dark skin, or lighter.
        artefacts: how often hairs, rulers, bubbles, stickers, uneven light, a dark rim, blur or noise are
            laid over an image (`data/artefacts.py`), 0 (never) to 1.
        pipeline: a person's own transforms, applied last.
        finer: the pictures given have so many times the views' pixels along each side; more than 1 needs `affine`.
    """

    def __init__(
        self,
        *,
        flips: bool,
        affine: float,
        colour: float,
        tones: float = 0.0,
        artefacts: float = 0.0,
        pipeline: SavedPipeline | None = None,
        finer: int = 1,
    ) -> None:
        strengths = {"affine": affine, "colour": colour, "tones": tones, "artefacts": artefacts}
        for name, strength in strengths.items():
            if not 0 <= strength <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {strength}")
        if finer < 1 or (finer > 1 and not affine):
            raise ValueError(f"finer must be 1, or with affine a whole number above, got {finer}")
        self.flips, self.affine, self.colour, self.tones = flips, affine, colour, tones
        self.artefacts, self.pipeline, self.finer = artefacts, pipeline, finer

    def apply(
        self,
        images: np.ndarray,
        masks: np.ndarray,
        *,
        sample_ids: np.ndarray,
        seed: int,
        epoch: int,
        levels: int = 1,
    ) -> tuple[np.ndarray, np.ndarray]:
        """New images, uint8 (B, S, S, 3), and masks, uint8 (B, S, S).

        Args:
            images: RGB, uint8 (B, F S, F S, 3), where F is `finer`.
            masks: uint8 (B, F S, F S) of 0 and 1, or with `levels` 255 of shares of lesion; so are the masks returned.
            sample_ids: whole numbers (B,); with `seed` and `epoch` they alone decide the view.
            seed: the run's seed.
            epoch: counted from 0.
            levels: what certain lesion counts in the masks, 1 or 255.
        """
        if (
            images.shape != (*masks.shape, 3)
            or len(sample_ids) != len(images)
            or images.shape[1] % self.finer
        ):
            raise ValueError(
                f"got images {images.shape}, masks {masks.shape} and {len(sample_ids)} sample ids"
            )
        if self.flips:
            codes = dihedral_codes(sample_ids, seed=seed, epoch=epoch)
            images, masks = apply_dihedral(images, codes), apply_dihedral(masks, codes)
        if self.affine:
            draws = uniforms(sample_ids, 7, seed=seed, epoch=epoch, purpose=_AFFINE)
            maps = _affine_maps(draws * 2 - 1, self.affine, images.shape[1] // self.finer)
            images, masks = _warp(images, masks, maps, levels, self.finer)
        if self.colour:
            draws = uniforms(sample_ids, 7, seed=seed, epoch=epoch, purpose=_COLOUR)
            images = _recolour(images, draws * 2 - 1, self.colour)
        if self.tones:
            draws = uniforms(sample_ids, 2, seed=seed, epoch=epoch, purpose=_TONES)
            images = _retone(images, draws, self.tones)
        if self.artefacts:
            some = [
                add_artefacts(
                    image,
                    mask,
                    np.random.default_rng([seed, _ARTEFACTS, epoch, int(sample)]),
                    strength=self.artefacts,
                )
                for image, mask, sample in zip(images, masks, sample_ids, strict=True)
            ]
            images, masks = (np.stack(parts) for parts in zip(*some, strict=True))
        if self.pipeline is not None:
            images, masks = self.pipeline.apply(
                images, masks, sample_ids=sample_ids, seed=seed, epoch=epoch, levels=levels
            )
        return images, masks


def _affine_maps(draws: np.ndarray, strength: float, size: int) -> np.ndarray:
    """Maps (B, 2, 3) from a pixel (x, y) of the result to the source, from draws (B, 7) in [-1, 1)."""
    rotation, log_scale, log_aspect, shear_x, shear_y, shift_x, shift_y = (strength * draws).T
    scale, aspect = np.exp(_LOG_SCALE * log_scale), np.exp(_LOG_ASPECT / 2 * log_aspect)
    cosine, sine = np.cos(_ROTATION * rotation), np.sin(_ROTATION * rotation)
    ones = np.ones_like(scale)
    turn = np.array([[cosine, -sine], [sine, cosine]]).transpose(2, 0, 1)
    shear = np.array([[ones, _SHEAR * shear_x], [_SHEAR * shear_y, ones]]).transpose(2, 0, 1)
    stretch = np.array([scale * aspect, scale / aspect]).T[:, None, :]
    linear = turn @ shear * stretch
    centre = np.full(2, (size - 1) / 2)  # OpenCV counts from the centre of the first pixel
    shift = _SHIFT * size * np.array([shift_x, shift_y]).T
    return np.concatenate([linear, (centre + shift - linear @ centre)[..., None]], axis=2)


def _warp(
    images: np.ndarray, masks: np.ndarray, maps: np.ndarray, levels: int, finer: int
) -> tuple[np.ndarray, np.ndarray]:
    """Resample images and masks bilinearly; of masks of 0 and 1, a pixel is lesion where at least half of it is.

    Where images are `finer`, each view is sampled from whichever of them and their means over `finer` × `finer` pixels
    has pixels more like its own: sampled from too fine ones it would flicker, from too coarse ones be blurred.
    """
    side = images.shape[1]
    size = side // finer
    warped = np.empty((len(images), size, size, 3), np.uint8)
    lesion = np.empty((len(images), size, size), np.uint8)
    both = np.empty((side, side, 4), np.uint8)
    coarse, moved = np.empty((2, size, size, 4), np.uint8)
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    zooms_in = np.sqrt(np.abs(np.linalg.det(maps[:, :, :2]))) < _ZOOMS_IN
    for i in range(len(images)):  # as a fourth channel, the mask cannot but move with its image
        cv2.cvtColor(images[i], cv2.COLOR_RGB2RGBA, dst=both)
        cv2.insertChannel(masks[i] * np.uint8(255 // levels), both, 3)
        source, there = both, maps[i]
        if finer > 1 and zooms_in[i]:
            there = finer * there
            there[:, 2] += (finer - 1) / 2  # the first coarse pixel's middle lies between fine pixels
        elif finer > 1:
            source = coarse
            cv2.resize(both, dsize=(size, size), dst=source, interpolation=cv2.INTER_AREA)
        cv2.warpAffine(source, there, (size, size), dst=moved, flags=how, borderMode=cv2.BORDER_REFLECT_101)
        cv2.cvtColor(moved, cv2.COLOR_RGBA2RGB, dst=warped[i])
        cv2.extractChannel(moved, 3, dst=lesion[i])
    return warped, lesion if levels > 1 else (lesion >= 128).astype(np.uint8)


def _recolour(images: np.ndarray, draws: np.ndarray, strength: float) -> np.ndarray:
    """Change each image's colours by one affine map of RGB, from draws (B, 7) in [-1, 1)."""
    brightness, contrast, saturation, hue, *cast = (strength * draws).T
    gain = np.exp(_LOG_BRIGHTNESS * brightness + _LOG_CAST * np.array(cast))  # (3, B)
    # Along the grey axis colours stay; across it they are turned (hue) and drawn in or out (saturation).
    grey = np.full((3, 3), 1 / 3)
    across = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    cosine, sine = np.cos(_HUE * hue)[:, None, None], np.sin(_HUE * hue)[:, None, None]
    turn = cosine * (np.eye(3) - grey) + sine * across
    matrix = gain.T[:, :, None] * (grey + np.exp(_LOG_SATURATION * saturation)[:, None, None] * turn)
    # Contrast pivots on the image's own mean colour, so it does not change brightness.
    factor = np.exp(_LOG_CONTRAST * contrast)[:, None]
    means = np.array([cv2.mean(image)[:3] for image in images])
    offset = (1 - factor) * np.einsum("bij,bj->bi", matrix, means)
    maps = np.concatenate([factor[..., None] * matrix, offset[..., None]], axis=2)
    changed = np.empty_like(images)
    for image, colour_map, result in zip(images, maps, changed, strict=True):
        cv2.transform(image, colour_map, dst=result)
    return changed


def _retone(images: np.ndarray, draws: np.ndarray, strength: float) -> np.ndarray:
    """Raise pixels, as shares of white, to a power that is drawn for each image, from draws (B, 2) in [0, 1)."""
    low, high = _LOG_GAMMA
    levels = np.arange(256) / 255
    changed = np.empty_like(images)
    for image, (height, chance), result in zip(images, draws.tolist(), changed, strict=True):
        gamma = np.exp(strength * (low + (high - low) * height)) if chance >= _TONED else 1.0
        cv2.LUT(image, np.round(255 * levels**gamma).astype(np.uint8), dst=result)
    return changed
