import json
import math
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import isic_smp
from isic_smp import export, predict
from isic_smp.errors import UserError
from isic_smp.inference.conversion import ENDINGS
from isic_smp.inference.expected_iou import ExpectedIoU
from isic_smp.inference.exported import open_exported
from isic_smp.inference.load import load_bundle, save_bundle
from isic_smp.inference.parity import compare_networks
from isic_smp.inference.preprocessing import Preprocessing

CHECKOUT = Path(isic_smp.__file__).parent.parent
PREPROCESSING = Preprocessing(size=32, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), threshold=0.45)
EXPECTED = ExpectedIoU(intercept=-0.1, slope=0.7)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    network = isic_smp.create_model(
        "upconvnet",
        encoder_name="trunc-mobilenetv3_small_050-s1-same",
        encoder_weights=None,
        decoder_norm=False,
        aux_params={"classes": 2},
    )
    with torch.no_grad():  # spread the probabilities, or nothing would be lesion
        network.segmentation_head[0].weight.mul_(30)
    folder = tmp_path_factory.mktemp("model") / "model"
    save_bundle(network, PREPROCESSING, EXPECTED.to_facts(), folder)
    return folder


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    """The file of a format, written once, with what was printed."""
    folder = tmp_path_factory.mktemp("exported")

    def make(kind: str) -> Path:
        pytest.importorskip({"onnx": "onnxruntime", "openvino": "openvino"}.get(kind, "torch"))
        path = folder / f"lesions{ENDINGS[kind]}"
        if not path.exists():
            assert run(model, "--format", kind, "--out", path) == 0
        return path

    return make


def run(*argv: object) -> int:
    return export.main([str(word) for word in argv])


