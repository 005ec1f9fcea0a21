import pytest

from isic_smp.errors import UserError
from isic_smp.training.distributed import Ranks, join_ranks

TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture
def alone(monkeypatch):
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is 2, but RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT are not set"),
        (
            # as Kubeflow starts a process without torchrun
            {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "29500", "LOCAL_RANK": ""},
            "WORLD_SIZE is 2, but LOCAL_RANK is not set",
        ),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two', expected a whole number from 1 on"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is '0', expected a whole number from 1 on"),
    ],
)
def test_a_group_that_torchrun_did_not_start_is_refused(found, said, alone):
    for name, value in found.items():
        alone.setenv(name, value)
    with pytest.raises(UserError, match=f"^{said}.*torchrun.*unset WORLD_SIZE") as refused, join_ranks():
        pass
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("world", ["", "1"])
def test_a_plain_process_is_alone(world, alone):
    alone.setenv("WORLD_SIZE", world)
    with join_ranks() as ranks:
        assert ranks == Ranks()
