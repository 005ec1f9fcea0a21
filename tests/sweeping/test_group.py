"""A trial's group of processes, and another one that is still in its folder."""

import pytest

from isic_smp.data.synthetic import make_synthetic
from isic_smp.errors import FolderInUse
from isic_smp.folder_lock import alone_in
from isic_smp.setup import Setup
from isic_smp.sweeping.group import LOCK, GroupTrainer
from isic_smp.training.recipe import Recipe

RECIPE = Recipe(
    encoder="trunc-mobilenetv3_small_050-s1", encoder_weights="none", size=32, epochs=1, batch_size=8
)


def test_the_files_of_a_group_that_another_worker_follows_are_left_alone(tmp_path):
    names = ["epochs.jsonl", "outcome.json", "stop", "group.json"]
    for name in names:
        (tmp_path / name).write_text("the other's")
    with alone_in(tmp_path, lock=LOCK), pytest.raises(FolderInUse, match="another run is going on"):
        GroupTrainer(2)(RECIPE, Setup(output_dir=tmp_path), lambda _: None)
    assert [(tmp_path / name).read_text() for name in names] == ["the other's"] * 4


@pytest.mark.slow
def test_a_folder_is_in_use_until_the_last_of_a_killed_workers_group_has_left(tmp_path):
    make_synthetic(tmp_path / "drawn", train=8, val=4, test=4, size=48)
    setup = Setup(
        data="synthetic",
        data_dir=tmp_path / "drawn",
        output_dir=tmp_path / "trial",
        cache_dir=tmp_path / "cache",
        tracking_uri=f"sqlite:///{tmp_path}/mlflow.db",
    )
    train, seen = GroupTrainer(1), []
    with alone_in(tmp_path / "trial"), pytest.raises(FolderInUse, match="another run is going on"):
        train(RECIPE, setup, seen.append)
    assert seen == []
    assert 0 <= train(RECIPE, setup, seen.append).val_iou <= 1
    assert len(seen) == 1
