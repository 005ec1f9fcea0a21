"""What several processes agree on before they train."""

import dataclasses
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from drawn_pairs import write_pairs
from free_port import free_port

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


def drawn(folder: Path) -> LesionData:
    pairs = tuple(write_pairs(folder / "pairs", 12, side=128))
    return LesionData("drawn", folder, pairs[:8], pairs[8:], (), "f", {"train": 8, "val": 4, "test": 0})


def test_the_building_of_a_feature_bank_is_shown_and_of_one_that_is_there_not(tmp_path, capfd):
    place = Place(Ranks(), torch.device("cpu"), tmp_path / "cache", lambda line: None)
    data = drawn(tmp_path)
    for shown in (True, False):
        prepared = prepare(RECIPE, data, place)
        assert isinstance(prepared.network, FromFeatures)
        assert ("bank the features" in capfd.readouterr().err) is shown


@pytest.mark.parametrize(
    ("weights", "division", "warned"),
    [("isic2016", "-fold-1/3", True), ("isic2016", "", False), ("none", "-fold-1/3", False)],
)
def test_weights_that_may_know_the_validation_images_are_warned_of(tmp_path, weights, division, warned):
    said: list[str] = []
    place = Place(Ranks(), torch.device("cpu"), tmp_path / "cache", said.append)
    data = dataclasses.replace(drawn(tmp_path), name="isic2016", fingerprint="0" * 64 + division)
    encoder = "trunc-mobilenetv2_100-s2-same"
    prepare(dataclasses.replace(RECIPE, encoder=encoder, encoder_weights=weights), data, place)
    assert any("isic2016, was trained on other data" in line for line in said) == warned


@pytest.mark.parametrize("affine", [1.0, 0.0])
def test_sharp_views_are_of_the_network_s_size_and_taken_from_finer_pixels(tmp_path, affine):
    recipe = dataclasses.replace(
        RECIPE, freeze=False, affine=affine, artefacts=1.0, sharp_views=True, plain_statistics=0.5
    )
    place = Place(Ranks(), torch.device("cpu"), tmp_path / "cache", lambda line: None)
    prepared = prepare(recipe, drawn(tmp_path), place)
    kept = sorted(folder.name.rsplit("-", 1)[0] for folder in (tmp_path / "cache").glob("pixels-*"))
    assert kept == (["pixels-32", "pixels-64"] if affine else ["pixels-32", "pixels-32"])
    assert prepared.statistics is not None
    for batches in (prepared.train, prepared.validation, *prepared.statistics.values()):
        for batch in batches.epoch(0, place.device):
            assert batch.inputs[0].shape[2:] == batch.target.shape[2:] == (32, 32)
    # Plain pictures, for the statistics, are those that a network of this size is asked about.
    plain = prepare(dataclasses.replace(recipe, sharp_views=False), drawn(tmp_path), place).statistics
    ours, theirs = (
        next(iter(found["plain"].epoch(0, place.device))) for found in (prepared.statistics, plain)
    )
    assert np.array_equal(ours.samples, theirs.samples)
    torch.testing.assert_close(ours.inputs[0], theirs.inputs[0], atol=0.05, rtol=0)
    assert (ours.target != theirs.target).float().mean() < 0.02


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
    data = drawn(tmp_path)
    mp.spawn(work, (free_port(), tmp_path, data, full), nprocs=2)
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    assert [f["banked"] for f in found] == [not full] * 2
    for rank, f in enumerate(found):
        if full:
            reason = "more than half of the" if rank in full else "another process has no room"
            assert any("no feature bank" in line and reason in line for line in f["said"])
