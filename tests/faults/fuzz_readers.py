"""Coverage-guided fuzzing of what reads files from elsewhere: nothing but a result or a UserError may come out.

    pip install atheris
    python tests/faults/fuzz_readers.py images -max_total_time=3600
    python tests/faults/fuzz_readers.py settings -max_total_time=3600

A finding is written to ./crash-…; `python tests/faults/fuzz_readers.py images crash-…` shows it again.
"""

import contextlib
import io
import sys
import tempfile
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["isic_smp", "PIL", "yaml"]):
    from PIL import Image

    from isic_smp.data import images
    from isic_smp.training.recipe import load_recipe

from isic_smp.errors import UserError

PLACE = Path(tempfile.mkdtemp(prefix="fuzz-"))
LARGEST = 100_000  # pixels, so that a step stays short


def fuzz_images(data: bytes) -> None:
    """As an image, and as a mask."""
    images.MAX_PIXELS = LARGEST
    with contextlib.suppress(UserError):
        pixels = images.decode_image(io.BytesIO(data), "fuzz")
        assert pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype.name == "uint8"
    file = PLACE / "fuzz.png"
    file.write_bytes(data)
    with contextlib.suppress(UserError):
        mask = images.read_mask(file)
        assert mask.ndim == 2 and mask.max(initial=0) <= 1


def fuzz_settings(data: bytes) -> None:
    """As a recipe."""
    file = PLACE / "fuzz.yaml"
    file.write_bytes(data)
    with contextlib.suppress(UserError):
        load_recipe(str(file))


def seeds(folder: Path) -> None:
    """Small whole files to start from."""
    picture = Image.new("RGB", (7, 5), (120, 70, 60))
    for kind in images.FORMATS:
        picture.save(folder / f"seed.{kind.lower()}", kind)
    picture.convert("P").save(folder / "palette.png")
    picture.convert("CMYK").save(folder / "cmyk.jpg")


def main() -> None:
    """Fuzz until the time is up, or something is found."""
    warnings.simplefilter("ignore")
    if len(sys.argv) < 2 or sys.argv[1] not in ("images", "settings"):
        raise SystemExit(__doc__)
    target = fuzz_images if sys.argv.pop(1) == "images" else fuzz_settings
    corpus = Path(tempfile.mkdtemp(prefix="corpus-"))
    if target is fuzz_images:
        seeds(corpus)
    else:
        (corpus / "seed.yaml").write_text("recipe: report\nlr: 0.1\ndecoder_channels: [8, 8, 8]\nloss: bce\n")
    atheris.Setup(
        [
            sys.argv[0],
            *([] if any(a.startswith("crash") for a in sys.argv) else [str(corpus)]),
            *sys.argv[1:],
        ],
        target,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
