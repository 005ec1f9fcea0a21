"""The page by itself, then in a real browser."""

import base64
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import isic_smp
from isic_smp import demo
from isic_smp.data.images import read_image, read_mask
from isic_smp.data.isic2016 import FOLDERS
from isic_smp.data.resize import resize_image
from isic_smp.demo_page.analysis import agreement, analyse, draw
from isic_smp.demo_page.models import Models, named_choices, registered_choices
from isic_smp.demo_page.session import MAX_IMAGES, Session, look_at
from isic_smp.errors import UserError
from isic_smp.inference.expected_iou import ExpectedIoU
from isic_smp.inference.load import load_bundle, save_bundle
from isic_smp.inference.predictor import Predictor
from isic_smp.inference.preprocessing import Preprocessing

EXPECTED = ExpectedIoU(intercept=0.2, slope=0.8)


def save_model(folder: Path, seed: int, image: np.ndarray) -> Path:
    """A small random network, its logits on `image` spread out so that every threshold draws another mask."""
    torch.manual_seed(seed)
    model = isic_smp.create_model(
        "upconvnet", encoder_name="trunc-mobilenetv3_small_050-s1", encoder_weights=None
    )
    preprocessing = Preprocessing(size=64, mean=(0.5,) * 3, std=(0.5,) * 3, threshold=0.45)
    logits = Predictor(model, preprocessing).logits(resize_image(image, 64)[None])
    scale = 1.5 / logits.std()
    with torch.no_grad():
        model.segmentation_head[0].weight *= scale
        model.segmentation_head[0].bias.copy_((model.segmentation_head[0].bias - logits.mean()) * scale)
    info = {"validation": {"dice_per_image_own": 0.875}}
    if seed:  # the other one is of an older version
        info |= EXPECTED.to_facts()
    save_bundle(model, preprocessing, info, folder / "model")
    return folder


@pytest.fixture(scope="module")
def image_path(isic_dir, tmp_path_factory) -> Path:
    """A real image, at a size that is neither square nor the network's."""
    path = tmp_path_factory.mktemp("image") / "ISIC_0000013.png"
    picture = Image.open(isic_dir / FOLDERS[2] / "ISIC_0000013.jpg")
    picture.resize((300, 225), Image.Resampling.LANCZOS).save(path)
    return path


@pytest.fixture(scope="module")
def model_dirs(image_path, tmp_path_factory) -> list[Path]:
    root = tmp_path_factory.mktemp("models")
    return [save_model(root / f"model-{seed}", seed, read_image(image_path)) for seed in (0, 1)]


@pytest.fixture
def models(model_dirs) -> Models:
    specs = [str(folder) for folder in model_dirs]
    return Models(named_choices(specs), specs, device=torch.device("cpu"))


@pytest.fixture
def predictor(model_dirs) -> Predictor:
    bundle = load_bundle(model_dirs[0])
    return Predictor(bundle.model, bundle.preprocessing)


def saved_masks(page: str) -> dict[str, np.ndarray]:
    """The masks that the page's links hold, by file name."""
    links = re.findall(r'download="([^"]+)" href="data:image/png;base64,([^"]+)"', page)
    return {
        name: cv2.imdecode(np.frombuffer(base64.b64decode(png), np.uint8), cv2.IMREAD_UNCHANGED)
        for name, png in links
    }


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_drawing_agrees_with_the_predictor(image_path, predictor, threshold):
    image = read_image(image_path)
    expected = predictor.predict([image])[0]
    drawing = draw(analyse(image, predictor), image.shape[:2], threshold=threshold)
    np.testing.assert_array_equal(drawing.mask, expected > threshold)
    assert 0 < drawing.pixels < expected.size
    assert drawing.pixels == (expected > threshold).sum()
    assert drawing.share == pytest.approx((expected > threshold).mean())
    assert drawing.confidence == pytest.approx(expected[expected > threshold].mean(), abs=1e-6)
    filled = np.zeros(expected.shape, np.uint8)
    cv2.fillPoly(filled, [np.floor(line).astype(np.int32) for line in drawing.outline], 1)
    assert agreement(filled > 0, drawing.mask) > 0.95


