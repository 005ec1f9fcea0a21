"""Serving one image over HTTP: latency, requests/s and memory, against a plain smp.Unet behind the same server.

python benchmarks/serving.py

Both run under `mlflow models serve` with one worker. "isic_smp" is the default network with random weights,
asked with a JPEG in base64 and answering with a mask and a probability map at the picture's own size. "smp
mobilenet_v2" is what `mlflow.pytorch.log_model` makes of smp.Unet: it is asked with a normalised array of the
network's size as JSON and answers with one, so that decoding, resizing and threshold are left to its clients.
"""

import base64
import concurrent.futures
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common import report, takes_no_options

REQUESTS = 1000
PICTURE = (768, 1024)
CLIENTS = 2


def main() -> None:
    """Measure both, print, and write results/serving.json."""
    takes_no_options(__doc__)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, prepare in (("isic_smp", own_model), ("smp mobilenet_v2", plain_model)):
            model = Path(folder) / name.replace(" ", "-")
            request = prepare(model)
            with served(model) as (address, process):
                rows.append({"model": name, **measure(address, process, request)})
    report("serving", {"Serving": rows}, picture=PICTURE)


def own_model(folder: Path) -> bytes:
    """The default network with random weights; a request for it."""
    import numpy as np
    from PIL import Image

    from isic_smp.inference.preprocessing import Preprocessing
    from isic_smp.network import build_network
    from isic_smp.tracking.mlflow_model import save_mlflow_model
    from isic_smp.training.recipe import load_recipe

    recipe = load_recipe("default")
    model = build_network(recipe, "none").eval()
    preprocessing = Preprocessing(size=recipe.size, mean=model.mean, std=model.std)
    save_mlflow_model(model, preprocessing, {}, folder)
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize(PICTURE[::-1], Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return json.dumps({"inputs": [base64.b64encode(file.getvalue()).decode()]}).encode()


def plain_model(folder: Path) -> bytes:
    """smp.Unet as MLflow saves it by itself; a request for it."""
    import mlflow
    import numpy as np
    import segmentation_models_pytorch as smp
    from mlflow.models import infer_signature

    from isic_smp import Recipe

    size = Recipe().size
    example = np.random.default_rng(0).normal(size=(1, 3, size, size)).astype(np.float32)
    mlflow.pytorch.save_model(
        smp.Unet("mobilenet_v2", encoder_weights=None).eval(),
        str(folder),
        signature=infer_signature(example, example[:, :1]),
        input_example=example,
        pip_requirements=["mlflow", "torch"],
    )
    return json.dumps({"inputs": example.tolist()}).encode()


@contextmanager
def served(model: Path) -> Iterator[tuple[str, subprocess.Popen]]:
    """The address of `mlflow models serve` on `model`, and its process."""
    import requests

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(model), "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # for uvicorn
    environment = {**os.environ, "PATH": path}
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        while process.poll() is None:
            try:
                requests.get(f"{address}/ping", timeout=5)
                break
            except requests.RequestException:
                time.sleep(0.5)
        yield f"{address}/invocations", process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def measure(address: str, process: subprocess.Popen, request: bytes) -> dict:
    """Latency of one client, requests/s of two, and the server's memory early and late."""
    import psutil
    import requests

    session = requests.Session()

    def ask(_: int = 0) -> float:
        start = time.perf_counter()
        answer = session.post(address, data=request, headers={"Content-Type": "application/json"}, timeout=60)
        answer.raise_for_status()
        return time.perf_counter() - start

    def memory() -> float:
        tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        return sum(p.memory_full_info().pss for p in tree) / 1e6

    for n in range(20):
        ask(n)
    alone = sorted(ask() for _ in range(REQUESTS // 10))
    early = memory()
    start = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(ask, range(REQUESTS)))
    return {
        "request kB": len(request) / 1e3,
        "median ms": 1000 * alone[len(alone) // 2],
        "95 % ms": 1000 * alone[int(len(alone) * 0.95)],
        "requests/s, 2 clients": REQUESTS / (time.perf_counter() - start),
        f"MB after {REQUESTS // 10 + 20}": early,
        f"MB after {REQUESTS + REQUESTS // 10 + 20}": memory(),
    }


if __name__ == "__main__":
    main()
