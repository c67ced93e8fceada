"""One training run on several processes, a device each: the same numbers as one process with the whole batch.

    torchrun --nproc-per-node 4 -m glowd.flow.cli train ...

Every process draws the random numbers of the whole batch and takes its own share of them, so a run may continue with another
number of processes. DistributedDataParallel (Li et al. 2020, arXiv:2006.15704) averages the gradients. The processes agree on
what else could differ: the clock, and whether one of them was interrupted. Only the leader, rank 0, writes files and reports.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from glowd.flow.training.settings import TrainError


@dataclass(frozen=True, slots=True)
class World:
    """The processes of a run, seen from one of them. All of them must call `mean` and `max` together."""

    rank: int = 0
    size: int = 1

    @property
    def is_leader(self) -> bool:
        """Whether this is the process that writes files and reports."""
        return self.rank == 0

    def leader_only(self, report: Callable[[str], None]) -> Callable[[str], None]:
        """`report` in the leader; a function that does nothing in the others."""
        return report if self.is_leader else lambda line: None

    def share(self, batch: int) -> slice:
        """The part of a batch that this process takes. Raises TrainError if it cannot be divided equally."""
        if batch % self.size:
            raise TrainError(f"batch is {batch}; allowed with {self.size} processes: multiples of {self.size}")
        part = batch // self.size
        return slice(self.rank * part, (self.rank + 1) * part)

    def parallel(self, module: nn.Module) -> nn.Module:
        """The module, with gradients that are the mean over all processes."""
        return DistributedDataParallel(module, broadcast_buffers=False) if self.size > 1 else module

    def mean(self, values: Tensor) -> Tensor:
        """Mean over all processes, elementwise."""
        if self.size > 1:
            dist.all_reduce(values)
            values /= self.size
        return values

    def max(self, *values: float) -> list[float]:
        """Maximum over all processes, of each value."""
        if self.size == 1:
            return list(values)
        together = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(together, dist.ReduceOp.MAX)
        return together.tolist()


ALONE = World()


@contextlib.contextmanager
def join() -> Iterator[World]:
    """The processes that torchrun's environment variables describe; `ALONE` without them. On CUDA each gets its device.

    Raises TrainError if there are fewer devices than processes.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    local_rank, devices = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if devices:
        if local_rank >= devices:
            raise TrainError(f"process {local_rank} has no device: torch finds {devices} CUDA devices")
        torch.cuda.set_device(local_rank)
    # Tensors on the CPU use gloo, so that agreeing on the clock at every step does not wait for a device.
    dist.init_process_group("cpu:gloo,cuda:nccl" if devices else "gloo")
    yield World(dist.get_rank(), dist.get_world_size())
    # Not after an error: others may be waiting for this process then, and torchrun ends them. Together, because a process
    # may abort when another one closes a connection that it still uses.
    dist.barrier()
    dist.destroy_process_group()
