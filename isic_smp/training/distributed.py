"""Several processes through torch's own engine: started by torchrun, joined here.

Every rank trains on its share of each batch; rank 0 alone validates, keeps checkpoints and logs.
"""

import contextlib
import datetime
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from isic_smp.errors import UserError
from isic_smp.processors import processors


@dataclass(frozen=True)
class Ranks:
    """One process among `world` ones. A plain run is rank 0 of 1."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1
    """Processes on this machine."""

    @property
    def is_main(self) -> bool:
        """Whether this process validates, writes and logs."""
        return self.rank == 0

    def share(self, value: Any) -> Any:
        """Rank 0's `value` on every rank, by torch's own object broadcast: up to a checkpoint in size."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum of `tensor` over all ranks, in place."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def wait(self) -> None:
        """Until every rank has come here."""
        if self.world > 1:
            dist.barrier()


@contextlib.contextmanager
def join_ranks() -> Iterator[Ranks]:
    """The ranks that torchrun started (environment RANK, WORLD_SIZE, LOCAL_RANK), or one alone.

    Raises:
        UserError: the environment speaks of several processes, but not as torchrun does.
    """
    world = _world()
    if world == 1:
        yield Ranks()
        return
    local_world = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    ranks = Ranks(int(os.environ["RANK"]), world, int(os.environ["LOCAL_RANK"]), local_world)
    gpus = torch.cuda.device_count()
    if ranks.local_rank < gpus:
        torch.cuda.set_device(ranks.local_rank)
    if not gpus:
        # torchrun leaves each process one thread, or all of them; share the cores out instead.
        torch.set_num_threads(max(1, processors() // local_world))
    # gloo on a machine with GPUs too: `--device cpu` computes there, and what is shared or waited for needs no GPU.
    # The first rank may download, decode and score while the others wait for it.
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=datetime.timedelta(hours=2))
    try:
        yield ranks
    finally:
        dist.destroy_process_group()


def _world() -> int:
    """The number of processes; schedulers set WORLD_SIZE too, without all that it takes to meet the others."""
    size = os.environ.get("WORLD_SIZE") or "1"
    way_out = "start several processes by torchrun, or unset WORLD_SIZE for one alone"
    if not size.isdecimal() or int(size) < 1:
        raise UserError(f"WORLD_SIZE is {size!r}, expected a whole number from 1 on: {way_out}")
    needed = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    if int(size) > 1 and (unset := [name for name in needed if not os.environ.get(name)]):
        are = "is" if len(unset) == 1 else "are"
        raise UserError(f"WORLD_SIZE is {size}, but {', '.join(unset)} {are} not set: {way_out}")
    return int(size)