def test_the_outline_follows_a_known_shape():
    rows, columns = np.mgrid[:64, :64]
    blob = np.hypot(rows - 20, columns - 24)
    chance = (0.9 - 0.02 * blob).clip(0.02, 1).astype(np.float32)
    drawing = draw(chance, (200, 400), threshold=0.7)
    assert drawing.pieces == 1
    assert not drawing.touches_edge
    line = np.concatenate(drawing.outline)
    # radius 10 of 64, round (24.5, 20.5) of 64, stretched to 400 × 200
    assert line.mean(axis=0) == pytest.approx([24.5 / 64 * 400, 20.5 / 64 * 200], abs=4)
    assert np.ptp(line[:, 0]) == pytest.approx(20 / 64 * 400, abs=4)
    assert np.ptp(line[:, 1]) == pytest.approx(20 / 64 * 200, abs=3)
    assert draw(chance, (200, 400), threshold=0.2).touches_edge


def test_nothing_found_is_said(tmp_path):
    chance = np.full((32, 32), 0.2, np.float32)
    drawing = draw(chance, (90, 60), threshold=0.5)
    assert (drawing.pixels, drawing.share, drawing.pieces, drawing.outline) == (0, 0, 0, [])
    assert drawing.confidence == pytest.approx(0.8)
    assert agreement(drawing.mask, drawing.mask) == 1


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


def test_the_page_says_which_mask_needs_a_look(image_path, models):
    session = look_at(Session(), [str(image_path)], models.start, models)
    answer = session.images[str(image_path)].answers[models.start[1]]
    said = {threshold: EXPECTED.of(answer, threshold) for threshold in (0.05, 0.5, 0.95)}
    assert min(said.values()) < 0.65
    for threshold, expected in said.items():
        page = session.results(models, threshold)
        assert page.count("Expected IoU") == 1  # of the model that has an estimate
        assert f"<b>{expected:.2f}</b>" in page
        assert ("This mask needs a look" in page) == (expected < 0.65)


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


def test_only_models_on_offer_are_loaded(models, model_dirs):
    with pytest.raises(UserError, match="none of the models"):
        models.predictor(str(model_dirs[0] / "model"))


def test_names_of_models():
    specs = ["models:/les/3", "models:/les@champion", "a/run-1", "a/run-1/model", "0" * 31 + "a", "b/x"]
    labels = [choice.label for choice in named_choices([*specs, specs[0]])]
    assert labels == ["les, version 3", "les (champion)", "a/run-1", "a/run-1/model", "run 00000000", "x"]


