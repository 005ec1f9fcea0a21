"""A drawn picture of each group that pictures are told apart by, and one of none."""

import cv2
import numpy as np

WARM, COOL = (210, 170, 150), (170, 180, 210)


def picture(
    skin: tuple[int, ...], lesion: tuple[int, ...], radius: float, centre: tuple[int, int] = (64, 64)
) -> tuple[np.ndarray, np.ndarray]:
    mask = cv2.circle(np.zeros((128, 128), np.uint8), centre, round(radius), 1, -1)
    return np.where(mask[..., None] > 0, np.uint8(lesion), np.uint8(skin)), mask


PICTURES = {  # image, mask
    "plain": picture(WARM, (90, 60, 50), 30),
    "faint": picture(WARM, (205, 160, 140), 30),
    "small": picture(WARM, (90, 60, 50), 12),
    "cut": picture(WARM, (90, 60, 50), 40, (20, 64)),
    "cool": picture(COOL, (90, 60, 50), 30),
}
