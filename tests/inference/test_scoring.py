import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from isic_challenge_scoring.segmentation import SegmentationScore
from PIL import Image
from torch import nn
from torch.nn import functional as F

from isic_smp.data.pairs import Pair, find_pairs, read_pair
from isic_smp.data.resize import resize_image, resize_mask
from isic_smp.errors import UserError
from isic_smp.inference.mask_files import write_mask
from isic_smp.inference.predictor import Predictor
from isic_smp.inference.scores import Scores
from isic_smp.inference.scoring import score
from isic_smp.training.losses import make_loss

OFFICIAL = {"dice": "dice", "iou": "jaccard"} | {m: m for m in ("sensitivity", "specificity", "accuracy")}


class DarknessModel(nn.Module):
    """Takes what is dark for lesion, which is a fair guess on dermoscopy images."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return -3 * batch.mean(dim=1, keepdim=True) - 0.5


@pytest.fixture
def predictor(preprocessing) -> Predictor:
    return Predictor(DarknessModel(), preprocessing)


@pytest.fixture
def drawn(tmp_path) -> list[Pair]:
    """Pictures of many sizes with a dark disc each, a full mask and an empty one, in the official layout."""
    random = np.random.default_rng(1)
    (tmp_path / "images").mkdir()
    (tmp_path / "truth").mkdir()
    for n, (height, width) in enumerate(
        [(40, 64), (32, 32), (90, 50), (20, 25), (61, 33), (200, 300), (33, 90)]
    ):
        y, x = np.mgrid[:height, :width]
        disc = np.hypot(y - height / 2 + n, x - width / 2) < min(height, width) / 3
        image = np.where(disc[..., None], 60, 200) + random.integers(-40, 40, (height, width, 3))
        truth = {2: np.zeros_like(disc), 3: np.ones_like(disc)}.get(n, np.roll(disc, 3, axis=1))
        Image.fromarray(image.astype(np.uint8)).save(tmp_path / f"images/ISIC_{n:07}.png")
        Image.fromarray(np.uint8(255) * truth).save(tmp_path / f"truth/ISIC_{n:07}_Segmentation.png")
    return find_pairs(tmp_path / "images", tmp_path / "truth")


def write_to(folder: Path):
    return lambda pair, mask: write_mask(folder, pair.id, mask)


def check_official(truth_dir: Path, masks_dir: Path, scores: Scores) -> None:
    expected = SegmentationScore.from_dir(truth_dir, masks_dir).macro_average
    summary = scores.summary()
    for ours, theirs in OFFICIAL.items():
        assert summary[f"{ours}_per_image_own"] == pytest.approx(expected[theirs], abs=1e-6)


def test_the_official_scorer_gives_the_same_on_the_written_masks(drawn, predictor, tmp_path):
    scores = score(predictor, drawn, batch_size=3, on_mask=write_to(tmp_path / "masks"))
    check_official(tmp_path / "truth", tmp_path / "masks", scores)
    assert 0.1 < scores.summary()["dice_per_image_own"] < 0.95


def test_the_official_scorer_gives_the_same_on_real_images(isic_dir, preprocessing, tmp_path):
    folders = [isic_dir / f"ISBI2016_ISIC_Part1_Test_{part}" for part in ("Data", "GroundTruth")]
    pairs = find_pairs(*folders)[::16]
    (tmp_path / "truth").mkdir()
    for pair in pairs:
        (tmp_path / "truth" / pair.mask.name).symlink_to(pair.mask)
    scores = score(Predictor(DarknessModel(), preprocessing), pairs, on_mask=write_to(tmp_path / "masks"))
    check_official(tmp_path / "truth", tmp_path / "masks", scores)
    # its command line as well
    program = Path(sys.executable).with_name("isic-challenge-scoring")
    command = [program, "segmentation", tmp_path / "truth", tmp_path / "masks"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    official = {name: float(said[said.index(name) + 1]) for name in ("jaccard", "dice")}
    assert official["dice"] == pytest.approx(scores.summary()["dice_per_image_own"], abs=1e-6)
    assert official["jaccard"] == pytest.approx(scores.summary()["iou_per_image_own"], abs=1e-6)


def test_at_the_networks_size_the_truth_is_resized_and_the_loss_is_a_mean_over_images(drawn, predictor):
    scores = score(predictor, drawn, batch_size=3, loss=make_loss("bce"))
    size = predictor.preprocessing.size
    losses = []
    for n, pair in enumerate(drawn):
        image, mask = read_pair(pair)
        logits = predictor.logits(resize_image(image, size)[None])
        truth = torch.from_numpy(resize_mask(mask, size))
        losses.append(F.binary_cross_entropy_with_logits(logits[0, 0], truth.float()).item())
        pred = logits[0, 0] > 0
        both, either = (pred & truth.bool()).sum(), (pred | truth.bool()).sum()
        assert scores.network["iou"][n] == pytest.approx((both / either).item() if either else 1.0)
    assert scores.loss == pytest.approx(np.mean(losses), rel=1e-5)
    assert scores.summary()["loss"] == scores.loss


def test_threads_and_batches_change_nothing(drawn, predictor):
    alone = score(predictor, drawn, batch_size=1)
    together = score(predictor, drawn, batch_size=100)
    assert alone.ids == together.ids == tuple(pair.id for pair in drawn)
    assert alone.sizes.tolist() == [list(read_pair(pair)[1].shape) for pair in drawn]
    np.testing.assert_array_equal(alone.own_counts, together.own_counts)
    np.testing.assert_array_equal(alone.network_counts, together.network_counts)


def test_threshold_of_the_model_is_used_at_both_sizes(drawn, preprocessing):
    areas = []
    for threshold in (0.2, 0.8):
        prepared = preprocessing.__class__.from_dict(preprocessing.to_dict() | {"threshold": threshold})
        scores = score(Predictor(DarknessModel(), prepared), drawn)
        areas.append([counts[:, :2].sum() for counts in (scores.own_counts, scores.network_counts)])
    assert areas[0][0] > 1.02 * areas[1][0]
    assert areas[0][1] > 1.02 * areas[1][1]


def test_progress_counts_every_image(drawn, predictor):
    told: list[int] = []
    score(predictor, drawn, batch_size=3, progress=told.append)
    assert told == [3, 3, 1]


def test_an_observer_sees_every_image_at_both_sizes_in_its_place(drawn, predictor):
    seen: dict[int, tuple] = {}
    batches = []

    class Watch:
        def network(self, start, logits, probabilities, truth):
            np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-logits)), rtol=1e-5)
            batches.append((start, (probabilities > 0.5).sum((1, 2)), truth.sum((1, 2))))

        def own(self, index, predicted, truth):
            seen[index] = (np.count_nonzero(predicted & truth), np.count_nonzero(truth), truth.shape)

    scores = score(predictor, drawn, batch_size=3, observer=Watch())
    assert [start for start, *_ in batches] == [0, 3, 6]
    tp, fp, fn, _ = scores.network_counts.T
    np.testing.assert_array_equal(np.concatenate([predicted for _, predicted, _ in batches]), tp + fp)
    np.testing.assert_array_equal(np.concatenate([truth for *_, truth in batches]), tp + fn)
    assert [seen[n] for n in range(7)] == [
        (counts[0], counts[0] + counts[2], tuple(size))
        for counts, size in zip(scores.own_counts, scores.sizes, strict=True)
    ]


def test_an_unreadable_file_stops_with_its_name(drawn, predictor):
    drawn[5].image.write_bytes(b"no picture")
    with pytest.raises(UserError, match="ISIC_0000005"):
        score(predictor, drawn, batch_size=2)


def test_grey_masks_only_when_asked(drawn, predictor):
    Image.fromarray(np.full((40, 64), 200, np.uint8)).save(drawn[0].mask)
    with pytest.raises(UserError, match="--binarize-masks"):
        score(predictor, drawn)
    assert score(predictor, drawn, binarize_masks=True).own_counts[0, [1, 3]].sum() == 0


def test_no_pairs(predictor):
    with pytest.raises(UserError, match="no images"):
        score(predictor, [])


@pytest.fixture
def scores() -> Scores:
    own = np.array([[5, 5, 0, 90], [10, 0, 0, 90], [0, 5, 5, 90], [8, 1, 1, 90], [5, 5, 0, 90]])
    return Scores(("e", "d", "c", "b", "a"), np.full((5, 2), 10), own[::-1].copy(), own, None)


def test_picks_are_ordered_by_own_dice_then_id(scores):
    assert scores.picks("worst", 3) == ["c", "a", "e"]
    assert scores.picks("best", 2) == ["b", "d"]
    assert scores.picks("median", 1) == ["e"]
    assert scores.picks("median", 9) == ["c", "a", "e", "b", "d"]


def test_csv_holds_each_image_in_full_precision(scores, tmp_path):
    scores.to_csv(tmp_path / "deep" / "scores.csv")
    with (tmp_path / "deep" / "scores.csv").open() as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert list(rows) == list(scores.ids)
    assert float(rows["e"]["dice_own"]) == 10 / 15
    assert float(rows["d"]["dice_net"]) == 16 / 18
    assert (rows["e"]["lesion_area"], rows["e"]["predicted_area"]) == ("0.05", "0.1")
    assert "loss" not in scores.summary()
