"""The loop that an smp user writes today: what the project is measured against.

`smp.Unet` with timm's MobileNetV2, a DataLoader with two workers that decodes JPEG and PNG at the original
sizes every epoch, float32, NCHW.
"""

import json
import time
from pathlib import Path
from typing import Any

from clock import Clock, Reached
from originals import pairs_of

SIZE, BATCH, LR, SEED = 128, 32, 1e-3, 0


def plain(
    root: Path,
    weights: Path,
    *,
    freeze: bool,
    limit: float,
    goals: tuple[float, ...],
    epochs: int,
    images: int | None = None,
    last: int = 1,
) -> dict:
    """Train until every goal is reached, or for `limit` seconds and `last` epochs.

    Args:
        root: The data set at its original sizes (`originals.py`).
        weights: ImageNet weights, `.safetensors` with its `.json`.
        freeze: The encoder in evaluation mode under no_grad.
        limit: Seconds.
        goals: Validation IoU, rising.
        epochs: At most.
        images: Train on so many, and validate on a ninth as many; all of them unless given.
        last: The epochs at least, where time is up before.

    Returns:
        What `Clock.found` returns.
    """
    import segmentation_models_pytorch as smp
    import torch
    from safetensors.torch import load_file

    about = json.loads(weights.with_suffix(".json").read_text())
    torch.manual_seed(SEED)
    # The weights ask for TensorFlow's padding; random ones would run in timm's own.
    padding = about.get("create_model_kwargs", {})
    model = smp.Unet(f"tu-{about['timm_model']}", encoder_weights=None, **padding)
    model.encoder.model.load_state_dict(load_file(weights), strict=False)
    train, val = pairs_of(root, images)
    loaders = [
        torch.utils.data.DataLoader(
            Pictures(pairs, about["mean"], about["std"], flips=i == 0),
            batch_size=BATCH,
            shuffle=i == 0,
            drop_last=i == 0,
            num_workers=2,
        )
        for i, pairs in enumerate((train, val))
    ]
    bce, dice = torch.nn.BCEWithLogitsLoss(), smp.losses.DiceLoss("binary")
    parts = [model.decoder, model.segmentation_head] if freeze else [model]
    optimizer = torch.optim.AdamW([p for part in parts for p in part.parameters()], lr=LR)
    clock = Clock(goals, limit, last)
    seconds = []
    try:
        for _ in range(epochs):
            start, seen = time.perf_counter(), 0
            model.train()
            if freeze:
                model.encoder.eval()
            for x, truth in loaders[0]:
                logits = _through(model, x, freeze)
                loss = bce(logits, truth) + dice(logits, truth)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                seen += len(x)
            seconds.append((time.perf_counter() - start) * len(train) / seen)
            clock.epoch(_validate(model, loaders[1]))
    except Reached:
        pass
    return clock.found(0.0, seconds, len(train))


def _through(model: Any, x: Any, freeze: bool) -> Any:
    import torch

    if not freeze:
        return model(x)
    with torch.no_grad():
        features = model.encoder(x)
    return model.segmentation_head(model.decoder(features))


def _validate(model: Any, loader: Any) -> float:
    """Mean of the images' IoU."""
    import segmentation_models_pytorch as smp
    import torch

    model.eval()
    stats = []
    with torch.no_grad():
        for x, truth in loader:
            stats.append(smp.metrics.get_stats(model(x), truth.long(), mode="binary", threshold=0.0))
    tp, fp, fn, tn = (torch.cat(some) for some in zip(*stats, strict=True))
    return smp.metrics.iou_score(tp, fp, fn, tn, reduction="micro-imagewise").item()


class Pictures:
    """A map-style dataset: decode, shrink, flip, normalise."""

    def __init__(self, pairs: list, mean: list[float], std: list[float], *, flips: bool) -> None:
        self.pairs, self.mean, self.std, self.flips = pairs, mean, std, flips

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple:
        import cv2
        import numpy as np
        import torch

        pair = self.pairs[index]
        image = cv2.cvtColor(cv2.imread(str(pair.image)), cv2.COLOR_BGR2RGB)
        mask = cv2.imread(str(pair.mask), cv2.IMREAD_GRAYSCALE)
        image = cv2.resize(image, dsize=(SIZE, SIZE), interpolation=cv2.INTER_AREA)
        mask = cv2.resize(mask, dsize=(SIZE, SIZE), interpolation=cv2.INTER_AREA)
        if self.flips:
            turns, mirrored = int(torch.randint(4, ())), bool(torch.randint(2, ()))
            image, mask = np.rot90(image, turns), np.rot90(mask, turns)
            if mirrored:
                image, mask = image[:, ::-1], mask[:, ::-1]
        x = (image.astype(np.float32) / 255 - self.mean) / self.std
        x = np.ascontiguousarray(x.transpose(2, 0, 1), dtype=np.float32)
        return torch.from_numpy(x), torch.from_numpy((mask >= 128)[None].astype(np.float32))
