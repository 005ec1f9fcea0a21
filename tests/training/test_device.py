"""Which device a name means, on machines with and without GPUs."""

import pytest
import torch

from isic_smp.errors import UserError
from isic_smp.training.device import choose_device


@pytest.fixture(params=[0, 2])
def gpus(request, monkeypatch) -> int:
    """As many GPUs as torch is made to see: there are none here."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: request.param)
    return request.param


def test_a_name_means_a_device(gpus):
    assert choose_device("cpu", local_rank=1).type == "cpu"
    assert choose_device("auto", local_rank=1) == (torch.device("cuda:1") if gpus else torch.device("cpu"))
    if gpus:
        assert choose_device("cuda", local_rank=1) == torch.device("cuda:1")
        assert choose_device("cuda:1") == torch.device("cuda:1")


@pytest.mark.parametrize("name", ["tpu", "meta", "cuda:2", "cuda:x", "cpu:9"])
def test_what_is_not_there_is_refused(gpus, name):
    with pytest.raises(UserError, match=name):
        choose_device(name)


def test_more_processes_than_gpus_are_refused(gpus):
    with pytest.raises(UserError, match=rf"cuda:2.* {gpus} GPUs; use --device cpu, or a process a GPU"):
        choose_device("cuda", local_rank=2)
