"""What several processes agree on before they train."""

import shutil
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from drawn_pairs import write_pairs

from isic_smp.data.isic2016 import LesionData
from isic_smp.prepare import Place, prepare
from isic_smp.training.distributed import Ranks
from isic_smp.training.feature_bank import FromFeatures
from isic_smp.training.recipe import Recipe

RECIPE = Recipe(
    encoder="trunc-mobilenetv2_035-s2",
    encoder_weights="none",
    size=32,
    batch_size=8,
    freeze=True,
    flips=False,
    affine=0.0,
    colour=0.0,
)


def work(rank: int, port: int, folder: Path, data: LesionData, full: tuple[int, ...]) -> None:
    """One process, with a disk of its own; those of the ranks `full` have no room for a bank."""
    if rank in full:
        shutil.disk_usage = lambda _: SimpleNamespace(free=1000)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    said: list[str] = []
    place = Place(Ranks(rank, 2), torch.device("cpu"), folder / str(rank), said.append)
    prepared = prepare(RECIPE, data, place)
    banked = isinstance(prepared.network, FromFeatures)
    torch.save({"banked": banked, "said": said}, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("full", [(), (0,), (1,)])
def test_processes_use_a_feature_bank_together_or_not_at_all(tmp_path, full):
    pairs = tuple(write_pairs(tmp_path / "pairs", 12))
    data = LesionData("drawn", tmp_path, pairs[:8], pairs[8:], (), "f", {"train": 8, "val": 4, "test": 0})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(work, (port, tmp_path, data, full), nprocs=2)
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    assert [f["banked"] for f in found] == [not full] * 2
    for rank, f in enumerate(found):
        if full:
            reason = "more than half of the" if rank in full else "another process has no room"
            assert any("no feature bank" in line and reason in line for line in f["said"])
