"""BatchNorm shared by two real processes, against torch's own on the whole batch."""

import contextlib
import multiprocessing

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from timm.layers import BatchNormAct2d
from torch import nn

from isic_smp.training.distributed import Ranks
from isic_smp.training.sync_batchnorm import synced_batchnorm

SHARES = (slice(0, 5), slice(5, 7))  # a last batch is not always shared out evenly
# Far from zero, where a careless variance loses its digits.
WHOLE = torch.randn(7, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.1 + 30
WEIGHTS = torch.linspace(-1, 2, WHOLE.numel()).view_as(WHOLE)


def make() -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(3), BatchNormAct2d(3, act_layer=nn.ReLU6))


def step(layers: nn.Module, share: slice) -> dict[str, torch.Tensor]:
    """What one training step gives back and leaves behind."""
    x = WHOLE[share].clone().requires_grad_()
    y = layers.train()(x)
    ((y + y**2) * WEIGHTS[share]).sum().backward()
    gradients = {name: p.grad for name, p in layers.named_parameters()}
    return {"y": y.detach(), "x": x.grad, **gradients, **dict(layers.named_buffers())}


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)  # a forked process has none of the threads that torch counts on
    dist.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    layers = make()
    with synced_batchnorm(layers, Ranks(rank, 2)):
        found = step(layers, SHARES[rank])
    torch.save({**found, "evaluated": layers.eval()(WHOLE).detach()}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_normalise_by_the_whole_batch(tmp_path):
    # Imported once for both.
    multiprocessing.set_forkserver_preload(["timm.layers", "isic_smp.training.sync_batchnorm"])
    mp.start_processes(work, (str(tmp_path),), nprocs=2, start_method="forkserver")
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    layers = make()
    whole = step(layers, slice(None))
    for name in ("y", "x"):
        torch.testing.assert_close(torch.cat([r[name] for r in ranks]), whole[name], rtol=1e-4, atol=1e-3)
    for name, _ in layers.named_parameters():
        torch.testing.assert_close(ranks[0][name] + ranks[1][name], whole[name], rtol=1e-4, atol=1e-3)
    for name, value in {**dict(layers.named_buffers()), "evaluated": layers.eval()(WHOLE)}.items():
        torch.testing.assert_close(ranks[0][name], value)
        assert torch.equal(ranks[0][name], ranks[1][name]), name


def assert_steps_alone(layers):
    """The layers train without any other process, as if they had never been shared."""
    torch.testing.assert_close(step(layers, slice(None)), step(make(), slice(None)), rtol=0, atol=0)


def test_a_process_without_others_needs_no_group():
    layers = make()
    with synced_batchnorm(layers, Ranks(0, 1)):
        assert_steps_alone(layers)


@pytest.mark.parametrize("interrupted", [False, True])
def test_layers_are_as_before_afterwards(interrupted):
    layers = make()
    with contextlib.suppress(KeyboardInterrupt), synced_batchnorm(layers, Ranks(0, 2)):
        with pytest.raises(ValueError, match="process group"):  # they do look for the other
            step(layers, slice(None))
        if interrupted:
            raise KeyboardInterrupt
    assert_steps_alone(layers)
