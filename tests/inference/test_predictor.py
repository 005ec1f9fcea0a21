import dataclasses

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from isic_smp.data.resize import resize_image
from isic_smp.errors import UserError
from isic_smp.inference.predictor import Predictor

SIZE = 32


def pictures(*sizes: tuple[int, int]) -> list[np.ndarray]:
    random = np.random.default_rng(3)
    return [random.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in sizes]


def squares(count: int) -> np.ndarray:
    return np.stack(pictures(*[(SIZE, SIZE)] * count))


class BrightnessModel(nn.Module):
    """A stand-in that marks what is bright: its prediction is known for any picture."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return 4 * batch.mean(dim=1, keepdim=True)


def test_probabilities_are_the_models_own_on_normalised_pixels(unet, preprocessing):
    batch = squares(3)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (preprocessing.mean, preprocessing.std))
    with torch.no_grad():
        pixels = torch.from_numpy(batch).permute(0, 3, 1, 2) / 255
        expected = unet.eval()((pixels - mean) / std).sigmoid()[:, 0]
    found = Predictor(unet, preprocessing).probabilities(batch)
    assert found.shape == (3, SIZE, SIZE)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_predicts_at_each_images_own_size_in_order(unet, preprocessing):
    images = pictures((50, 70), (SIZE, SIZE), (20, 90), (33, 31), (128, 64))
    predictor = Predictor(unet, preprocessing)
    together = predictor.predict(images, batch_size=2)
    assert [p.shape for p in together] == [i.shape[:2] for i in images]
    assert {p.dtype for p in together} == {np.dtype(np.float32)}
    for image, probability in zip(images, together, strict=True):
        assert 0 <= probability.min() <= probability.max() <= 1
        np.testing.assert_allclose(predictor.predict([image])[0], probability, atol=1e-5)
    same_size = predictor.probabilities(resize_image(images[1], SIZE)[None])[0]
    np.testing.assert_allclose(together[1], same_size.numpy(), atol=1e-5)


def test_prediction_lies_where_the_object_is(preprocessing):
    image = np.zeros((90, 150, 3), np.uint8)
    image[30:60, 50:125] = 255
    mask = Predictor(BrightnessModel(), preprocessing).predict([image])[0] > 0.5
    truth = image[..., 0] > 0
    assert (mask & truth).sum() / (mask | truth).sum() > 0.85


def test_no_images_no_predictions(unet, preprocessing):
    assert Predictor(unet, preprocessing).predict([]) == []


@pytest.mark.parametrize("frozen", [False, True])
def test_a_model_in_training_predicts_as_in_evaluation_and_goes_on_training(frozen, make_unet, preprocessing):
    model = make_unet()
    model.encoder.layer1.append(nn.Dropout(0.5))
    predictor = Predictor(model, preprocessing)
    model.eval()
    expected = predictor.probabilities(squares(2))
    model.train()
    if frozen:
        model.freeze_encoder()
    modes = [module.training for module in model.modules()]
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    assert torch.equal(predictor.probabilities(squares(2)), expected)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_test_time_flips_average_over_all_symmetries_of_the_square(unet, preprocessing):
    predictor = Predictor(unet, dataclasses.replace(preprocessing, test_time_flips=True))
    batch = squares(2)
    found = predictor.probabilities(batch).numpy()
    once = Predictor(unet, preprocessing)

    def seen(turns: int, mirrored: bool) -> np.ndarray:
        view = np.rot90(batch, turns, axes=(1, 2))
        view = once.probabilities(np.ascontiguousarray(view[:, :, ::-1] if mirrored else view)).numpy()
        return np.rot90(view[:, :, ::-1] if mirrored else view, -turns, axes=(1, 2))

    expected = np.mean([seen(turns, mirrored) for turns in range(4) for mirrored in (False, True)], axis=0)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found - once.probabilities(batch).numpy()).max() > 1e-3
    # and so a mirrored picture gets the mirrored mask
    mirrored = predictor.probabilities(np.ascontiguousarray(batch[:, ::-1])).numpy()
    np.testing.assert_allclose(mirrored, found[:, ::-1], atol=1e-5)


def test_a_second_look_draws_small_lesions_finer_in_every_view(preprocessing):
    image = np.full((2 * SIZE, 2 * SIZE, 3), 20, np.uint8)
    cv2.circle(image, (48, 14), 5, (250, 250, 250), -1)
    twice = dataclasses.replace(preprocessing, second_look=True)
    for flips in (False, True):
        settings = dataclasses.replace(twice, test_time_flips=flips)
        once = dataclasses.replace(settings, second_look=False)
        found, coarse = (Predictor(BrightnessModel(), s).predict([image])[0] > 0.5 for s in (settings, once))
        truth = image[..., 0] > 128
        wrong = [(mask != truth).sum() for mask in (found, coarse)]
        assert wrong[0] <= 2 < wrong[1]


def test_largest_piece_leaves_one_lesion(unet, preprocessing):
    batch = squares(3)
    maps = Predictor(unet, preprocessing).probabilities(batch).numpy()
    threshold = float(np.quantile(maps, 0.7))  # an untrained net: many pieces
    one = Predictor(unet, dataclasses.replace(preprocessing, threshold=threshold, largest_piece=True))
    for before, after in zip(maps, one.probabilities(batch).numpy(), strict=True):
        pieces = cv2.connectedComponents((before > threshold).astype(np.uint8))[0] - 1
        assert pieces > 1
        assert cv2.connectedComponents((after > threshold).astype(np.uint8))[0] - 1 == 1
        assert ((after > threshold) <= (before > threshold)).all()


def test_bays_are_closed_in_the_mask_that_is_left(preprocessing):
    """First the largest piece, then its bays: a spot that is put out stays out."""
    image = np.full((SIZE, SIZE, 3), 20, np.uint8)
    cv2.circle(image, (12, 16), 9, (250, 250, 250), -1)
    cv2.line(image, (12, 16), (31, 16), (20, 20, 20), 2)
    image[28:31, 28:31] = 250
    shaped = dataclasses.replace(preprocessing, largest_piece=True, close_bays=True)
    plain, found = (
        Predictor(BrightnessModel(), s).predict([image])[0] > 0.5 for s in (preprocessing, shaped)
    )
    assert not plain[16, 14] and found[16, 14]
    assert plain[29, 29] and not found[29, 29]


def test_each_picture_tells_by_itself_whether_its_lesion_is_faint(preprocessing):
    ring = np.zeros((SIDE := 64, SIDE), np.uint8)
    cv2.ellipse(ring, (32, 32), (18, 18), 0, 0, 200, 1, 6)
    faint, clear = (np.where(ring[..., None] > 0, bright, 110).repeat(3, axis=2) for bright in (140, 250))
    settings = dataclasses.replace(preprocessing, size=SIDE, wrap_below=0.3)
    pictures = [np.uint8(one) for one in (clear, faint, clear, clear)]
    found = [m > 0.5 for m in Predictor(BrightnessModel(), settings).predict(pictures)]
    assert [bool(mask[40, 32]) for mask in found] == [False, True, False, False], "within the arc, not on it"
    assert np.array_equal(found[0], ring > 0)


def test_bf16_stays_close_and_returns_float32(unet, preprocessing):
    batch = squares(2)
    exact = Predictor(unet, preprocessing).probabilities(batch)
    rough = Predictor(unet, preprocessing, precision="bf16").probabilities(batch)
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).abs().max() < 0.05


def test_auxiliary_labels_are_passed_over(make_unet, preprocessing):
    model = make_unet(aux_params={"classes": 2})
    assert Predictor(model, preprocessing).probabilities(squares(1)).shape == (1, SIZE, SIZE)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": 3}, "the model has 3 classes: only binary models"),
        ({"activation": "sigmoid"}, "the model ends in Sigmoid: expected logits"),
    ],
)
def test_models_that_give_no_binary_logits_are_refused(settings, message, make_unet, preprocessing):
    with pytest.raises(UserError, match=message):
        Predictor(make_unet(**settings), preprocessing)
