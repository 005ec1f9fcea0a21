"""Memory kept between steps: no page is asked of the system twice, and all are given back in the end."""

import resource
import sys

import psutil
import pytest
import torch

from isic_smp.training.memory import kept_memory

MB = 2**20
PAGE = resource.getpagesize()


def faults_of_a_step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(20 * MB, dtype=torch.uint8) for _ in range(6)]
    del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(sys.platform != "linux", reason="other C libraries keep memory as they do")
def test_a_later_step_asks_for_no_new_pages_and_the_end_gives_them_back():
    with kept_memory():
        for _ in range(5):  # the heap takes some steps to hold them all side by side
            faults_of_a_step()
        assert faults_of_a_step() < 20 * MB / PAGE
        held = psutil.Process().memory_info().rss
    assert psutil.Process().memory_info().rss < held - 60 * MB