@pytest.fixture
def photo(tmp_path) -> Path:
    grid = np.random.default_rng(0).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    Image.fromarray(grid).resize((70, 50)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.mark.oldest
@pytest.mark.parametrize("kind", ENDINGS)
def test_each_format_computes_the_model_at_any_size_and_carries_its_settings(kind, model, exported):
    network, preprocessing, expected_iou = open_exported(exported(kind))
    assert preprocessing == PREPROCESSING
    assert expected_iou == EXPECTED
    expected = load_bundle(model).model
    for shape in ((1, 3, 32, 32), (5, 3, 64, 48)):
        batch = torch.randn(shape)
        with torch.no_grad():
            torch.testing.assert_close(network(batch), expected(batch)[0], atol=1e-4, rtol=1e-4)


def contents(path: Path) -> dict[str, bytes]:
    """The file's parts: those of a zip, or the file itself."""
    if path.suffix not in (".pt", ".pt2"):
        return {path.name: path.read_bytes()}
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.oldest
@pytest.mark.parametrize("kind", ENDINGS)
def test_files_name_no_place_on_this_machine_and_only_torchscript_holds_pickles(kind, exported):
    parts = contents(exported(kind))
    here = [str(CHECKOUT), "site-packages", str(Path.home())]
    assert not [name for name, data in parts.items() if any(place.encode() in data for place in here)]
    pickles = [name for name, data in parts.items() if data[:1] == b"\x80" or data[:2] == b"PK"]
    assert bool(pickles) == (kind == "torchscript")


def test_onnx_is_described_for_those_who_have_only_the_file(exported):
    onnx = pytest.importorskip("onnx")
    file = onnx.load(exported("onnx"))
    onnx.checker.check_model(file, full_check=True)
    facts = {entry.key: json.loads(entry.value) for entry in file.metadata_props}
    assert (facts["size"], facts["mean"], facts["threshold"]) == (32, [0.5, 0.4, 0.3], 0.45)
    assert "(pixel / 255 - mean) / std" in facts["input"]
    assert [tensor.name for tensor in (*file.graph.input, *file.graph.output)] == ["image", "logits"]
    batch, channels, height, width = file.graph.input[0].type.tensor_type.shape.dim
    assert channels.dim_value == 3
    assert all(free.dim_param and not free.dim_value for free in (batch, height, width))


@pytest.mark.oldest
@pytest.mark.parametrize("kind", ["onnx", "openvino", "torch-export"])
def test_predict_takes_an_exported_file_for_a_model(kind, model, exported, photo, tmp_path):
    masks = []
    for spec in (model, exported(kind)):
        out = tmp_path / spec.name
        assert predict.main([str(photo), "--model", str(spec), "--out", str(out)]) == 0
        masks.append(np.asarray(Image.open(out / "masks" / "photo_Segmentation.png")))
    assert 0 < masks[0].mean() < 255
    assert np.mean(masks[0] != masks[1]) < 0.002
    with pytest.raises(UserError, match="leave out --engine"):
        predict.main([str(photo), "--model", str(spec), "--out", str(tmp_path / "o"), "--engine", "openvino"])


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_other_engines_predict_the_same(engine, model, photo, tmp_path):
    pytest.importorskip(engine)
    masks = []
    for name in ("torch", engine):
        out = tmp_path / name
        argv = [str(photo), "--model", str(model), "--out", str(out), "--engine", name]
        assert predict.main(argv) == 0
        masks.append(np.asarray(Image.open(out / "masks" / "photo_Segmentation.png")))
    assert np.mean(masks[0] != masks[1]) < 0.002


def test_what_runs_on_the_cpu_alone_does_so_on_a_machine_with_a_gpu(exported, photo, tmp_path, monkeypatch):
    """Where no device is named; there is no GPU here, torch is made to see one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    argv = [str(photo), "--model", str(exported("torch-export")), "--out", str(tmp_path / "out")]
    assert predict.main(argv) == 0
    with pytest.raises(UserError, match="leave out --engine and --device"):
        predict.main([*argv, "--device", "cuda"])


def test_predict_does_not_run_a_torchscript_file(exported, photo, tmp_path):
    with pytest.raises(UserError, match="is a program that would run here"):
        predict.main([str(photo), "--model", str(exported("torchscript")), "--out", str(tmp_path / "out")])


def test_parity_is_measured_on_the_images_given_and_printed(model, photo, tmp_path, capsys):
    assert run(model, "--format", "torchscript", "--images", photo, "--out", tmp_path / "m.pt") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"{tmp_path / 'm.pt'}: torchscript, 0.")
    assert said[1].startswith("against the model, on 1 images")
    assert float(said[2].split()[-1]) < 1e-4
    assert said[3].split()[4:7] == ["0", "of", str(2 * 32 * 32 + 64 * 32)]


class Shifted(nn.Module):
    """A network a little off."""

    def __init__(self, network: nn.Module, by: float) -> None:
        super().__init__()
        self.network, self.by = network, by

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.network(batch)[0] + self.by


def test_a_file_that_is_not_equal_is_found_out(model):
    network = load_bundle(model).model
    batch = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert compare_networks(network, Shifted(network, 0.0), batch, 0.45).largest_difference == 0
    off = compare_networks(network, Shifted(network, 0.2), batch, 0.45)
    assert off.largest_difference == pytest.approx(0.05, abs=0.003)  # a sigmoid's steepest slope, 1/4
    assert 0 < off.flipped < off.pixels


def test_a_network_that_gives_no_numbers_is_equal_to_none(model, tmp_path, capsys):
    bundle = load_bundle(model)
    batch = torch.zeros(2, 3, 32, 32)
    assert math.isnan(
        compare_networks(bundle.model, Shifted(bundle.model, math.nan), batch, 0.45).largest_difference
    )
    with torch.no_grad():
        bundle.model.segmentation_head[0].bias.fill_(math.nan)
    save_bundle(bundle.model, PREPROCESSING, {}, tmp_path / "model")
    assert run(tmp_path / "model", "--format", "torchscript", "--out", tmp_path / "m.pt") == 1
    assert "NOT EQUAL" in capsys.readouterr().out


@pytest.mark.slow
def test_int8_is_smaller_and_its_cost_in_validation_scores_is_printed(model, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    from isic_smp.data.synthetic import make_synthetic

    make_synthetic(tmp_path / "data", train=6, val=3, test=1, size=48)
    out = tmp_path / "small.onnx"
    assert run(model, "--int8", "--out", out, "--data-dir", tmp_path / "data", "--cache-dir", tmp_path) == 0
    said = capsys.readouterr().out
    scores = {line.split()[0]: line.split()[1:] for line in said.splitlines() if line}
    assert "3 validation images" in said
    before, after, cost = map(float, scores["Dice"])
    assert cost == pytest.approx(before - after, abs=2e-4)
    network, preprocessing, _ = open_exported(out)
    assert preprocessing == PREPROCESSING
    batch = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        difference = network(batch).sigmoid() - load_bundle(model).model(batch)[0].sigmoid()
    assert 1e-4 < difference.abs().mean() < 0.1


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--out", "model.pt"], "--out must end in .onnx, got model.pt"),
        (["--format", "openvino", "--int8"], "--int8 is for --format onnx"),
        (["--format", "torch-export"], "model.pt2 exists: remove it"),
        (["--format", "openvino"], "model.bin exists: remove it"),
    ],
)
def test_bad_input_is_said_before_any_work(argv, message, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("model.pt2", "model.bin"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=message):
        run(model, *argv)


def test_damaged_and_foreign_files_are_refused_in_one_line(exported, tmp_path):
    whole = exported("torch-export").read_bytes()
    (tmp_path / "cut.pt2").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"cannot open .*cut.pt2: [^\n]+$"):
        open_exported(tmp_path / "cut.pt2")
    foreign = torch.export.export(nn.Conv2d(3, 1, 1), (torch.zeros(1, 3, 8, 8),))
    torch.export.save(foreign, tmp_path / "foreign.pt2")
    with pytest.raises(UserError, match=r"foreign.pt2"):
        open_exported(tmp_path / "foreign.pt2")


def test_help_comes_without_heavy_imports():
    code = "import sys, isic_smp.export; assert not {'torch', 'numpy', 'mlflow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=CHECKOUT)
