"""Coverage-guided fuzzing of what reads files from elsewhere: nothing but a result or a UserError may come out.

    pip install atheris
    python tests/faults/fuzz_readers.py images -max_total_time=3600
    python tests/faults/fuzz_readers.py settings -max_total_time=3600
    python tests/faults/fuzz_readers.py values -max_total_time=3600

`settings` are bytes of a YAML file; `values` are settings as YAML may give them, without the parsing,
which costs ten times as much. A finding is written to ./crash-…;
`python tests/faults/fuzz_readers.py images crash-…` shows it again.
"""

import contextlib
import io
import sys
import tempfile
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["isic_smp", "PIL", "yaml"]):
    import yaml
    from PIL import Image

    from isic_smp.data import images

    # Named here, or `load_recipe` imports it at its first call, too late to be watched.
    from isic_smp.training import settings_file  # noqa: F401
    from isic_smp.training.recipe import PRESETS, Recipe, load_recipe

from isic_smp.errors import UserError

MEMORY = Path("/dev/shm")  # a file there costs a twentieth of one on a disk
PLACE = Path(tempfile.mkdtemp(prefix="fuzz-", dir=MEMORY if MEMORY.is_dir() else None))
LARGEST = 100_000  # pixels, so that a step stays short
NAMES = list(Recipe.__dataclass_fields__)
WORDS = sorted(
    {word for preset in PRESETS.values() for word in preset.to_dict().values() if type(word) is str}
)


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
    """As a recipe's file."""
    file = PLACE / "fuzz.yaml"
    file.write_bytes(data)
    with contextlib.suppress(UserError):
        load_recipe(str(file))


def fuzz_values(data: bytes) -> None:
    """As settings of every type; what is accepted must come back from its own plain form."""
    draw = atheris.FuzzedDataProvider(data)
    settings = {
        draw.PickValueInList(NAMES) if draw.ConsumeBool() else draw.ConsumeUnicode(8): any_value(draw)
        for _ in range(draw.ConsumeIntInRange(1, 5))
    }
    with contextlib.suppress(UserError):
        recipe = Recipe.from_dict(settings)
        assert Recipe.from_dict(recipe.to_dict()) == recipe


def any_value(draw: atheris.FuzzedDataProvider, depth: int = 0) -> object:
    """A value that YAML can hold."""
    kind = draw.ConsumeIntInRange(0, 8 if depth < 3 else 6)
    if kind >= 7:
        some = [any_value(draw, depth + 1) for _ in range(draw.ConsumeIntInRange(0, 5))]
        return some if kind == 7 else dict.fromkeys(map(str, some), None)
    makers = (
        lambda: None,
        draw.ConsumeBool,
        lambda: draw.ConsumeIntInRange(-2, 300),
        lambda: draw.ConsumeInt(40),
        draw.ConsumeFloat,
        lambda: draw.ConsumeUnicode(8),
        lambda: draw.PickValueInList(WORDS),
    )
    return makers[kind]()


def write_seeds(folder: Path) -> None:
    """Small whole files to start from: pictures of every kind, and recipes that are accepted."""
    picture = Image.new("RGB", (7, 5), (120, 70, 60))
    for kind in images.FORMATS:
        picture.save(folder / "images" / f"seed.{kind.lower()}", kind)
    picture.convert("P").save(folder / "images" / "palette.png")
    picture.convert("CMYK").save(folder / "images" / "cmyk.jpg")
    picture.convert("1").save(folder / "images" / "mask.png")
    Image.new("I;16", (7, 5), 65535).save(folder / "images" / "deep.png")
    for number, (name, value) in enumerate(PRESETS["default"].to_dict().items()):
        line = yaml.safe_dump({"recipe": "report", name: value})
        (folder / "settings" / f"{number}.yaml").write_text(line)
    (folder / "values" / "seed").write_bytes(bytes(range(64)))


def write_dictionary(file: Path) -> None:
    """What a mutation of bytes finds too seldom by itself: settings' names and values, YAML's signs."""
    words = [
        *(f"\n{name}: " for name in NAMES),
        *WORDS,
        *("&a ", "*a", "<<: ", "!!", "- ", "? ", "| ", "---\n"),
    ]
    words += [".nan", ".inf", "1e400", "null", "[8, 8]", "{}", "0x1F", "1:30", "2001-01-01"]
    file.write_text(
        "".join('"' + "".join(f"\\x{byte:02x}" for byte in word.encode()) + '"\n' for word in words)
    )


TARGETS = {"images": fuzz_images, "settings": fuzz_settings, "values": fuzz_values}


def main() -> None:
    """Fuzz until the time is up, or something is found."""
    warnings.simplefilter("ignore")
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        raise SystemExit(__doc__)
    what = sys.argv.pop(1)
    words = sys.argv[1:]
    if not any(Path(word).name.startswith("crash") for word in words):
        corpus = Path(tempfile.mkdtemp(prefix="corpus-"))
        for name in TARGETS:
            (corpus / name).mkdir()
        write_seeds(corpus)
        write_dictionary(corpus / "dictionary")
        words = [str(corpus / what), "-len_control=0", "-print_final_stats=1", *words]
        words += [f"-dict={corpus / 'dictionary'}", "-max_len=400"] if what == "settings" else []
    atheris.Setup([sys.argv[0], *words], TARGETS[what])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
