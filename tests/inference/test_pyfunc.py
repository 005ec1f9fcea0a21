"""What mlflow.pyfunc.load_model gives: images in every form people have them, masks as the Predictor makes them."""

import ast
import base64
import dataclasses
import io
import json
import sys
import zlib
from pathlib import Path

import cv2
import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.exceptions import MlflowException
from PIL import Image
from torch import nn

from isic_smp.data.images import MAX_PIXELS, read_image
from isic_smp.data.resize import resize_image
from isic_smp.inference import standalone
from isic_smp.inference.expected_iou import ExpectedIoU
from isic_smp.inference.predictor import Predictor
from isic_smp.inference.preprocessing import Preprocessing
from isic_smp.tracking.mlflow_model import save_mlflow_model

TOLERANCE = 1e-4
"""Largest difference of a probability between the exported program and the network it was exported from."""
SHAPED = {"largest_piece": True, "close_bays": True}

EXPECTED = ExpectedIoU(intercept=0.3, slope=0.6)

RNG = np.random.default_rng(0)
PIXELS = cv2.resize(RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8), dsize=(90, 61))
OTHER = cv2.resize(RNG.integers(0, 256, (4, 4, 3), dtype=np.uint8), dsize=(20, 47))


@pytest.fixture(scope="module")
def network(make_unet):
    model = make_unet()
    torch.nn.init.normal_(model.segmentation_head[0].weight, std=0.5)  # probabilities from near 0 to near 1
    return model.eval()


