"""The command itself, seen in a real browser."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from isic_smp.data.images import read_image, read_mask
from isic_smp.inference.load import load_bundle
from isic_smp.inference.predictor import Predictor

pytestmark = pytest.mark.slow

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
    # Chromium holds the name with an empty file, and moves the whole one there in the end.
    wait.until(lambda _: file.exists() and file.stat().st_size)
    np.testing.assert_array_equal(read_mask(file), probabilities > 0.6)

    find("#outlines input")[0].click()
    wait.until(lambda _: line_hidden(browser))

    asked = asked_by_pages(browser)
    assert len(asked) > 20
    assert [u for u in asked if not u.startswith((url, "data:", "blob:"))] == []
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


def asked_by_pages(browser) -> list[str]:
    """The address of every request so far, but for those of Chromium's own pages, such as the tab it starts with."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    own = ("chrome:", "chrome-untrusted:")
    return [r["request"]["url"] for r in requests if not r["documentURL"].startswith(own)]


def line_hidden(browser) -> bool:
    script = "return getComputedStyle(document.querySelector('#results .line')).visibility"
    return browser.execute_script(script) == "hidden"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_strangers_are_refused(host, tmp_path):
    with page_of(["--model", "isic2016", "--host", host], "isic2016", tmp_path) as (url, _):
        place = urlsplit(url)

        def ask(name: str) -> bytes:
            with socket.create_connection((host, place.port), timeout=60) as visitor:
                visitor.sendall(f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
                return visitor.makefile("rb").read()

        stranger = ask("attacker.example")
        assert stranger.startswith(b"HTTP/1.1 400")
        assert b"gradio" not in stranger
        for name in (f"localhost:{place.port}", place.netloc):
            guest = ask(name)
            assert guest.startswith(b"HTTP/1.1 200")
            assert b"content-security-policy: default-src 'self'" in guest.lower()
