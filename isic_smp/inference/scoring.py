"""Scoring a predictor on images and masks: one pass over the files, in flat memory."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from isic_smp.data.pairs import Pair, read_pair
from isic_smp.data.resize import resize_image, resize_mask, upsample_probabilities
from isic_smp.errors import UserError
from isic_smp.inference.predictor import Predictor
from isic_smp.inference.scores import Scores
from isic_smp.inference.streaming import batches, in_order
from isic_smp.processors import processors
from isic_smp.training.metrics import confusion

MaskSink = Callable[[Pair, np.ndarray], object]
"""Takes a pair and the predicted mask, bool (H, W), at the image's own size."""


class Observer(Protocol):
    """Sees what the scores come from, to measure more on the way: nothing is read or predicted twice."""

    def network(
        self, start: int, logits: np.ndarray, probabilities: np.ndarray, truth: np.ndarray, /
    ) -> None:
        """A batch of the model's maps, of S = `Scores.map_side`.

        Args:
            start: place of its first image among the pairs.
            logits: float32 (B, S, S).
            probabilities: float32 (B, S, S), their sigmoid, finished as the model finishes its masks (`Predictor`).
            truth: bool (B, S, S).
        """

    def own(self, index: int, predicted: np.ndarray, truth: np.ndarray, /) -> None:
        """An image's masks at its own size, bool (H, W); called from several threads at once."""


class _Example(NamedTuple):
    """A pair, read: small pixels for the network, and the own-size truth at one bit a pixel.

    A batch of camera pictures' masks would otherwise fill a gigabyte while it waits for the network.
    """

    pair: Pair
    image: np.ndarray
    truth: np.ndarray
    own_size: tuple[int, int]
    own_truth_bits: np.ndarray

    def own_truth(self) -> np.ndarray:
        height, width = self.own_size
        bits = np.unpackbits(self.own_truth_bits, count=height * width)
        return bits.view(np.bool_).reshape(height, width)


def score(
    predictor: Predictor,
    pairs: Sequence[Pair],
    *,
    batch_size: int = 32,
    binarize_masks: bool = False,
    loss: nn.Module | None = None,
    on_mask: MaskSink | None = None,
    observer: Observer | None = None,
    progress: Callable[[int], object] | None = None,
) -> Scores:
    """Predict every pair and compare with its mask, in the model's map and at the image's own size.

    To the map's size the truth is resized as in training. At its own size, the probabilities
    are enlarged bilinearly, then thresholded, and the truth is as it is on disk. Files are read,
    and own-size pixels counted, on other threads while the network runs.

    Args:
        predictor: the model to score.
        pairs: images with masks, at least one.
        batch_size: images in the network at once.
        binarize_masks: take masks with grey values, as `read_mask` does.
        loss: computed on logits and truth in the model's maps; its mean over the images.
        on_mask: given each predicted mask at own size; called from several threads at once.
        observer: shown each batch and each mask.
        progress: told after each batch how many images it held.

    Raises:
        UserError: no pairs, or a file that cannot be used.
    """
    if not pairs:
        raise UserError("there are no images to score")
    size, threshold = predictor.preprocessing.input_size, predictor.preprocessing.threshold
    network_counts, losses = [], []
    own: list[tuple[tuple[int, int], Future[Tensor]]] = []

    def read(pair: Pair) -> _Example:
        image, mask = read_pair(pair, binarize_masks=binarize_masks)
        small = resize_image(image, size), resize_mask(mask, size)
        return _Example(pair, *small, mask.shape, np.packbits(mask))

    def count_own(index: int, example: _Example, probabilities: np.ndarray) -> Tensor:
        mask, truth = upsample_probabilities(probabilities, example.own_size) > threshold, example.own_truth()
        if on_mask is not None:
            on_mask(example.pair, mask)
        if observer is not None:
            observer.own(index, mask, truth)
        return confusion(torch.from_numpy(mask)[None], torch.from_numpy(truth)[None])

    with ThreadPoolExecutor(min(8, processors())) as pool:
        for examples in batches(in_order(pool, read, pairs, ahead=batch_size), batch_size):
            images = np.stack([e.image for e in examples])
            logits = predictor.logits(images)
            truth = torch.from_numpy(np.stack([e.truth for e in examples])).to(logits.device)
            probabilities = predictor.from_logits(logits, images)
            network_counts.append(confusion(probabilities > threshold, truth.bool()).cpu())
            if loss is not None:
                losses.append(loss(logits, truth.unsqueeze(1).float()).item() * len(examples))
            for _, counted in own[-batch_size:]:
                counted.result()  # the batch before must be done, or waiting masks would pile up
            maps = probabilities.cpu().numpy()
            if observer is not None:
                observer.network(len(own), logits.squeeze(1).cpu().numpy(), maps, truth.bool().cpu().numpy())
            own += [
                (e.own_size, pool.submit(count_own, n, e, p))
                for n, (e, p) in enumerate(zip(examples, maps, strict=True), start=len(own))
            ]
            if progress is not None:
                progress(len(examples))
        return Scores(
            ids=tuple(pair.id for pair in pairs),
            sizes=np.array([own_size for own_size, _ in own]),
            network_counts=torch.cat(network_counts).numpy(),
            own_counts=torch.cat([counted.result() for _, counted in own]).numpy(),
            loss=sum(losses) / len(pairs) if loss is not None else None,
        )
