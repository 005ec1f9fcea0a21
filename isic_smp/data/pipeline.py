"""A person's own augmentation: transforms of albumentations, saved by its `A.save` as JSON or YAML.

    A.save(A.Compose([A.GaussNoise(p=0.3), A.CLAHE(p=0.2)]), "mine.json")
    python -m isic_smp.run --pipeline mine.json

albumentations is imported only here, and only where a pipeline is asked for: its import takes seconds.
"""

import hashlib
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from isic_smp.data.draws import uniforms
from isic_smp.errors import UserError

_PURPOSE = 4  # of draws; `augment` has the others


class SavedPipeline:
    """The transforms of one file. A view depends on (seed, epoch, sample id) alone, as in `augment`.

    Attributes:
        digest: sha256 of the file, hexadecimal.

    Raises:
        UserError: the file cannot be read, or holds no pipeline of known transforms.
    """

    def __init__(self, path: Path) -> None:
        # albumentations would otherwise ask the network for a newer version of itself.
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
        import albumentations

        self.path = path
        try:
            self.digest = hashlib.sha256(path.read_bytes()).hexdigest()
            with warnings.catch_warnings():
                # An argument that albumentations does not know is only warned of, and then ignored.
                warnings.simplefilter("error")
                kind = "yaml" if path.suffix.lower() in {".yaml", ".yml"} else "json"
                loaded = albumentations.load(path, data_format=kind)
        except Exception as error:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise UserError(
                f"cannot use the pipeline {path}: {reason}; expected a file that albumentations.save wrote"
            ) from None
        if not isinstance(loaded, albumentations.Compose):
            raise UserError(f"the pipeline {path} must hold a Compose, got {type(loaded).__name__}")
        self._compose = loaded

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
        """New images, uint8 (B, S, S, 3), and masks, uint8 (B, S, S) from 0 to `levels`; see `Augmenter.apply`.

        Raises:
            UserError: the pipeline fails, changes the size, or makes masks of more than `levels`.
        """
        draws = uniforms(sample_ids, 1, seed=seed, epoch=epoch, purpose=_PURPOSE)[:, 0]
        changed, lesions = np.empty_like(images), np.empty_like(masks)
        for i, draw in enumerate(draws.tolist()):
            self._compose.set_random_seed(int(draw * 2**32))
            result = self._apply_one(images[i], masks[i])
            image, mask = result["image"], result["mask"]
            if image.shape != images[i].shape or image.dtype != np.uint8 or mask.max(initial=0) > levels:
                raise UserError(
                    f"the pipeline {self.path} made {image.dtype} {image.shape} of uint8 {images[i].shape}, "
                    f"or a mask that is not from 0 to {levels}: keep the size, and leave out normalisation"
                )
            changed[i], lesions[i] = image, mask
        return changed, lesions

    def _apply_one(self, image: np.ndarray, mask: np.ndarray) -> dict[str, Any]:
        try:
            return self._compose(image=image, mask=mask)
        except Exception as error:  # a crop larger than the picture, a transform that wants boxes, …
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise UserError(
                f"the pipeline {self.path} fails on a picture of {image.shape[1]} × {image.shape[0]} pixels and its "
                f"mask ({reason}): change or leave out the transform that does"
            ) from None
