import threading
import time

import numpy as np
import pytest

from isic_smp.errors import UserError
from isic_smp.training.batches import Order, prefetch
from isic_smp.training.distributed import Ranks


def _samples(order, epoch=0):
    return [s for samples, _ in order.epoch(epoch) for s in samples]


def test_each_epoch_sees_every_sample_once_in_an_order_of_its_own():
    order = Order(70, 32, shuffle=True, seed=3)
    first, second = _samples(order, 0), _samples(order, 1)
    assert sorted(first) == sorted(second) == list(range(70))
    assert first != second
    assert first == _samples(Order(70, 32, shuffle=True, seed=3), 0)
    assert first != _samples(Order(70, 32, shuffle=True, seed=4), 0)


def test_validation_goes_straight_through():
    assert _samples(Order(5, 2, shuffle=False)) == [0, 1, 2, 3, 4]


def test_a_last_batch_of_one_is_left_out_of_training_only():
    # BatchNorm raises on one value a channel.
    assert [len(s) for s, _ in Order(33, 32, shuffle=True).epoch(0)] == [32]
    assert [len(s) for s, _ in Order(33, 32, shuffle=False).epoch(0)] == [32, 1]
    assert [len(s) for s, _ in Order(1, 32, shuffle=True).epoch(0)] == [1]


@pytest.mark.parametrize("count", [64, 70, 75])
def test_ranks_share_each_batch_and_their_weights_make_its_mean(count):
    alone = Order(count, 32, shuffle=True, seed=1)
    parts = [Order(count, 32, shuffle=True, seed=1, ranks=Ranks(r, 3)) for r in range(3)]
    for (whole, _), *split in zip(alone.epoch(0), *(part.epoch(0) for part in parts), strict=True):
        assert sorted(np.concatenate([samples for samples, _ in split])) == sorted(whole)
        values = np.random.default_rng(0).normal(size=count)
        mean = np.mean([share * values[samples].mean() for samples, share in split])
        assert mean == pytest.approx(values[whole].mean())


@pytest.mark.parametrize(("count", "batch_size"), [(64, 2), (2, 32)])
def test_more_processes_than_images_a_step_are_refused(count, batch_size):
    with pytest.raises(UserError, match=f"3 processes share {count} images in batches of {batch_size}"):
        Order(count, batch_size, shuffle=True, ranks=Ranks(1, 3))


def test_prefetch_keeps_order_raises_the_maker_s_error_and_leaves_no_thread():
    assert list(prefetch(range(100))) == list(range(100))

    def broken():
        yield 1
        raise ValueError("no such file")

    got = []
    with pytest.raises(ValueError, match="no such file"):
        for item in prefetch(broken()):
            got.append(item)
    assert got == [1]

    endless = prefetch(iter(int, 1))
    next(endless)
    endless.close()
    time.sleep(0.3)
    assert not [t for t in threading.enumerate() if t.name == "isic-smp-prefetch"]
