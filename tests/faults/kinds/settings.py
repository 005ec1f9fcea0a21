"""Files of settings."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .made import REFUSED, Kind, Maker


def recipe(text: str | bytes, expected: Any = REFUSED, name: str = "r.yaml") -> Maker:
    def make(folder: Path) -> Kind:
        from isic_smp.training.recipe import load_recipe

        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return lambda: load_recipe(str(folder / name)), expected

    return make


def settings() -> Iterator[tuple[str, Maker]]:
    yield "a good recipe", recipe("recipe: report\nlr: 0.002\n", lambda r: r.lr == 0.002 and r.epochs == 25)
    yield (
        "a whole number for a fraction",
        recipe("lr: 1\n", lambda r: r.lr == 1.0 and isinstance(r.lr, float)),
    )
    for words, text in {
        "an unknown setting": "learning_rate: 1\n", "a setting in capitals": "LR: 0.1\n", "a number as its name": "3: 4\n",
        "nothing as its name": "null: 4\n", "a list as its name": "[1, 2]: 4\n", "no recipe of that name": "recipe: nix\n",
        "a list for the recipe": "recipe: [default]\n", "a mapping for the recipe": "recipe: {a: 1}\n",
        "an empty file": "", "a comment only": "# nothing\n", "a list": "- lr\n- 0.1\n", "a word": "default\n",
        "a tab": "\tlr: 0.1\n", "an open bracket": "lr: [0.1\n", "an open quote": 'loss: "bce\n', "two documents": "lr: 1\n---\nlr: 2\n",
        "an object of Python": "lr: !!python/object/apply:os.system ['true']\n", "an unknown tag": "lr: !x 3\n",
        "an anchor that is not there": "lr: *x\n", "nan": "lr: .nan\n", "inf": "lr: .inf\n", "minus inf": "lr: -.inf\n",
        "a huge whole number": f"lr: 1{'0' * 400}\n", "a huge size": f"size: 1{'0' * 30}\n", "a huge seed": f"seed: 1{'0' * 30}\n", "a negative seed": "seed: -1\n",
        "a date": "lr: 2026-01-02\n", "a time": "epochs: 12:30:15x\n", "binary": "loss: !!binary aGVsbG8=\n", "a set": "lr: !!set {a}\n",
        "no channels": "decoder_channels: []\n", "a channel of zero": "decoder_channels: [8, 0, 8, 8]\n",
        "a negative depth": "encoder_depth: -1\n", "a depth of zero": "encoder_depth: 0\n", "a depth of 99": "decoder_depth: 99\n",
        "a size that does not divide": "size: 100\n", "an unknown encoder": "encoder: resnet50\n", "an encoder cut at 99": "encoder: trunc-mobilenetv2_100-s99\n",
        "freeze twice": "freeze: true\nfreeze_epochs: 3\n", "a threshold of 1": "threshold: 1\n", "an ema of 1": "ema: 1.0\n",
        "true for a number": "epochs: true\n", "a fraction of an epoch": "epochs: 2.5\n", "a number in letters": "epochs: ten\n",
        "a list of letters": "decoder_channels: [a, b]\n", "a number for a word": "loss: 3\n", "an unknown loss": "loss: mse\n",
        "yes for a word": "loss: yes\n", "null for a number": "epochs: null\n", "nested settings": "training: {lr: 0.1}\n",
        "JSON cut short": '{"lr": 0.1', "control characters": "lr: 0.1\x07\n", "the same setting twice": "lr: 0.1\nlr: 0.2\n",
    }.items():  # fmt: skip
        yield f"a recipe with {words}", recipe(text)
    bomb = (
        "a0: &a0 [x, x]\n"
        + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))
        + "lr: *a59\n"
    )
    yield "a recipe with a bomb of anchors", recipe(bomb)
    yield "a recipe with a mapping in itself", recipe("lr: &x {a: *x}\n")
    yield "a recipe nested 5000 deep", recipe("lr: " + "[" * 5000 + "]" * 5000)
    yield "a recipe of other bytes", recipe(b"\xff\xfe\x00lr")
    yield "a recipe of zeros", recipe(bytes(100))
    yield "a recipe in Latin-1", recipe("# Läsion\nlr: 1\n".encode("latin-1"))
    yield "a recipe in UTF-16", recipe("lr: 0.1\n".encode("utf-16"))
    yield "a recipe with a byte order mark", recipe(b"\xef\xbb\xbfepochs: 3\n", lambda r: r.epochs == 3)
    yield "a recipe as JSON", recipe('{"epochs": 3}', lambda r: r.epochs == 3)
    yield "a recipe of another ending", recipe("lr: 0.1", name="r.toml")
    from isic_smp.training.recipe import Recipe

    for name in Recipe().to_dict():
        yield f"a mapping for {name}", recipe(f"{name}: {{a: 1}}\n")
        yield f"a list of lists for {name}", recipe(f"{name}: [[1]]\n")