@pytest.fixture(scope="module")
def folder(network, preprocessing, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mlflow") / "model"
    save_mlflow_model(network, preprocessing, {"recipe": {"seed": 3}, **EXPECTED.to_facts()}, folder)
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return mlflow.pyfunc.load_model(str(folder))


class DarkOnTheLeft(nn.Module):
    """Lesion is what has something dark beside it, on its left: saved and loaded in a fraction of a second."""

    def __init__(self):
        super().__init__()
        self.encoder, self.look = nn.Identity(), nn.Conv2d(3, 1, 3, padding=1)
        with torch.no_grad():
            self.look.weight.zero_()[:, :, 1, 0] = -4 / 3
            self.look.bias.zero_()

    def forward(self, x):
        return self.look(x)


DARK = Preprocessing(size=32, mean=(0.5,) * 3, std=(0.25,) * 3)


@pytest.fixture(scope="module")
def dark_folder(tmp_path_factory) -> Path:
    """A model without an estimate of its IoU."""
    folder = tmp_path_factory.mktemp("dark") / "model"
    save_mlflow_model(DarkOnTheLeft(), DARK, {}, folder)
    return folder


@pytest.fixture
def served(monkeypatch):
    """As in the process that answers HTTP requests."""
    monkeypatch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")


@pytest.fixture(scope="module")
def expected(network, preprocessing):
    predictor = Predictor(network, preprocessing)
    return lambda pixels: predictor.predict([pixels])[0]


def encoded(pixels: np.ndarray, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


PNG = encoded(PIXELS)
TEXT = base64_of(PNG)


@pytest.fixture
def png(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    return tmp_path / "a.png"


FORMS = {
    "path": lambda path: path,
    "path as text": str,
    "bytes": lambda path: path.read_bytes(),
    "bytearray": lambda path: bytearray(path.read_bytes()),
    "base64": lambda _: TEXT,
    "base64 in lines": lambda _: base64.encodebytes(PNG).decode(),
    "data URL": lambda _: f"data:image/png;base64,{TEXT}",
    "PIL": lambda _: Image.fromarray(PIXELS),
    "array": lambda _: PIXELS,
    "array of other strides": lambda _: PIXELS[::-1][::-1],
}
HOLDERS = {
    "alone": lambda image: image,
    "list": lambda image: [image],
    "tuple": lambda image: (image,),
    "table": lambda image: pd.DataFrame({"id": [7], "image": [image]}),
    "column": lambda image: pd.Series([image]),
    "dict": lambda image: {"image": [image]},
    "records": lambda image: [{"image": image}],
}


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("form", FORMS)
def test_an_image_in_every_form_gives_the_predictors_mask(form, holder, model, png, expected):
    [row] = model.predict(HOLDERS[holder](FORMS[form](png))).to_dict("records")
    wanted = expected(PIXELS)
    assert row["probability"].dtype == np.float32
    assert np.abs(row["probability"] - wanted).max() < TOLERANCE
    assert np.array_equal(row["mask"], (row["probability"] > 0.5).astype(np.uint8))
    assert (row["height"], row["width"]) == PIXELS.shape[:2]


@pytest.mark.oldest
def test_images_of_several_sizes_and_forms_at_once_each_at_its_own(model, png, expected):
    table = model.predict([PIXELS, Image.fromarray(OTHER), png, base64_of(encoded(OTHER))])
    for probability, pixels in zip(table["probability"], [PIXELS, OTHER, PIXELS, OTHER], strict=True):
        assert np.abs(probability - expected(pixels)).max() < TOLERANCE


def test_a_batch_array_is_its_images(model, expected):
    table = model.predict(np.stack([PIXELS, PIXELS[:, ::-1]]))
    assert np.abs(table["probability"][1] - expected(PIXELS[:, ::-1].copy())).max() < TOLERANCE


def test_rows_keep_the_index_of_the_table_they_answer(model):
    table = model.predict(pd.DataFrame({"image": [PIXELS, OTHER]}, index=["left", "right"]))
    assert table.loc["right", "mask"].shape == OTHER.shape[:2]


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(PIXELS, "JPEG", exif=exif)


ODD = {
    "turned by EXIF": turned,
    "grey": lambda: encoded(PIXELS[..., 0]),
    "see-through": lambda: encoded(np.dstack([PIXELS, PIXELS[..., :1]])),
    "16 bit": lambda: encoded(PIXELS[..., 0].astype(np.uint16) * 257),
    "JPEG": lambda: encoded(PIXELS, "JPEG"),
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_pictures_are_read_as_in_training(kind, model, expected, tmp_path):
    data = ODD[kind]()
    (tmp_path / "odd").write_bytes(data)
    opened = Image.open(io.BytesIO(data))
    table = model.predict([data, opened])
    wanted = expected(read_image(tmp_path / "odd"))
    for probability in table["probability"]:
        assert probability.shape == wanted.shape
        assert np.abs(probability - wanted).max() < TOLERANCE


def test_grey_and_rgba_arrays_are_read_as_their_files_are(model, tmp_path):
    for n, array in enumerate([PIXELS[..., 0], PIXELS[..., :1], np.dstack([PIXELS, PIXELS[..., 1]])]):
        path = tmp_path / f"{n}.png"
        path.write_bytes(encoded(array[..., 0] if array.shape[2:] == (1,) else array))
        one, other = model.predict([array, path])["probability"]
        assert np.array_equal(one, other)


def test_the_figures_are_those_of_the_mask(model):
    row = model.predict(PIXELS).iloc[0]
    mask = row["mask"].astype(bool)
    assert 0 < mask.mean() < 1
    assert row["lesion_pixels"] == mask.sum()
    assert row["lesion_share"] == pytest.approx(mask.mean())
    assert row["confidence"] == pytest.approx(row["probability"][mask].mean(), abs=1e-6)


def test_the_expected_iou_is_that_of_the_probabilities_at_the_networks_size(model, network, preprocessing):
    small = resize_image(PIXELS, preprocessing.size)[None]
    [chance] = Predictor(network, preprocessing).probabilities(small).numpy()
    for threshold in (0.5, 0.8):
        row = model.predict(PIXELS, params={"threshold": threshold}).iloc[0]
        assert row["expected_iou"] == pytest.approx(EXPECTED.of(chance, threshold), abs=1e-3)
    assert EXPECTED.of(chance, 0.5) != pytest.approx(EXPECTED.of(chance, 0.8), abs=1e-2)


def test_a_model_without_an_estimate_says_none(dark_folder):
    assert mlflow.pyfunc.load_model(str(dark_folder)).predict(PIXELS).iloc[0]["expected_iou"] is None


def test_an_empty_mask_is_as_sure_as_skin_is_probable(model):
    row = model.predict(PIXELS, params={"threshold": 0.999999}).iloc[0]
    assert row["lesion_pixels"] == 0 and not row["mask"].any()
    assert row["confidence"] == pytest.approx(1 - row["probability"].mean(), abs=1e-6)


def test_settings_can_be_changed_when_loading_and_the_threshold_with_each_call(dark_folder):
    flipping = mlflow.pyfunc.load_model(
        str(dark_folder), model_config={"test_time_flips": True, "threshold": 0.25}
    )
    changed = dataclasses.replace(DARK, test_time_flips=True)
    wanted = Predictor(DarkOnTheLeft(), changed).predict([PIXELS])[0]
    row = flipping.predict(PIXELS).iloc[0]
    assert np.abs(row["probability"] - wanted).max() < TOLERANCE
    assert np.array_equal(row["mask"], row["probability"] > 0.25)
    again = flipping.predict(PIXELS, params={"threshold": 0.75}).iloc[0]
    assert np.array_equal(again["mask"], row["probability"] > 0.75)


def test_a_setting_that_is_text_is_not_taken_for_yes(dark_folder):
    with pytest.raises(MlflowException, match="test_time_flips must be true or false, got 'false'"):
        mlflow.pyfunc.load_model(str(dark_folder), model_config={"test_time_flips": "false"})


@pytest.mark.parametrize("flips", [False, True])
def test_a_second_look_is_the_predictors_own(flips, dark_folder):
    rows, columns = np.mgrid[:90, :120]
    disc = (rows - 40) ** 2 + (columns - 70) ** 2 < 9**2
    image = np.where(disc[..., None], 120, 135).astype(np.uint8).repeat(3, axis=2)  # faint

    def predictors_own(**settings):
        return Predictor(DarkOnTheLeft(), dataclasses.replace(DARK, **settings)).predict([image])[0]

    settings = {"test_time_flips": flips, "second_look": True, "least_contrast": 0.3}
    loaded = mlflow.pyfunc.load_model(str(dark_folder), model_config=settings)
    found, wanted = loaded.predict(image).iloc[0]["probability"], predictors_own(**settings)
    assert np.abs(found - wanted).max() < TOLERANCE
    for name in settings:  # each makes a difference
        assert (
            np.abs(
                wanted - predictors_own(**settings | {name: type(settings[name])(not settings[name])})
            ).max()
            > 0.05
        )


def test_the_mask_s_shape_is_that_of_the_threshold_asked_for(dark_folder):
    threshold = float(np.quantile(Predictor(DarkOnTheLeft(), DARK).predict([PIXELS])[0], 0.7))
    asked = {"threshold": threshold}
    loaded = mlflow.pyfunc.load_model(str(dark_folder), model_config=SHAPED)
    found = loaded.predict(PIXELS, params=asked).iloc[0]["mask"]
    changed = dataclasses.replace(DARK, **SHAPED, **asked)
    wanted = Predictor(DarkOnTheLeft(), changed).predict([PIXELS])[0] > threshold
    assert np.array_equal(found, wanted)
    as_seen = mlflow.pyfunc.load_model(str(dark_folder)).predict(PIXELS, params=asked).iloc[0]["mask"]
    assert (as_seen > found).any(), "a piece was put out"
    assert (found > as_seen).any(), "a bay was closed"


@pytest.mark.parametrize("threshold", [0.2, 0.5])
def test_a_faint_lesion_is_wrapped_as_the_predictor_wraps_it(threshold, dark_folder):
    image = np.full((90, 120, 3), 150, np.uint8)
    cv2.ellipse(image, (60, 45), (30, 30), 0, 0, 200, (110, 110, 110), 6)
    settings = {"wrap_below": 0.9}
    loaded = mlflow.pyfunc.load_model(str(dark_folder), model_config=settings)
    found = loaded.predict(image, params={"threshold": threshold}).iloc[0]["mask"]
    changed = dataclasses.replace(DARK, threshold=threshold, **settings)
    assert np.array_equal(found, Predictor(DarkOnTheLeft(), changed).predict([image])[0] > threshold)
    as_seen = Predictor(DarkOnTheLeft(), DARK).predict([image])[0] > threshold
    assert found.sum() > 1.2 * as_seen.sum() and (found >= as_seen).all()


def decoded(png: str) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(base64.b64decode(png))))


def test_png_output_holds_the_same_mask_and_probabilities(model):
    arrays = model.predict(PIXELS).iloc[0]
    pngs = model.predict(PIXELS, params={"output": "png"}).iloc[0]
    assert np.array_equal(decoded(pngs["mask"]), arrays["mask"] * 255)
    assert np.abs(decoded(pngs["probability"]) / 255 - arrays["probability"]).max() <= 0.5 / 255 + 1e-6
    json.dumps(pngs.drop(["height", "width", "lesion_pixels"]).to_dict())


BAD = {
    "no image": ([], "at least one image, got none"),
    "an empty table": (pd.DataFrame({"image": []}), "at least one image, got none"),
    "another column": (pd.DataFrame({"picture": [TEXT]}), "expected the column 'image', got 'picture'"),
    "a number": (3, "expected images, got int"),
    "nothing": ([None], "image 1 of 1 is of type NoneType"),
    "a missing value": (pd.DataFrame({"image": [PNG, np.nan]}), "image 2 of 2 is of type float"),
    "no bytes": (b"", "image 1 of 1 cannot be decoded as an image: empty, or not in a format"),
    "no letters": ("", "empty, or not in a format that is read"),
    "words": ("a lesion on the left arm", "is not base64"),
    "no such file": ("no/such/file.jpg", "'no/such/file.jpg', is not base64: expected an existing file"),
    "an address": ("https://example.org/a.jpg", "is not base64"),
    "a data URL without base64": ("data:image/svg+xml,<svg/>", "is not base64"),
    "base64 of text": (base64_of(b"hello, this is text"), "empty, or not in a format that is read"),
    "half a file": ([PNG, PNG[:700]], "image 2 of 2 cannot be decoded"),
    "floats": (np.zeros((8, 8, 3)), "array float64 .* expected uint8"),
    "two channels": (np.zeros((8, 8, 2), np.uint8), "expected uint8"),
    "no pixels": (np.zeros((0, 8, 3), np.uint8), "expected uint8"),
    "an EPS file": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "empty, or not in a format that is read",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_refused_in_one_line_that_names_the_image(kind, model):
    received, message = BAD[kind]
    with pytest.raises(MlflowException, match=message) as caught:
        model.predict(received)
    assert caught.value.get_http_status_code() == 400
    assert "\n" not in str(caught.value)


def huge_header(width: int, height: int) -> bytes:
    """A PNG file that says it is huge, in 70 bytes."""
    whole = bytearray(encoded(np.zeros((1, 1), np.uint8)))
    whole[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")

    whole[29:33] = zlib.crc32(whole[12:29]).to_bytes(4, "big")
    return bytes(whole)


@pytest.mark.parametrize("side", [60_000, 11_000])
def test_a_bomb_is_refused_by_its_header(side, model):
    assert side**2 > MAX_PIXELS
    with pytest.raises(MlflowException, match="refused"):
        model.predict(huge_header(side, side))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"threshold": 0.0}, "between 0 and 1, got 0.0"),
        ({"threshold": 7.0}, "got 7.0"),
        ({"threshold": float("nan")}, "nan"),
        ({"threshold": "high"}, "threshold"),
        ({"output": "jpeg"}, "one of auto, arrays, png, got 'jpeg'"),
    ],
)
def test_bad_parameters_are_refused(params, message, model):
    with pytest.raises(MlflowException, match=message) as caught:
        model.predict(PIXELS, params=params)
    assert caught.value.get_http_status_code() == 400


