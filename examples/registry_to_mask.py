"""From training to a mask elsewhere, each step checked: train, register, promote, load, serve, refuse a worse model.

    python examples/registry_to_mask.py                                   # on drawn pictures
    python examples/registry_to_mask.py --data-dir data/isic2016 --encoder-weights imagenet

The model is loaded and served in a new virtual environment with nothing in it but what the model's own
requirements name: isic_smp, smp and timm are not there, and pickle is switched off. It takes 6.5 GB
(PyPI's torch brings CUDA) and is deleted at the end; --python names one that is there already.

Prints a line a step. Exit code 1 where a step is not as promised, 2 for bad input.
"""

import base64
import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # in a clone the package need not be installed

from isic_smp import cli
from isic_smp.errors import UserError

NAME = "lesions"
CHAMPION = f"models:/{NAME}@champion"
IMAGES = 3
TOLERANCE = 1e-4
"""Largest difference of a probability between the trained network and the exported program."""
GREY = 0.5 / 255
"""`predict` writes probabilities as 8-bit pictures: rounded by at most this."""
SERVER_SECONDS = 120
QUICK = ("--size", "64", "--batch-size", "8")
"""Settings for the few drawn pictures, so that three epochs teach something."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is trained on, and where it all goes."""

    data_dir: Path | None = None
    """Folder that holds the four ISIC 2016 part 1 folders. Default: pictures that the package draws."""
    encoder_weights: str = "none"
    """none, imagenet, or a .safetensors file with its .json."""
    epochs: int = 3
    """Passes over the training images for the good model; the bad one gets one, at a useless learning rate."""
    out: Path = Path("runs") / "registry_to_mask"
    """New folder for the MLflow store, the runs, the mask and the log."""
    cache_dir: Path | None = None
    """Decoded pixels. Default: ISIC_SMP_CACHE, else the user's cache folder."""
    python: Path | None = None
    """Interpreter of a clean environment. Default: one is built with pip, and deleted at the end."""


def main() -> None:
    """All steps, one after the other."""
    options = cli.parse(Options, prog="registry_to_mask", description=str(__doc__))
    try:
        options.out.mkdir(parents=True)
    except FileExistsError:
        raise UserError(f"{options.out} exists: choose another --out") from None
    out = options.out.resolve()
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{out / 'mlflow.db'}"

    train(options, out / "good", "--epochs", str(options.epochs))
    say("trained", f"{options.epochs} epochs: validation Dice {validation_dice(out / 'good'):.4f}")
    say("promoted", isic_smp(out, "registry", "promote", NAME).splitlines()[0])

    images = choose_images(options, out)
    isic_smp(
        out,
        "predict",
        *map(str, images),
        "--model",
        CHAMPION,
        "--out",
        str(out / "predictions"),
        "--probabilities",
    )
    say(
        "predicted",
        f"{len(images)} images by the training installation, to compare with: {out / 'predictions'}",
    )

    with clean_environment(options, out) as python:
        script = Path(__file__).with_name("elsewhere.py")
        command = [python, "-I", script, CHAMPION, out / "elsewhere", *images]
        say("elsewhere", run(out, command, env=clean_variables(python)).splitlines()[-1])
        for way, line in compare(out, images).items():
            say(way, line)
        with served(out, python) as address:
            say("served", ask(out, address, images[0]))

    train(options, out / "bad", "--epochs", "1", "--lr", "1e-9")
    say("trained", f"a worse one: validation Dice {validation_dice(out / 'bad'):.4f}")
    say("refused", refusal(out))


def train(options: Options, folder: Path, *settings: str) -> None:
    """Train a model and register it."""
    words = ["--encoder-weights", options.encoder_weights, "--output-dir", str(folder), "--register", NAME]
    # So that the network alone, which `mlflow.pytorch` gives, says the same.
    words += ["--no-second-look", "--no-largest-piece", "--no-close-bays"]
    words += ["--data-dir", str(options.data_dir)] if options.data_dir else ["--data", "synthetic", *QUICK]
    words += ["--cache-dir", str(options.cache_dir)] if options.cache_dir else []
    isic_smp(folder.parent, "run", *words, *settings)


