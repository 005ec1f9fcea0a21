import numpy as np
import pytest

from isic_smp.tracking import plots
from isic_smp.tracking.figures import (
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    PREDICTION,
    TRUTH,
    case_grid,
    overlay,
    panel,
    plain,
)
from isic_smp.tracking.plots import curves, dice_histogram


def disk(height: int, width: int, at: float) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return ((rows - height / 2) ** 2 + (columns - at * width) ** 2 < (min(height, width) / 4) ** 2).astype(
        np.uint8
    )


def area(picture: np.ndarray, colour) -> int:
    return int((np.abs(picture.astype(int) - colour).max(axis=2) < 12).sum())


@pytest.mark.parametrize(("height", "width"), [(128, 128), (300, 400), (400, 300), (7, 9)])
def test_pictures_are_square_at_any_image_size(height, width):
    image = np.full((height, width, 3), 180, np.uint8)
    truth = disk(height, width, 0.5)
    assert overlay(image, truth, truth.astype(np.float32)).shape == (384, 384, 3)
    square = panel(image, truth, truth.astype(np.float32), "a case", side=512)
    assert square.shape == (512, 512, 3) and square.dtype == np.uint8


def test_both_outlines_are_visible_also_where_they_run_together():
    image = np.full((128, 128, 3), 180, np.uint8)
    truth = disk(128, 128, 0.5)
    picture = overlay(image, truth, truth.astype(np.float32))
    bare = overlay(image, truth * 0, truth.astype(np.float32) * 0)
    assert area(picture, TRUTH) > area(bare, TRUTH) + 200
    assert area(picture, PREDICTION) > area(bare, PREDICTION) + 200


def test_what_is_too_much_and_what_is_missed_have_their_own_colours():
    image = np.full((128, 128, 3), 180, np.uint8)
    small, large = disk(128, 128, 0.5), np.zeros((128, 128), np.uint8)
    large[16:112, 16:112] = 1

    def colours(truth, predicted):
        picture = panel(image, truth, predicted.astype(np.float32))[
            300:
        ]  # below the caption of the lower tiles
        return area(picture, FALSE_POSITIVE), area(picture, FALSE_NEGATIVE)

    too_much, missed = colours(small, large)
    assert too_much > 5000 and missed < 100
    too_much, missed = colours(large, small)
    assert too_much < 100 and missed > 5000


def test_the_threshold_is_the_recipes():
    image, truth = np.full((64, 64, 3), 180, np.uint8), disk(64, 64, 0.5)
    probability = truth * np.float32(0.4)
    high = overlay(image, truth, probability, threshold=0.5)
    assert area(overlay(image, truth, probability, threshold=0.3), PREDICTION) > area(high, PREDICTION) + 200


def test_empty_masks_are_drawn():
    nothing = np.zeros((32, 32))
    assert overlay(np.zeros((32, 32, 3), np.uint8), nothing, nothing).shape == (384, 384, 3)


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 1, 1), (2, 1, 2), (3, 2, 2), (5, 2, 3)])
def test_a_grid_holds_all_pictures(count, rows, columns):
    pictures = [np.full((10, 10, 3), 50 + i, np.uint8) for i in range(count)]
    grid = case_grid(pictures, gap=2)
    assert grid.shape == (rows * 12 - 2, columns * 12 - 2, 3)
    assert set(range(50, 50 + count)) <= set(np.unique(grid))


@pytest.mark.parametrize(("height", "width"), [(300, 400), (7, 9)])
def test_the_plain_image_lies_where_its_overlay_does(height, width):
    image = np.full((height, width, 3), 180, np.uint8)
    nothing = np.zeros((height, width))
    below = slice(384 // 14, None)
    picture, drawn = plain(image, side=384), overlay(image, nothing, nothing, side=384)
    np.testing.assert_array_equal(picture[below], drawn[below])
    assert (picture[: 384 // 14] == 255).any(), "no caption"


def test_epochs_are_counted_from_1_as_mlflow_s_steps(tmp_path, monkeypatch):
    row = {f"{split}_{what}": 0.7 for split in ("train", "val") for what in ("loss", "dice", "iou")}
    saved = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: saved.append(figure))
    curves([{"epoch": e, **row} for e in range(3)], tmp_path / "curves.png")
    assert [list(line.get_xdata()) for axes in saved[0].axes for line in axes.lines] == [[1, 2, 3]] * 6


@pytest.mark.parametrize("epochs", [1, 12])
def test_plots_are_square_pngs(tmp_path, epochs):
    from PIL import Image

    row = {f"{split}_{what}": 0.7 for split in ("train", "val") for what in ("loss", "dice", "iou")}
    curves([{"epoch": e, **row} for e in range(epochs)], tmp_path / "curves.png")
    dice_histogram(np.linspace(0, 1, 50), tmp_path / "dice.png")
    for name in ("curves.png", "dice.png"):
        picture = np.asarray(Image.open(tmp_path / name))
        assert picture.shape[:2] == (768, 768) and len(np.unique(picture)) > 50
