"""Segmentation metrics as the official ISIC scorer defines them (`isic-challenge-scoring` 5.6).

Everything starts from each image's four pixel counts. Two ways to average, named in the result:
`*_per_image` is the mean of the images' own scores (the challenge's way, every image weighs the
same), `*_pooled` is one score from the counts of all images added up (every pixel weighs the same).
"""

import numpy as np
import torch
from torch import Tensor

METRICS = ("dice", "iou", "sensitivity", "specificity", "accuracy")


def confusion(pred: Tensor, truth: Tensor) -> Tensor:
    """Pixel counts of each image.

    Args:
        pred: predicted lesion, bool (B, H, W).
        truth: true lesion, bool (B, H, W).

    Returns:
        int64 (B, 4): true positives, false positives, false negatives, true negatives.
    """
    if pred.dtype != torch.bool or truth.dtype != torch.bool or pred.shape != truth.shape or pred.ndim != 3:
        raise ValueError(
            "expected two bool tensors of one shape (B, H, W), got "
            f"{pred.dtype} {tuple(pred.shape)} and {truth.dtype} {tuple(truth.shape)}"
        )
    tp = _count(pred & truth)
    fp = _count(pred) - tp
    fn = _count(truth) - tp
    tn = pred.shape[1] * pred.shape[2] - tp - fp - fn
    return torch.stack([tp, fp, fn, tn], dim=1)


def per_image(counts: Tensor) -> dict[str, Tensor]:
    """The five scores of each image.

    A score whose denominator is 0 counts as 1: Dice and IoU where neither truth nor prediction
    holds a lesion pixel, sensitivity where the truth has none, specificity where it is all lesion.

    Args:
        counts: int64 (B, 4) from `confusion`.

    Returns:
        Name (see `METRICS`) to float64 (B,), each from 0 to 1.
    """
    tp, fp, fn, tn = counts.to(torch.float64).unbind(dim=1)
    return {
        "dice": _ratio(2 * tp, 2 * tp + fp + fn),
        "iou": _ratio(tp, tp + fp + fn),
        "sensitivity": _ratio(tp, tp + fn),
        "specificity": _ratio(tn, tn + fp),
        "accuracy": _ratio(tp + tn, tp + fp + fn + tn),
    }


def summarise(counts: Tensor) -> dict[str, float]:
    """Mean over images and pooled score of each metric.

    Args:
        counts: int64 (B, 4) from `confusion`, B at least 1; of several processes, theirs together.

    Returns:
        `dice_per_image`, `dice_pooled`, `iou_per_image`, …, each from 0 to 1.
    """
    if not len(counts):
        raise ValueError("no images were counted: nothing to average")
    means, pooled = per_image(counts), per_image(counts.sum(dim=0, keepdim=True))
    return {f"{name}_per_image": means[name].mean().item() for name in METRICS} | {
        f"{name}_pooled": pooled[name].item() for name in METRICS
    }


def _count(mask: Tensor) -> Tensor:
    if mask.device.type != "cpu":
        return mask.sum(dim=(1, 2))
    # On a CPU, NumPy counts the pixels of a large picture ten times as fast as torch.
    return torch.from_numpy(np.count_nonzero(mask.flatten(1).numpy(), axis=1))


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    return torch.where(denominator == 0, torch.ones_like(numerator), numerator / denominator.clamp_min(1))
