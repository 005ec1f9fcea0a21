"""Work on other threads while the network runs: a little ahead, in order, in flat memory."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_order(
    pool: ThreadPoolExecutor, work: Callable[[T], R], items: Iterable[T], *, ahead: int
) -> Generator[R, None, None]:
    """`work` of each item in order, done on the pool up to `ahead` items before it is asked for."""
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def batches(items: Iterator[T], size: int) -> Iterator[list[T]]:
    """The items, `size` at a time; the last list may be shorter."""
    while batch := list(islice(items, size)):
        yield batch