def test_over_http_no_file_is_read_and_none_betrayed(served, model, png):
    def answer(path: Path) -> str:
        with pytest.raises(MlflowException) as caught:
            model.predict([str(path)])
        return str(caught.value).replace(str(path), "PATH")

    assert answer(png) == answer(png.with_name("none.png"))
    assert "files and addresses are not read" in answer(png)
    with pytest.raises(MlflowException, match="PosixPath"):
        model.predict([png])


def test_files_can_be_closed_off_in_any_process(dark_folder, png):
    model = mlflow.pyfunc.load_model(str(dark_folder), model_config={"read_files": False})
    with pytest.raises(MlflowException, match="files and addresses are not read"):
        model.predict([str(png)])
    assert len(model.predict([TEXT])) == 1


@pytest.mark.oldest
def test_over_http_masks_are_png_and_requests_are_bounded(served, model):
    row = model.predict([TEXT]).iloc[0]
    assert decoded(row["mask"]).shape == PIXELS.shape[:2]
    assert isinstance(model.predict([TEXT], params={"output": "arrays"})["mask"][0], np.ndarray)
    with pytest.raises(MlflowException, match="33 images in one request: at most 32"):
        model.predict([TEXT] * 33)
    large = base64_of(encoded(np.zeros((1100, 1000, 3), np.uint8)))
    with pytest.raises(MlflowException, match="ask for output png"):
        model.predict([large], params={"output": "arrays"})


