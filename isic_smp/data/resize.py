"""The one definition of geometry between a picture's own size and the network's square.

Training pixels (`cache.py`) and predictions (`inference/predictor.py`) both come through here, so a
network sees at prediction exactly what it saw in training. Every function treats a pixel as a unit
square and resizes the whole frame onto the whole frame (half-pixel centres: the centre of pixel i lies
at i + 0.5), so images, masks and probabilities stay in register at every ratio. Axes that shrink are
averaged over area, axes that grow are interpolated linearly.
"""

import cv2
import numpy as np

# Pictures are small and many: parallelism comes from working on several at once, and OpenCV's own
# threads would compete with torch's for the same cores.
cv2.setNumThreads(0)


def resize_image(image: np.ndarray, size: int) -> np.ndarray:
    """Squash an RGB image, uint8 (H, W, 3), to the square uint8 (size, size, 3)."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected a uint8 (H, W, 3) image, got {image.dtype} {image.shape}")
    return _resize(image, size, size)


def resize_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """Squash a 0/1 mask, uint8 (H, W), to the square uint8 (size, size) of 0/1.

    A pixel is lesion where at least half of its area is.
    """
    if mask.dtype != np.uint8 or mask.ndim != 2:
        raise ValueError(f"expected a uint8 (H, W) mask, got {mask.dtype} {mask.shape}")
    # In uint8, an area share of one half is 127.5, which rounds up to 128.
    return (_resize(mask * np.uint8(255), size, size) >= 128).astype(np.uint8)


def upsample_probabilities(probabilities: np.ndarray, height_width: tuple[int, int]) -> np.ndarray:
    """Bring probabilities, float32 (s, s), to an image's own size: float32 (H, W), in the same range."""
    if probabilities.dtype != np.float32 or probabilities.ndim != 2:
        raise ValueError(f"expected float32 (s, s), got {probabilities.dtype} {probabilities.shape}")
    return _resize(probabilities, *height_width)


def _resize(array: np.ndarray, height: int, width: int) -> np.ndarray:
    # OpenCV's area mode averages only if both axes shrink (else it shifts by a fraction of a pixel), so
    # shrinking and growing are two steps. Always by keyword: the third positional argument of cv2.resize
    # is `dst`, and an interpolation given there is silently ignored.
    smaller = (min(width, array.shape[1]), min(height, array.shape[0]))
    if smaller != (array.shape[1], array.shape[0]):
        array = cv2.resize(array, dsize=smaller, interpolation=cv2.INTER_AREA)
    if smaller != (width, height):
        array = cv2.resize(array, dsize=(width, height), interpolation=cv2.INTER_LINEAR)
    return array