@pytest.mark.slow
def test_registered_versions(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    shipped = ("isic2016", "isic2016 (comes with the package)")
    choices, start = registered_choices(uri)
    assert [(choice.spec, choice.label) for choice in choices] == [shipped] and start == ["isic2016"]
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    for name in ("moles", "lesions"):
        client.create_registered_model(name)
        for _ in range(2):
            client.create_model_version(name, source=str(tmp_path))
    assert registered_choices(uri)[1][0].endswith("/2")  # the newest
    client.set_registered_model_alias("moles", "candidate", "2")
    client.set_registered_model_alias("lesions", "champion", "1")
    choices, start = registered_choices(uri)
    assert [(choice.spec, choice.label) for choice in choices] == [
        ("models:/lesions/2", "lesions, version 2"),
        ("models:/lesions/1", "lesions, version 1 (champion)"),
        ("models:/moles/2", "moles, version 2 (candidate)"),
        ("models:/moles/1", "moles, version 1"),
        shipped,
    ]
    assert start == ["models:/lesions/1"]


def test_addresses():
    with demo.listen("127.0.0.1", 0) as door:
        port = door.getsockname()[1]
        with pytest.raises(UserError, match=rf"cannot serve at 127.0.0.1:{port}: .*another --port"):
            demo.listen("127.0.0.1", port)
    with pytest.raises(UserError, match="--port must lie between"):
        demo.listen("127.0.0.1", 70_000)
    assert [demo.is_loopback(host) for host in ("127.0.0.1", "::1", "localhost")] == [True] * 3
    assert [demo.is_loopback(host) for host in ("0.0.0.0", "192.168.1.4", "example.org")] == [False] * 3


# --- in the browser -------------------------------------------------------------------------------

# Tells on stderr of every address that the server looks up or connects to.
WATCHED = """
import runpy, sys
def told(event, args):
    if event == "socket.connect" and isinstance(args[1], tuple):
        print("CONNECT", args[1][0], file=sys.stderr, flush=True)
sys.addaudithook(told)
runpy.run_module("isic_smp.demo", run_name="__main__", alter_sys=True)
"""


@contextmanager
def page_of(words: list[str], names: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """The command itself, which must offer the models `names`; gives the page's address and the file of its stderr."""
    pytest.importorskip("gradio", reason="needs pip install 'isic-smp[demo]'")
    (folder / "uploads").mkdir()
    env = {**os.environ, "TMPDIR": str(folder / "uploads")}
    with (folder / "stderr").open("w") as err:
        process = subprocess.Popen(
            [sys.executable, "-c", WATCHED, *words, "--port", "0"],
            stdout=subprocess.PIPE, stderr=err, text=True, env=env,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == f"models: {names}\n", (folder / "stderr").read_text()
        yield process.stdout.readline().split()[1], folder / "stderr"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
        assert not list((folder / "uploads").glob("isic_smp_demo_*"))  # no image stays behind
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def server(model_dirs, tmp_path):
    words = [word for folder in model_dirs for word in ("--model", str(folder))]
    with page_of(words, "model-0; model-1", tmp_path) as started:
        yield started


@pytest.fixture
def browser(tmp_path):
    chromium, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if not (chromium and driver):
        pytest.skip("needs a browser: apt-get install chromium chromium-driver")
    selenium = pytest.importorskip("selenium", reason="needs pip install selenium")
    from selenium import webdriver

    assert selenium
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
        "disable-component-update", "disable-sync", "window-size=1440,1000", f"user-data-dir={tmp_path / 'profile'}",
    ):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path / "downloads")})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield chrome
    chrome.quit()