def validation_dice(run_folder: Path) -> float:
    """Per-image mean at the images' own sizes, as the model's folder notes it."""
    bundle = json.loads((run_folder / "model" / "isic_smp.json").read_text(encoding="utf-8"))
    return bundle["info"]["validation"]["dice_per_image_own"]


def choose_images(options: Options, out: Path) -> list[Path]:
    """Some test images, and one of them at the network's own size, for `mlflow.pytorch` takes no other."""
    from PIL import Image

    from isic_smp.data.source import default_cache_dir, resolve_data

    kind = "auto" if options.data_dir else "synthetic"
    data, _ = resolve_data(kind, options.data_dir, cache_dir=options.cache_dir or default_cache_dir())
    images = [pair.image for pair in data.test[:IMAGES]]
    bundle = json.loads((out / "good" / "model" / "isic_smp.json").read_text(encoding="utf-8"))
    size = bundle["preprocessing"]["size"]
    Image.open(images[0]).convert("RGB").resize((size, size)).save(out / "square.png")
    return [*images, out / "square.png"]


@contextlib.contextmanager
def clean_environment(options: Options, out: Path) -> Iterator[Path]:
    """The interpreter of an environment that holds the model's own requirements and nothing else."""
    if options.python:
        yield options.python.absolute()
        return
    import mlflow

    logging.getLogger("mlflow.pyfunc").setLevel(logging.WARNING)  # it says what is done here anyway
    requirements = mlflow.pyfunc.get_model_dependencies(CHAMPION)
    folder = out / "environment"
    start = time.perf_counter()
    try:
        run(out, [sys.executable, "-m", "venv", folder])
        python = folder / "bin" / "python"
        run(out, [python, "-m", "pip", "install", "--disable-pip-version-check", "-r", requirements])
        say("environment", f"built with pip in {time.perf_counter() - start:.0f} s from {requirements}")
        yield python
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def clean_variables(python: Path) -> dict[str, str]:
    """No variable of this process but where the store is, so that nothing of it is found by accident."""
    return {
        "PATH": f"{python.parent}{os.pathsep}{os.defpath}",
        "MLFLOW_TRACKING_URI": os.environ["MLFLOW_TRACKING_URI"],
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def compare(out: Path, images: Sequence[Path]) -> dict[str, str]:
    """Hold what the clean environment gave against `predict`'s files; a line for each way of loading."""
    import cv2
    import numpy as np

    differences: dict[str, list[float]] = {"pyfunc": [], "pytorch": []}
    flipped = pixels = 0
    for image in images:
        found = np.load(out / "elsewhere" / f"{image.stem}.npz")
        mask, probability = (
            cv2.imread(str(out / "predictions" / folder / f"{image.stem}_{end}.png"), cv2.IMREAD_UNCHANGED)
            for folder, end in (("masks", "Segmentation"), ("probabilities", "probability"))
        )
        for way in differences.keys() & set(found):
            differences[way].append(float(np.abs(found[way] - probability / 255.0).max()))
        other = (found["mask"] > 0) != (mask > 0)
        sure = np.abs(found["pyfunc"] - 0.5) > TOLERANCE
        expect(not (other & sure).any(), f"the mask of {image.name} is another one elsewhere")
        flipped, pixels = flipped + int(other.sum()), pixels + other.size
    lines = {}
    for way, found_differences in differences.items():
        largest = max(found_differences)
        expect(largest <= GREY + TOLERANCE, f"mlflow.{way} differs from predict by {largest:.5f}")
        lines[way] = (
            f"{len(found_differences)} image(s), probabilities within {largest:.5f} of predict's 8-bit pictures "
            f"({GREY:.5f} is their rounding, {TOLERANCE} allowed beyond)"
        )
    lines["pyfunc"] += f"; {flipped} of {pixels:,} mask pixels differ"
    return lines


@contextlib.contextmanager
def served(out: Path, python: Path) -> Iterator[str]:
    """The address of `mlflow models serve` in the clean environment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [python, "-m", "mlflow", "models", "serve", "-m", CHAMPION, "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with (out / "server.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=out, env=clean_variables(python), stdout=log, stderr=log, start_new_session=True
        )
    address = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + SERVER_SECONDS
        while subprocess.run(["curl", "-sf", f"{address}/ping"], capture_output=True).returncode != 0:
            expect(process.poll() is None, f"the server ended: {out / 'server.log'}")
            expect(time.monotonic() < end, f"the server did not answer: {out / 'server.log'}")
            time.sleep(0.5)
        yield address
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def ask(out: Path, address: str, image: Path) -> str:
    """Send an image with curl, write the mask, and see that it is `predict`'s."""
    import cv2
    import numpy as np

    request = out / "request.json"
    request.write_text(json.dumps({"inputs": [base64.b64encode(image.read_bytes()).decode()]}))
    command = ["curl", "-s", "--fail-with-body", f"{address}/invocations", "-d", f"@{request}"]
    answer = json.loads(run(out, [*command, "-H", "Content-Type: application/json"]))
    [found] = answer["predictions"]
    (out / "mask.png").write_bytes(base64.b64decode(found["mask"]))
    mask = cv2.imread(str(out / "mask.png"), cv2.IMREAD_UNCHANGED)
    wanted = cv2.imread(
        str(out / "predictions" / "masks" / f"{image.stem}_Segmentation.png"), cv2.IMREAD_UNCHANGED
    )
    expect(mask.shape == wanted.shape, f"the served mask has the size {mask.shape}, not {wanted.shape}")
    share = float(np.mean(mask != wanted))
    expect(share < 1e-3, f"{share:.2%} of the served mask is not as predict has it")
    return (
        f"curl sent {image.name}: {found['lesion_share']:.1%} lesion, confidence {found['confidence']:.3f}, "
        f"{np.count_nonzero(mask != wanted)} mask pixels other than predict's: {out / 'mask.png'}"
    )


def refusal(out: Path) -> str:
    """What `promote` says to the worse model; the champion must stay."""
    command = [sys.executable, "-m", "isic_smp.registry", "promote", NAME]
    done = subprocess.run(command, capture_output=True, text=True, env=own_variables())
    message = done.stderr.strip()
    expect(done.returncode == cli.EXIT_BAD_INPUT, f"promote ended with {done.returncode}: {message}")
    expect("it is worse" in message and len(message.splitlines()) == 1, f"promote said: {message}")
    shown = isic_smp(out, "registry", "show", NAME)
    expect("version 1 (champion)" in shown, f"the champion is no longer version 1: {shown}")
    return f"exit code {done.returncode}, {message}"


def isic_smp(out: Path, command: str, *words: str) -> str:
    """Run `python -m isic_smp.COMMAND`; its standard output."""
    return run(out, [sys.executable, "-m", f"isic_smp.{command}", *words], env=own_variables())


def own_variables() -> dict[str, str]:
    """With this clone's package first, as this script has it."""
    path = os.pathsep.join(filter(None, (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path}


def run(out: Path, command: Sequence[str | Path], env: dict[str, str] | None = None) -> str:
    """Run a command, its messages into out/log; its standard output."""
    with (out / "log").open("a+") as log:
        log.write(f"$ {' '.join(map(str, command))}\n")
        log.flush()
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=log, text=True, env=env)
        log.write(done.stdout)
    expect(done.returncode == 0, f"{command[0]} ended with {done.returncode}: see {out / 'log'}")
    return done.stdout


def say(step: str, what: str) -> None:
    """A line for a step that is as promised."""
    print(f"{step:12} {what}", flush=True)


def expect(promise: bool, otherwise: str) -> None:
    """End with exit code 1 where a promise is broken."""
    if not promise:
        sys.exit(f"not as promised: {otherwise}")


if __name__ == "__main__":
    cli.command(main, prog="registry_to_mask")
