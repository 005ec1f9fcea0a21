"""`mlflow models serve` on a registered model: masks for images, a clear 400 for all else, and it lives on."""

import base64
import io
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
import requests
from free_port import free_port
from PIL import Image

pytestmark = pytest.mark.slow  # starts a server: half a minute

START_SECONDS = 180


@pytest.fixture(scope="module")
def bundle():
    import segmentation_models_pytorch as smp
    import torch

    from isic_smp.inference.preprocessing import Preprocessing

    torch.manual_seed(0)
    model = smp.Unet("resnet18", encoder_weights=None, encoder_depth=3, decoder_channels=(16, 8, 4)).eval()
    torch.nn.init.normal_(model.segmentation_head[0].weight, std=0.5)
    return model, Preprocessing(size=64, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


@contextmanager
def answering(command: list, port: int, folder: Path, environment: dict[str, str]) -> Iterator[tuple]:
    """The address and the process of a server, once it answers; it is started in `folder`."""
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(START_SECONDS):
            try:
                requests.get(f"{address}/ping", timeout=5)
                break
            except requests.ConnectionError:
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(1)
        else:
            raise AssertionError((folder / "log").read_text())
        yield address, process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


@pytest.fixture(scope="module")
def model_folder(bundle, tmp_path_factory) -> Path:
    from isic_smp.tracking.mlflow_model import save_mlflow_model

    folder = tmp_path_factory.mktemp("serving") / "model"
    save_mlflow_model(*bundle, {}, folder)
    return folder


@pytest.fixture(scope="module")
def server(model_folder, tmp_path_factory):
    """The address and the process of a server of MLflow's, that refuses pickles, started in an empty folder."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # for uvicorn
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", model_folder]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    with answering(command, port, tmp_path_factory.mktemp("elsewhere"), environment) as started:
        yield started


def picture(height: int = 60, width: int = 90, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def file_of(pixels: np.ndarray, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def ask(address: str, body, **headers) -> requests.Response:
    content = body if isinstance(body, (bytes, str)) else json.dumps(body)
    headers = {"Content-Type": "application/json", **headers}
    return requests.post(f"{address}/invocations", data=content, headers=headers, timeout=120)


GOOD = text(file_of(picture()))
LAYOUTS = {
    "split": {"dataframe_split": {"columns": ["image"], "data": [[GOOD]]}},
    "records": {"dataframe_records": [{"image": GOOD}]},
    "inputs": {"inputs": [GOOD]},
    "inputs by name": {"inputs": {"image": [GOOD]}},
    "input by name": {"inputs": {"image": GOOD}},
    "one input": {"inputs": GOOD},
    "instances": {"instances": [{"image": GOOD}]},
    "data URL": {"inputs": [f"data:image/png;base64,{GOOD}"]},
    "more columns": {"dataframe_records": [{"id": 7, "image": GOOD}]},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_answered_with_the_mask(layout, server, bundle):
    from isic_smp.inference.predictor import Predictor

    answer = ask(server[0], LAYOUTS[layout])
    assert answer.status_code == 200, answer.text
    [row] = answer.json()["predictions"]
    [wanted] = Predictor(*bundle).predict([picture()])
    mask, probability = (
        np.array(Image.open(io.BytesIO(base64.b64decode(row[name])))) for name in ("mask", "probability")
    )
    assert np.abs(probability / 255 - wanted).max() < 0.003
    sure = np.abs(wanted - 0.5) > 1e-4
    assert np.array_equal((mask == 255)[sure], (wanted > 0.5)[sure])
    assert row["lesion_pixels"] == np.count_nonzero(mask)


def test_a_csv_table_is_answered_too(server):
    answer = ask(server[0], f"image\n{GOOD}\n", **{"Content-Type": "text/csv"})
    assert answer.status_code == 200 and answer.json()["predictions"][0]["width"] == 90


def test_parameters_change_threshold_and_output(server):
    body = {"inputs": [GOOD], "params": {"output": "arrays", "threshold": 0.9}}
    [row] = ask(server[0], body).json()["predictions"]
    probability = np.array(row["probability"])
    assert probability.shape == (60, 90)
    assert np.array_equal(np.array(row["mask"]), probability > 0.9)


def png_that_says(width: int, height: int) -> bytes:
    whole = bytearray(file_of(np.zeros((1, 1), np.uint8)))
    whole[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    whole[29:33] = zlib.crc32(whole[12:29]).to_bytes(4, "big")
    return bytes(whole)


def true_bomb() -> bytes:
    """A PNG of 20,000 × 20,000 black pixels: 50 kB that become 400 MB."""
    return file_of(np.zeros((20_000, 20_000), np.uint8))


PNG = file_of(picture())
JPEG = file_of(picture(), "JPEG")
BAD_IMAGES = {
    "zero bytes": "",
    "blanks": "  \n ",
    "no base64": "this is a picture of a mole",
    "broken base64": GOOD[:-3] + "!!!",
    "half base64": GOOD[: len(GOOD) // 2 + 1],
    "base64 of text": text(b"hello"),
    "base64 of zeros": text(bytes(5000)),
    "base64 of noise": text(np.random.default_rng(0).bytes(5000)),
    "a signature only": text(PNG[:8]),
    "half a PNG": text(PNG[: len(PNG) // 2]),
    "half a JPEG": text(JPEG[: len(JPEG) // 2]),
    "a PNG with a wrong checksum": text(PNG[:40] + b"\0\0\0\0" + PNG[44:]),
    "a header of 60,000 × 60,000": text(png_that_says(60_000, 60_000)),
    "a header of 2 billion": text(png_that_says(2**31 - 1, 2**31 - 1)),
    "a header of 0 × 0": text(png_that_says(0, 0)),
    "a JPEG header of 65,000": text(JPEG.replace(b"\x00\x3c\x00\x5a", b"\xfd\xe8\xfd\xe8", 1)),
    "a PDF": text(b"%PDF-1.4\n1 0 obj"),
    "an EPS": text(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"),
    "an SVG": text(b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>"),
    "a gzip": text(b"\x1f\x8b\x08" + bytes(50)),
    "a pickle": text(b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94."),
    "a float TIFF": text(file_of(np.full((9, 9), np.nan, np.float32), "TIFF")),
    "a file": "/etc/passwd",
    "a picture of the server": str(Path(__file__).parent / "none.png"),
    "a file address": "file:///etc/passwd",
    "a web address": "http://127.0.0.1/a.png",
    "a data URL of another coding": "data:image/svg+xml;utf8,<svg/>",
    "a bare data URL": "data:,",
    "other letters": "ключ",
    "a zero letter": "\0",
    "a number": 7,
    "nothing": None,
    "true": True,
    "a list": [1, 2, 3],
    "an object": {"b64": GOOD},
}
BAD_BODIES = {
    "no JSON": "{",
    "an empty body": "",
    "null": "null",
    "a string": '"image"',
    "a list": "[1]",
    "bytes that are no text": b"\xff\xfe\x00",
    "an image as it is": PNG,
    "no known key": {"image": GOOD},
    "two keys": {"inputs": [GOOD], "dataframe_records": [{"image": GOOD}]},
    "another column": {"dataframe_split": {"columns": ["picture"], "data": [[GOOD]]}},
    "no columns": {"dataframe_split": {"data": [[GOOD]]}},
    "columns that do not fit": {"dataframe_split": {"columns": ["image"], "data": [[GOOD, GOOD]]}},
    "split as a list": {"dataframe_split": [GOOD]},
    "records as text": {"dataframe_records": GOOD},
    "no rows": {"dataframe_split": {"columns": ["image"], "data": []}},
    "no records": {"dataframe_records": []},
    "no inputs": {"inputs": []},
    "inputs null": {"inputs": None},
    "inputs a number": {"inputs": 5},
    "another name": {"inputs": {"img": [GOOD]}},
    "pixels as numbers": {"inputs": [[[0, 0, 0], [255, 255, 255]]]},
    "too many images": {"inputs": [GOOD] * 33},
    "far too many": {"dataframe_records": [{"image": ""}] * 20_000},
    "one bad among good ones": {"inputs": [GOOD, GOOD, "bad"]},
    "a threshold above 1": {"inputs": [GOOD], "params": {"threshold": 1.5}},
    "a threshold in words": {"inputs": [GOOD], "params": {"threshold": "high"}},
    "an unknown output": {"inputs": [GOOD], "params": {"output": "svg"}},
    "parameters as a list": {"inputs": [GOOD], "params": [0.5]},
    "huge arrays": {"inputs": [text(file_of(picture(1100, 1000)))], "params": {"output": "arrays"}},
}
REQUESTS = {
    **{f"image: {k}": {"dataframe_records": [{"image": v}]} for k, v in BAD_IMAGES.items()},
    **BAD_BODIES,
}


def test_more_than_fifty_kinds_of_bad_requests_get_a_400_and_the_server_lives(server):
    address, process = server
    assert len(REQUESTS) >= 50
    wrong = {}
    for kind, body in REQUESTS.items():
        answer = ask(address, body)
        if answer.status_code != 400:
            wrong[kind] = (answer.status_code, answer.text[:300])
    assert not wrong
    assert process.poll() is None
    assert ask(address, LAYOUTS["inputs"]).status_code == 200


@pytest.mark.parametrize("layout", ["split", "records", "inputs"])
@pytest.mark.parametrize("kind", ["half a PNG", "a header of 60,000 × 60,000", "a file", "zero bytes"])
def test_the_answer_says_in_one_line_which_image_and_why(kind, layout, server):
    body = json.dumps(LAYOUTS[layout]).replace(GOOD, BAD_IMAGES[kind])
    message = ask(server[0], body).json()["message"]
    assert "image 1 of 1" in message and "\n" not in message and len(message) < 400
    assert "Traceback" not in message and "site-packages" not in message


def test_a_picture_on_the_servers_disk_is_as_unknown_as_one_that_is_not(server, tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    answers = [ask(server[0], {"inputs": [str(tmp_path / name)]}) for name in ("a.png", "b.png")]
    assert [a.status_code for a in answers] == [400, 400]
    assert answers[0].text.replace("a.png", "b.png") == answers[1].text


def test_a_decompression_bomb_costs_no_memory(server):
    address, process = server
    workers = psutil.Process(process.pid).children(recursive=True) or [psutil.Process(process.pid)]

    def resident() -> float:
        return sum(p.memory_info().rss for p in workers) / 2**20

    body = {"inputs": [text(true_bomb())]}
    before = resident()
    answer = ask(address, body)
    assert answer.status_code == 400 and "is refused" in answer.json()["message"]
    assert resident() - before < 100


def test_other_ways_of_asking_are_refused_politely(server):
    address, _ = server
    assert ask(address, "a,b", **{"Content-Type": "text/plain"}).status_code == 415
    assert requests.get(f"{address}/invocations", timeout=30).status_code == 405
    assert requests.get(f"{address}/etc/passwd", timeout=30).status_code == 404


@pytest.fixture(scope="module")
def build_context(model_folder, tmp_path_factory) -> Path:
    """What `mlflow models build-docker` would send to Docker, for a registered model."""
    from mlflow import MlflowClient

    from isic_smp.store import prepare_store

    root = tmp_path_factory.mktemp("registry")
    store = prepare_store(f"sqlite:///{root / 'mlflow.db'}")
    client = MlflowClient(store)
    client.create_registered_model("lesions")
    client.create_model_version("lesions", source=str(model_folder))
    client.set_registered_model_alias("lesions", "champion", "1")
    command = [sys.executable, "-m", "mlflow", "models", "generate-dockerfile", "--env-manager", "local"]
    command += ["-m", "models:/lesions@champion", "--output-directory", str(root / "context")]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": store, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return root / "context"


def test_the_image_is_built_of_a_pinned_python_pinned_packages_and_no_pickle(build_context, model_folder):
    dockerfile = (build_context / "Dockerfile").read_text()
    assert f"FROM python:{platform.python_version()}-slim\n" in dockerfile
    [copied] = re.findall(r"^COPY (\S+) /opt/ml/model$", dockerfile, re.M)
    pins = (build_context / copied / "requirements.txt").read_text().split()
    assert pins and all(re.fullmatch(r"[\w-]+==[\w.]+", pin) for pin in pins)
    assert not {pin.partition("==")[0] for pin in pins} & {"isic-smp", "segmentation-models-pytorch", "timm"}
    # The network, its code, and texts: nothing that is there could be a pickle but the program, which MLflow
    # looks through when pickles are switched off.
    sent = {file.suffix for file in build_context.rglob("*") if file.is_file()}
    assert sent == {"", ".json", ".pt2", ".py", ".txt", ".yaml"}
    program = "artifacts/model.pt2"
    assert (build_context / copied / program).read_bytes() == (model_folder / program).read_bytes()


def test_the_images_entry_answers_in_an_environment_of_its_requirements(
    build_context, bundle, clean_python, tmp_path
):
    from isic_smp.inference.predictor import Predictor

    dockerfile = (build_context / "Dockerfile").read_text()
    [entry] = re.findall(r"^ENTRYPOINT (.+)$", dockerfile, re.M)
    program, flag, code = json.loads(entry)
    assert (program, flag) == ("python", "-c")
    port = free_port()
    # In the image the model lies in a place of its own, and so does the port.
    place = f"C.MODEL_PATH, C.DEFAULT_INFERENCE_SERVER_PORT = {str(build_context / 'model_dir')!r}, {port}"
    code = f"from mlflow.models import container as C; {place}; {code}"
    environment = {
        **dict(re.findall(r"^ENV (\w+)=(.*)$", dockerfile, re.M)),
        "PATH": f"{clean_python.parent}{os.pathsep}{os.defpath}",
        "DISABLE_NGINX": "true",
        "MLFLOW_MODELS_WORKERS": "1",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }
    with answering([clean_python, flag, code], port, tmp_path, environment) as (address, _):
        answer = ask(address, LAYOUTS["inputs"])
        assert answer.status_code == 200, answer.text
        [row] = answer.json()["predictions"]
        mask = np.array(Image.open(io.BytesIO(base64.b64decode(row["mask"]))))
        [wanted] = Predictor(*bundle).predict([picture()])
        sure = np.abs(wanted - 0.5) > 1e-4
        assert np.array_equal((mask == 255)[sure], (wanted > 0.5)[sure])
        for kind in ("a file", "half a PNG", "a header of 60,000 × 60,000"):
            assert ask(address, {"inputs": [BAD_IMAGES[kind]]}).status_code == 400
        assert "files and addresses are not read here" in ask(address, {"inputs": [__file__]}).text
