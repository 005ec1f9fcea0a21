import numpy as np
import pytest
import torch
from isic_challenge_scoring.load_image import ImagePair
from isic_challenge_scoring.segmentation import SegmentationScore
from PIL import Image

from isic_smp.data.images import read_mask
from isic_smp.training.metrics import METRICS, confusion, per_image, summarise

OFFICIAL = {"dice": "dice", "iou": "jaccard"} | {m: m for m in ("sensitivity", "specificity", "accuracy")}


def official_scores(truth_file, prediction_file) -> dict[str, float]:
    """One image's figures, from the official scorer itself."""
    pair = ImagePair(truth_file=truth_file)
    pair.parse_image_id()
    pair.prediction_file = prediction_file
    pair.load_truth_image()
    pair.load_prediction_image()
    average = SegmentationScore([pair]).macro_average
    return {ours: average[theirs] for ours, theirs in OFFICIAL.items()}


def check_against_official(truth_file, prediction_file):
    truth, prediction = (
        torch.from_numpy(read_mask(f)).bool().unsqueeze(0) for f in (truth_file, prediction_file)
    )
    ours = per_image(confusion(prediction, truth))
    expected = official_scores(truth_file, prediction_file)
    assert {name: values.item() for name, values in ours.items()} == pytest.approx(expected, abs=1e-6)


def test_equals_the_official_scorer_on_real_masks(isic_dir, tmp_path):
    files = sorted((isic_dir / "ISBI2016_ISIC_Part1_Test_GroundTruth").glob("*.png"))[:12]
    for file in files:
        mask = np.array(Image.open(file))
        shifted = np.roll(mask, (mask.shape[0] // 9, -mask.shape[1] // 7), axis=(0, 1))
        for name, prediction in (("shifted", shifted), ("empty", mask * 0), ("full", mask * 0 + 255)):
            Image.fromarray(prediction).save(tmp_path / f"{name}.png")
            check_against_official(file, tmp_path / f"{name}.png")


@pytest.mark.parametrize("prediction", ["empty", "full", "half"])
@pytest.mark.parametrize("truth", ["empty", "full", "half"])
def test_equals_the_official_scorer_at_the_edges(truth, prediction, tmp_path):
    masks = {
        name: np.full((6, 8), value, np.uint8) for name, value in (("empty", 0), ("full", 255), ("half", 0))
    }
    masks["half"][:3] = 255
    Image.fromarray(masks[truth]).save(tmp_path / "ISIC_0000001_Segmentation.png")
    Image.fromarray(masks[prediction]).save(tmp_path / "prediction.png")
    check_against_official(tmp_path / "ISIC_0000001_Segmentation.png", tmp_path / "prediction.png")


def test_counts_are_tp_fp_fn_tn_of_each_image():
    truth = torch.tensor([[[1, 1, 0], [0, 0, 0]], [[1, 1, 1], [1, 1, 1]]]).bool()
    pred = torch.tensor([[[1, 0, 1], [1, 0, 0]], [[0, 0, 0], [0, 0, 1]]]).bool()
    assert confusion(pred, truth).tolist() == [[1, 2, 1, 2], [1, 0, 5, 0]]


def test_means_weigh_images_and_pooling_weighs_pixels():
    # A large lesion found whole, and a small one missed: pooled flatters, the mean over images does not.
    summary = summarise(torch.tensor([[90, 0, 0, 10], [0, 0, 10, 90]]))
    assert summary["dice_per_image"] == 0.5
    assert summary["dice_pooled"] == pytest.approx(180 / 190)
    assert summary["iou_pooled"] == pytest.approx(0.9)
    assert set(summary) == {f"{m}_{how}" for m in METRICS for how in ("per_image", "pooled")}


def test_large_images_do_not_overflow():
    giga = 2**40
    assert summarise(torch.tensor([[giga, giga, 0, 0]] * 3))["iou_pooled"] == pytest.approx(0.5)


def test_nothing_counted_is_an_error():
    with pytest.raises(ValueError, match="no images"):
        summarise(torch.zeros(0, 4, dtype=torch.int64))


@pytest.mark.parametrize(
    "pred", [torch.zeros(1, 2, 2), torch.zeros(1, 2, 3).bool(), torch.zeros(2, 2).bool()]
)
def test_refuses_what_is_not_two_bool_stacks_of_one_shape(pred):
    with pytest.raises(ValueError, match=r"expected two bool tensors"):
        confusion(pred, torch.zeros(1, 2, 2).bool())
