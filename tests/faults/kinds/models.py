"""Folders of saved models."""

import json
import pickle
import struct
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from .made import REFUSED, Kind, Maker


@cache
def bundle() -> dict[str, bytes]:
    """The files of a saved model, made once: every kind changes its own copy."""
    import isic_smp
    from isic_smp.inference.load import save_bundle
    from isic_smp.inference.preprocessing import Preprocessing

    model = isic_smp.UpConvNet("trunc-mobilenetv2_035-s2", encoder_weights=None, decoder_channels=(8, 8, 8))
    with tempfile.TemporaryDirectory() as folder:
        save_bundle(
            model, Preprocessing(size=32, mean=(0.5,) * 3, std=(0.5,) * 3), {}, Path(folder) / "model"
        )
        return {file.name: file.read_bytes() for file in (Path(folder) / "model").iterdir()}


def saved(change: Callable[[Path], object], expected: Any = REFUSED) -> Maker:
    """A saved model folder with something changed."""

    def make(folder: Path) -> Kind:
        import isic_smp

        (folder / "model").mkdir()
        for name, content in bundle().items():
            (folder / "model" / name).write_bytes(content)
        change(folder / "model")
        return lambda: isic_smp.load(folder / "model"), expected

    return make


def edit(name: str, **values: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**content, **values}))

    return change


def models() -> Iterator[tuple[str, Maker]]:
    yield "a good model", saved(lambda f: None, lambda model: not model.training)
    for name in ("config.json", "isic_smp.json", "model.safetensors"):
        yield f"a model without {name}", saved(lambda f, name=name: (f / name).unlink())
        yield f"a model with an empty {name}", saved(lambda f, name=name: (f / name).write_bytes(b""))
        yield (
            f"a model with {name} of rubbish",
            saved(lambda f, name=name: (f / name).write_bytes(b"\xff\x00{]")),
        )
        yield (
            f"a model with {name} cut short",
            saved(lambda f, name=name: (f / name).write_bytes((f / name).read_bytes()[:-9])),
        )
        yield (
            f"a model with a folder for {name}",
            saved(lambda f, name=name: [(f / name).unlink(), (f / name).mkdir()]),
        )
    for words, values in {
        "a class that is no model": {"_model_class": "os.system"}, "no class": {"_model_class": None},
        "an unknown argument": {"bomb": 1}, "an unknown encoder": {"encoder_name": "nix"},
        "negative channels": {"decoder_channels": [-1, 8, 8]}, "channels of words": {"decoder_channels": "eight"},
        "other channels": {"decoder_channels": [8, 8, 4]}, "a mean of words": {"mean": "grey"},
    }.items():  # fmt: skip
        yield f"a model config with {words}", saved(edit("config.json", **values))
    good = {"size": 32, "mean": [0.5] * 3, "std": [0.5] * 3, "threshold": 0.5, "test_time_flips": False}
    for words, values in {
        "another format": {"format": 99}, "no format": {"format": None}, "a list for preprocessing": {"preprocessing": []},
        "no info": {"info": None}, "a size of zero": {"preprocessing": {**good, "size": 0}},
        "a size in words": {"preprocessing": {**good, "size": "big"}}, "a std of zero": {"preprocessing": {**good, "std": [0, 1, 1]}},
        "a mean of nan": {"preprocessing": {**good, "mean": [float("nan")] * 3}},
        "a mean of two": {"preprocessing": {**good, "mean": [0.5, 0.5]}}, "a threshold of 2": {"preprocessing": {**good, "threshold": 2}},
        "an unknown field": {"preprocessing": {**good, "gamma": 1}},
    }.items():  # fmt: skip
        yield f"a saved model with {words}", saved(edit("isic_smp.json", **values))
    for words, content in {
        "a pickle for its weights": pickle.dumps({"a": 1}), "weights whose header is a lie": struct.pack("<Q", 2**60) + b"{}",
        "weights of nothing": struct.pack("<Q", 2) + b"{}", "weights beyond their end": struct.pack("<Q", 64) + b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'.ljust(64),
    }.items():  # fmt: skip
        yield (
            f"a model with {words}",
            saved(lambda f, content=content: (f / "model.safetensors").write_bytes(content)),
        )
