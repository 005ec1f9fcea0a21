"""TorchScript, torch.compile, torch.export and DistributedDataParallel on the encoders and `UpConvNet`."""

import os

import pytest
import torch
from torch import distributed
from torch.export import Dim, export

from isic_smp.models.encoder import TruncatedMobileNet
from isic_smp.models.upconvnet import UpConvNet

# Those of no model below; a model's graph holds its encoder's.
ENCODERS = {
    "tf": {"timm_name": "tf_mobilenetv3_small_minimal_100", "cut": 1},
    "dilated": {"timm_name": "mobilenetv2_035", "cut": 3, "output_stride": 8},
    "v4 blur": {"timm_name": "mobilenetv4_conv_blur_medium", "cut": 1},
}
MODELS = {
    "skips": {"encoder_name": "trunc-mobilenetv2_035-s2-same"},
    "context": {"encoder_name": "trunc-mobilenetv2_035-s2", "decoder_context": True},
    "report": {"encoder_name": "trunc-mobilenetv2_035-s1", "skip_connections": False, "decoder_norm": False},
    "shallow, with labels": {
        "encoder_name": "trunc-mobilenetv3_small_050-s1",
        "decoder_depth": 2,
        "aux_params": {"classes": 3},
    },
}


def networks(marks=()):
    """All of them; `marks` are put on encoders alone and on skip connections alone, which another model has too."""
    for name, settings in ENCODERS.items():
        yield pytest.param(TruncatedMobileNet, settings, id=f"encoder {name}", marks=marks)
    for name, settings in MODELS.items():
        settings = {**settings, "encoder_weights": None}
        yield pytest.param(UpConvNet, settings, id=f"model {name}", marks=marks if name == "skips" else ())


def assert_same(got, expected):
    torch.testing.assert_close(list(got), list(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "settings"), networks())
@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_torchscript(kind, settings):
    network, x = kind(**settings).eval(), torch.randn(2, 3, 64, 32)
    with torch.no_grad():
        assert_same(torch.jit.script(network)(x), network(x))


@pytest.mark.parametrize(("kind", "settings"), networks(marks=pytest.mark.slow))
def test_compiles_as_one_graph(kind, settings):
    torch.compiler.reset()
    network, x = kind(**settings).eval(), torch.randn(2, 3, 64, 32)
    # The backend decides about speed, not about what can be captured; the default one is slow to start.
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    with torch.no_grad():
        assert_same(compiled(x), network(x))


@pytest.mark.parametrize(("kind", "settings"), networks(marks=pytest.mark.slow))
def test_exports_with_any_batch_height_and_width(kind, settings):
    network = kind(**settings).eval()
    step = getattr(network, "encoder", network).output_stride
    shapes = {0: Dim("batch"), 2: step * Dim("rows", max=64), 3: step * Dim("columns", max=64)}
    program = export(network, (torch.randn(2, 3, 4 * step, 3 * step),), dynamic_shapes=(shapes,))
    x = torch.randn(3, 3, 2 * step, 5 * step)
    with torch.no_grad():
        assert_same(program.module()(x), network(x))


@pytest.mark.slow
def test_compiles_for_real():
    torch.compiler.reset()
    network, x = UpConvNet("trunc-mobilenetv2_035-s4-same", encoder_weights=None), torch.randn(2, 3, 64, 32)
    network.eval()
    with torch.no_grad():
        got, expected = torch.compile(network, fullgraph=True)(x), network(x)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def _train_one_step(rank, folder, freeze):
    os.environ.update(MASTER_ADDR="127.0.0.1", RANK=str(rank), WORLD_SIZE="2")
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = UpConvNet("trunc-mobilenetv3_small_050-s3", encoder_weights=None)
    if freeze:
        model.freeze_encoder()
    wrapped = torch.nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    torch.manual_seed(rank)
    for _ in range(2):  # a second step fails where the first one left parameters unused
        wrapped(torch.randn(2, 3, 32, 32)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    torch.save([p.detach() for p in model.parameters()], f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("freeze", [False, True])
def test_two_processes_train_one_model(tmp_path, freeze):
    torch.multiprocessing.spawn(_train_one_step, (str(tmp_path), freeze), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(map(torch.equal, first, second))