@pytest.mark.slow
def test_in_a_browser(server, browser, image_path, predictor, tmp_path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    url, stderr = server
    wait = WebDriverWait(browser, 120)

    def find(selector: str):
        return wait.until(lambda b: b.find_elements(By.CSS_SELECTOR, selector))

    def area() -> str:
        return browser.execute_script("return document.querySelector('#results dd small')?.innerText")

    def said(threshold: float) -> str:
        mask = probabilities > threshold
        return f"{mask.sum():,} of {mask.size:,} pixels"

    probabilities = predictor.predict([read_image(image_path)])[0]
    browser.get(url)
    find("#results .nothing")
    assert "Not a medical device" in find("#note")[0].text

    bad = tmp_path / "letter.png"
    bad.write_text("no picture")
    find("#files input[type=file]")[0].send_keys(f"{image_path}\n{bad}")
    find("#results .case")
    assert "letter.png cannot be decoded as an image" in find("#results [role=alert]")[0].text
    assert len(find("#results .look")) == 2
    wait.until(lambda _: area() == said(0.45))  # the model's own threshold
    photo = find("#results .photo")[0]
    assert photo.value_of_css_property("background-image").startswith('url("data:image/jpeg')
    assert photo.size["width"] / photo.size["height"] == pytest.approx(300 / 225, abs=0.02)
    line = find("#results .line")[0]
    assert line.get_attribute("d").startswith("M")
    assert line.value_of_css_property("stroke") == "rgb(255, 225, 0)"
    assert line.size["width"] > 20
    left, right = (look.location for look in find("#results .look"))
    assert left["y"] == right["y"]
    assert left["x"] < right["x"]

    slider = find("#threshold input[type=range]")[0]
    browser.execute_script(
        "arguments[0].value = 0.6; arguments[0].dispatchEvent(new Event('input', {bubbles: true}))", slider
    )
    wait.until(lambda _: area() == said(0.6))

    (tmp_path / "downloads").mkdir()
    browser.execute_script("arguments[0].click()", find("#results .save")[0])
    file = tmp_path / "downloads" / "ISIC_0000013_Segmentation_model-0.png"
    wait.until(lambda _: file.exists())
    np.testing.assert_array_equal(read_mask(file), probabilities > 0.6)

    find("#outlines input")[0].click()
    wait.until(lambda _: line_hidden(browser))

    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert len(asked) > 20
    assert [u for u in asked if not u.startswith((url, "data:", "blob:", "chrome:"))] == []
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    hosts = set(re.findall(r"^CONNECT (\S+)$", stderr.read_text(), re.M))
    assert hosts <= {"127.0.0.1"}
    assert "Traceback" not in stderr.read_text()


def register(folders: list[Path], root: Path) -> str:
    """Make the models versions 1, 2, … of `lesions`, the first the champion; the store's URI."""
    from mlflow import MlflowClient

    from isic_smp.inference.from_mlflow import MODEL_FOLDER
    from isic_smp.store import prepare_store

    uri = prepare_store(f"sqlite:///{root / 'mlflow.db'}")
    client = MlflowClient(uri)
    experiment = client.create_experiment("tests", artifact_location=str(root / "artifacts"))
    client.create_registered_model("lesions")
    for folder in folders:
        run = client.create_run(experiment)
        client.log_artifacts(run.info.run_id, str(folder / "model"), MODEL_FOLDER)
        client.create_model_version("lesions", source=str(folder / "model"), run_id=run.info.run_id)
    client.set_registered_model_alias("lesions", "champion", "1")
    return uri


@pytest.mark.slow
def test_registered_versions_side_by_side_in_a_browser(browser, model_dirs, image_path, tmp_path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    wait = WebDriverWait(browser, 120)

    def find(selector: str):
        return wait.until(lambda b: b.find_elements(By.CSS_SELECTOR, selector))

    uri = register(model_dirs, tmp_path)
    names = ["lesions, version 2", "lesions, version 1 (champion)"]
    offered = "; ".join([*names, "isic2016 (comes with the package)"])
    with page_of(["--tracking-uri", uri], offered, tmp_path) as (url, stderr):
        browser.get(url)
        find("#files input[type=file]")[0].send_keys(str(image_path))
        find("#results .case")
        assert [c.text for c in find("#results figcaption span")] == [names[1]]  # the champion comes first

        find("#models input")[0].click()
        wait.until(lambda _: [o for o in find("#models [role=option]") if names[0] in o.text])[0].click()
        wait.until(lambda b: len(b.find_elements(By.CSS_SELECTOR, "#results .look")) == 2)
        browser.find_element(By.CSS_SELECTOR, "#note h1").click()  # closes the list
        assert [caption.text for caption in find("#results figcaption span")] == names[::-1]
        said = [detail.text for detail in find("#results .row:first-child dd small")]
        for folder, area in zip(model_dirs, said, strict=True):
            bundle = load_bundle(folder)
            [probabilities] = Predictor(bundle.model, bundle.preprocessing).predict([read_image(image_path)])
            assert area == f"{(probabilities > 0.45).sum():,} of {probabilities.size:,} pixels"
        assert "Traceback" not in stderr.read_text()


def line_hidden(browser) -> bool:
    script = "return getComputedStyle(document.querySelector('#results .line')).visibility"
    return browser.execute_script(script) == "hidden"


@pytest.mark.slow
def test_strangers_are_refused(server):
    url, _ = server
    host, port = url.removeprefix("http://").split(":")

    def ask(name: str) -> bytes:
        with socket.create_connection((host, int(port)), timeout=60) as visitor:
            visitor.sendall(f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
            return visitor.makefile("rb").read()

    stranger = ask("attacker.example")
    assert stranger.startswith(b"HTTP/1.1 400")
    assert b"gradio" not in stranger
    for name in (f"localhost:{port}", f"{host}:{port}"):
        guest = ask(name)
        assert guest.startswith(b"HTTP/1.1 200")
        assert b"content-security-policy: default-src 'self'" in guest.lower()
