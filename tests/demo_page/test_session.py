"""A visitor's images and what is said of them, as the page's own HTML."""

import base64
import dataclasses
import json
import re
import shutil
import xml.etree.ElementTree as ET

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from isic_smp.data.images import read_image
from isic_smp.demo_page.analysis import agreement
from isic_smp.demo_page.models import Models, named_choices
from isic_smp.demo_page.session import MAX_IMAGES, Session, look_at
from isic_smp.inference.load import load_bundle
from isic_smp.inference.predictor import Predictor


def saved_masks(page: str) -> dict[str, np.ndarray]:
    """The masks that the page's links hold, by file name."""
    links = re.findall(r'download="([^"]+)" href="data:image/png;base64,([^"]+)"', page)
    return {
        name: cv2.imdecode(np.frombuffer(base64.b64decode(png), np.uint8), cv2.IMREAD_UNCHANGED)
        for name, png in links
    }


def test_page_shows_models_side_by_side(image_path, model_dirs, models, predictor):
    session = look_at(Session(), [str(image_path)], models.start, models)
    page = session.results(models, 0.5)
    ET.fromstring(f"<page>{page}</page>")  # well-formed: nothing was left open
    assert "300 × 225 pixels" in page
    assert page.count("<figure") == 2
    assert "validation Dice 0.875" in page
    masks = saved_masks(page)
    assert list(masks) == [f"ISIC_0000013_Segmentation_model-{n}.png" for n in (0, 1)]
    expected = predictor.predict([read_image(image_path)])[0] > 0.5
    np.testing.assert_array_equal(masks["ISIC_0000013_Segmentation_model-0.png"] > 0, expected)
    assert f"{expected.sum():,} of {expected.size:,} pixels" in page
    assert f"Dice {agreement(*(mask > 0 for mask in masks.values())):.3f}" in page
    assert session.images[str(image_path)].key in session.photos()


def test_the_page_says_which_mask_needs_a_look(image_path, models, expected_iou):
    session = look_at(Session(), [str(image_path)], models.start, models)
    answer = session.images[str(image_path)].answers[models.start[1]]
    said = {threshold: expected_iou.of(answer.probabilities, threshold) for threshold in (0.05, 0.5, 0.95)}
    assert min(said.values()) < 0.65
    for threshold, expected in said.items():
        page = session.results(models, threshold)
        assert page.count("Expected IoU") == 1  # of the model that has an estimate
        assert f"<b>{expected:.2f}</b>" in page
        assert ("This mask needs a look" in page) == (expected < 0.65)


@pytest.mark.parametrize("threshold", [0.3, 0.6])
def test_a_mask_gets_its_shape_at_each_threshold(image_path, model_dirs, tmp_path, threshold):
    folder = shutil.copytree(model_dirs[1], tmp_path / "one-piece")
    file = folder / "model" / "isic_smp.json"
    saved = json.loads(file.read_text())
    saved["preprocessing"] |= {"largest_piece": True, "close_bays": True, "wrap_below": 0.9}
    file.write_text(json.dumps(saved))
    models = Models(named_choices([str(folder)]), [str(folder)], device=torch.device("cpu"))
    page = look_at(Session(), [str(image_path)], models.start, models).results(models, threshold)
    bundle = load_bundle(folder)
    masks = []
    for shaped in (True, False):
        settings = dataclasses.replace(
            bundle.preprocessing,
            threshold=threshold,
            largest_piece=shaped,
            close_bays=shaped,
            wrap_below=0.9 if shaped else 0.0,
        )
        [probability] = Predictor(bundle.model, settings).predict([read_image(image_path)])
        masks.append(probability > threshold)
    assert (masks[1] > masks[0]).any(), "the mask has several pieces"
    assert (masks[0] > masks[1]).any(), "the piece that is left has bays, and is faint"
    [shown] = saved_masks(page).values()
    np.testing.assert_array_equal(shown > 0, masks[0])


def test_the_threshold_and_a_model_taken_away_need_neither_network_nor_file(image_path, models, tmp_path):
    path = tmp_path / "moved away.png"
    shutil.copy(image_path, path)
    session = look_at(Session(), [str(path)], models.start, models)
    path.unlink()
    one = look_at(session, [str(path)], models.start[:1], models)
    low, high = (saved_masks(one.results(models, threshold)) for threshold in (0.4, 0.6))
    assert list(low) == ["moved away_Segmentation.png"]
    assert (low["moved away_Segmentation.png"] > 0).sum() > (high["moved away_Segmentation.png"] > 0).sum()


def test_bad_files_are_named_and_the_rest_is_shown(image_path, models, tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "letter.pdf").write_bytes(b"%PDF-1.4 no picture")
    (tmp_path / "cut & <b>.png").write_bytes(image_path.read_bytes()[:2000])
    bomb = b"P6 60000 60000 255\n"
    (tmp_path / "bomb.ppm").write_bytes(bomb)
    files = [str(file) for file in sorted(tmp_path.iterdir())] + [str(image_path)]
    session = look_at(Session(), files, models.start[:1], models)
    page = session.results(models, 0.5)
    ET.fromstring(f"<page>{page}</page>")
    for name in ("bomb.ppm", "cut & <b>.png", "empty.png", "letter.pdf"):
        assert sum(name in problem for problem in session.problems) == 1
    assert len(session.problems) == 4
    assert str(tmp_path) not in page
    assert "cut &amp; &lt;b&gt;.png" in page
    assert page.count("<figure") == 1


def test_too_many_images_and_no_model_are_said(image_path, models, tmp_path):
    files = []
    for n in range(MAX_IMAGES + 2):
        files.append(str(tmp_path / f"{n}.png"))
        Image.new("RGB", (8, 8)).save(files[-1])
    session = look_at(Session(), files, [], models)
    assert len(session.images) == MAX_IMAGES
    assert session.problems == (
        "Choose at least one model.",
        f"{MAX_IMAGES + 2} images: the first {MAX_IMAGES} are shown.",
    )


def test_a_model_that_fails_says_so_and_is_tried_again(image_path, model_dirs, tmp_path):
    late = tmp_path / "late"
    specs = [str(model_dirs[0]), str(late)]
    models = Models(named_choices(specs), specs[:1], device=torch.device("cpu"))
    session = look_at(Session(), [str(image_path)], specs, models)
    assert "no model" in session.results(models, 0.5)
    shutil.copytree(model_dirs[1], late)
    assert "no model" not in look_at(session, [str(image_path)], specs, models).results(models, 0.5)
