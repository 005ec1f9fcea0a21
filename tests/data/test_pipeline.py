import json

import albumentations
import numpy as np
import pytest

from isic_smp.data.augment import Augmenter
from isic_smp.data.pipeline import SavedPipeline
from isic_smp.errors import UserError


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    masks = (images[..., 0] > 128).astype(np.uint8)
    return images, masks


def saved(tmp_path, *transforms, kind="json"):
    path = tmp_path / f"mine.{kind}"
    albumentations.save(albumentations.Compose(list(transforms)), path, data_format=kind)
    return SavedPipeline(path)


@pytest.mark.parametrize("kind", ["json", "yaml"])
def test_a_saved_pipeline_is_applied_to_image_and_mask_alike(tmp_path, batch, kind):
    images, masks = batch
    mirror = saved(tmp_path, albumentations.HorizontalFlip(p=1.0), kind=kind)
    augmenter = Augmenter(flips=False, affine=0.0, colour=0.0, pipeline=mirror)
    changed, lesions = augmenter.apply(images, masks, sample_ids=np.arange(4), seed=0, epoch=0)
    assert (changed == images[:, :, ::-1]).all()
    assert (lesions == masks[:, :, ::-1]).all()


def test_a_view_depends_on_seed_epoch_and_sample_alone(tmp_path, batch):
    images, masks = (part[[0, 0, 0, 0]] for part in batch)
    noise = saved(tmp_path, albumentations.RandomBrightnessContrast(p=1.0))

    def view(ids, seed=0, epoch=0):
        return noise.apply(
            images[: len(ids)], masks[: len(ids)], sample_ids=np.array(ids), seed=seed, epoch=epoch
        )[0]

    first = view([5, 6, 7, 8])
    assert (view([8, 5])[::-1] == first[[0, 3]]).all()
    assert (first[0] != first[1]).any()
    assert (view([5], seed=1) != first[0]).any()
    assert (view([5], epoch=1) != first[0]).any()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        "not json",
        json.dumps({"transform": {"__class_fullname__": "os.system", "p": 1}}),
        json.dumps({"transform": {"__class_fullname__": "HorizontalFlip", "p": 1.0}}),
        json.dumps({"transform": {"__class_fullname__": "Compose", "p": 1, "transforms": [{"__class_fullname__": "HorizontalFlip", "p": 1.0, "bogus": 3}]}}),
    ],
)  # fmt: skip
def test_a_file_that_is_no_pipeline_is_one_line(tmp_path, content):
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(UserError) as error:
        SavedPipeline(path)
    assert "\n" not in str(error.value)
    assert "bad.json" in str(error.value)


def test_a_missing_file_and_a_changed_size_are_refused(tmp_path, batch):
    with pytest.raises(UserError, match="No such file"):
        SavedPipeline(tmp_path / "none.json")
    smaller = saved(tmp_path, albumentations.RandomCrop(16, 16, p=1.0))
    with pytest.raises(UserError, match="keep the size"):
        smaller.apply(*batch, sample_ids=np.arange(4), seed=0, epoch=0)


@pytest.mark.parametrize(
    "transform",
    [albumentations.RandomCrop(64, 64, p=1.0), albumentations.Mosaic(p=1.0)],
    ids=["crop", "mosaic"],
)
def test_a_transform_that_cannot_be_applied_is_one_line(tmp_path, batch, transform):
    fails = saved(tmp_path, transform)
    with pytest.raises(UserError, match=r"mine\.json fails on a picture of 32 × 32") as error:
        fails.apply(*batch, sample_ids=np.arange(4), seed=0, epoch=0)
    assert "\n" not in str(error.value)