def test_http_answers_hold_the_reason_and_not_the_request(model):
    with pytest.raises(MlflowException) as caught:
        model.predict(["%" * 5_000])
    caught.value.message = f"Failed to predict data '{'%' * 5_000}'"  # as MLflow's server does
    answer = json.loads(caught.value.serialize_as_json())
    assert len(answer["message"]) < 300 and "is not base64" in answer["message"]


def test_the_served_code_needs_nothing_of_isic_smp(folder):
    tree = ast.parse((folder / "segment_lesions.py").read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    packages = {name.partition(".")[0] for name in imported} - sys.stdlib_module_names
    assert packages == {"PIL", "cv2", "mlflow", "numpy", "pandas", "torch"}


def test_the_folder_names_no_place_of_this_machine(folder):
    for file in [folder / "MLmodel", folder / "segment_lesions.py", folder / "requirements.txt"]:
        text = file.read_text()
        assert str(Path.cwd()) not in text and str(folder) not in text and "/tmp" not in text


def test_the_folder_says_what_the_model_is(folder, preprocessing):
    described = mlflow.models.Model.load(str(folder))
    assert described.metadata["preprocessing"] == preprocessing.to_dict()
    assert described.metadata["recipe"] == {"seed": 3}
    assert [c.name for c in described.signature.outputs][-2:] == ["mask", "probability"]


def test_the_example_request_is_one_that_the_model_answers(folder, model, served):
    request = json.loads((folder / "serving_input_example.json").read_text())
    table = model.predict(pd.DataFrame(**request["dataframe_split"]))
    assert decoded(table["mask"][0]).shape == (32, 42)


def test_modules_that_do_not_fit_together_are_noticed(monkeypatch):
    monkeypatch.setattr(standalone, "MODULES", ("isic_smp.data.images",))
    with pytest.raises(ValueError, match=r"imports UserError of isic_smp\.errors, which is not before it"):
        standalone.standalone_source()
    monkeypatch.setattr(standalone, "MODULES", ("isic_smp.errors", "isic_smp.errors"))
    with pytest.raises(ValueError, match="both define UserError"):
        standalone.standalone_source()
