"""Several processes on one job, as `torchrun` starts them: each reads a share of the prompts, and what they found is added up.

Everything that is exchanged lies on the CPU (states are handed over there, sums are float64), so gloo carries it on every
device. All processes go through the same exchanges in the same order. The first process alone writes and speaks; an error in
another one reaches it at the next exchange.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from burnish.errors import InputError, ProcessError

if TYPE_CHECKING:
    from torch import Tensor

LONGEST_WAIT = timedelta(
    days=7
)  # the others wait while the first one checks and writes; one that dies is noticed at once
VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what a launcher sets for each process


@dataclass(frozen=True)
class Processes:
    """This process among those of one job; by itself it is alone."""

    count: int = 1
    rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def share(self, costs: Sequence[int]) -> list[int]:
        """Which of some pieces of work are this process's own, in ascending order. costs: of each, tokens for example; every
        process gets pieces of all sizes."""
        order = sorted(range(len(costs)), key=lambda i: (costs[i], i))
        return sorted(order[self.rank :: self.count])

    def summed(self, part: "Tensor") -> "Tensor":
        """The sum of a tensor on the CPU over all processes, in place. Raises ProcessError."""
        if self.count > 1:
            import torch.distributed as dist

            self.exchange()
            with _noticing(self.count):
                dist.all_reduce(part)
        return part

    def merged(self, part: dict[int, Any]) -> dict[int, Any]:
        """The entries of all processes. Raises ProcessError."""
        return {key: value for one in self._gathered(part) for key, value in one.items()}

    def require_same(self, inputs: Any) -> None:
        """Raises InputError where the processes were given different inputs, on machines with different files for example."""
        if any(other != inputs for other in self._gathered(inputs)):
            raise InputError(
                f"The {self.count} processes read different prompts, options or models, whose sums would mean nothing. Give all "
                "machines the same files and the same command."
            )

    @contextmanager
    def one_ahead(self) -> Iterator[None]:
        """The first process of each machine goes through this block before the others do: a model is fetched and converted once."""
        ahead = int(os.environ.get("LOCAL_RANK", self.rank)) == 0
        if not ahead:
            self.exchange()
        yield
        if ahead:
            self.exchange()

    def exchange(self, error: str | None = None) -> None:
        """Tells the others that this process goes on, or why it does not. Raises ProcessError where another one does not."""
        for rank, failed in enumerate(self._all(error)):
            if failed is not None and rank != self.rank:
                raise ProcessError(f"Process {rank} of {self.count} (counted from 0) failed: {failed}")

    def _gathered(self, value: Any) -> list[Any]:
        self.exchange()
        return self._all(value)

    def _all(self, value: Any) -> list[Any]:
        """What every process has, by rank."""
        if self.count == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.count
        with _noticing(self.count):
            dist.all_gather_object(values, value)
        return values


ALONE = Processes()
_current = ALONE
_in_step = False


def current() -> Processes:
    """The processes that share the work inside `joined`; elsewhere this one alone."""
    return _current


def keep_in_step() -> None:
    """Says that all processes run every pass together from now on (a model is split over them): one that fails must end at once,
    since the others wait for it inside a pass and come to no exchange."""
    global _in_step
    _in_step = True


def launched() -> Processes:
    """What a launcher such as torchrun says of this process."""
    if any(name not in os.environ for name in VARIABLES):
        return ALONE
    return Processes(int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"]))


@contextmanager
def joined() -> Iterator[Processes]:
    """Joins the processes that a launcher started; without one this process is alone.

    The block ends in all of them together. The first process does not wait for the others with an error of its own: its end is
    theirs.

    Yields:
        How many there are, and which one this is.

    Raises:
        ProcessError: another process failed.
    """
    global _current, _in_step
    processes = launched()
    if processes.count == 1:
        yield ALONE
        return
    import torch
    import torch.distributed as dist

    gpus = torch.cuda.is_available()
    if gpus:  # "cuda" then means a device of this process's own
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", processes.rank)) % torch.cuda.device_count())
    # nccl is there for what the library splits over devices (`ModelOptions.tensor_parallel`).
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=LONGEST_WAIT)
    _current = processes
    try:
        yield processes
        processes.exchange()
    except Exception as error:
        if not processes.first and not _in_step:
            if not isinstance(error, ProcessError):
                with suppress(ProcessError):
                    processes.exchange(str(error) or type(error).__name__)
            with suppress(
                RuntimeError
            ):  # the first one's end, so that the launcher does not end it before it has spoken
                dist.barrier()
        raise
    finally:
        _current, _in_step = ALONE, False
    dist.destroy_process_group()


@contextmanager
def _noticing(count: int) -> Iterator[None]:
    """Turns a lost connection into a ProcessError."""
    try:
        yield
    except RuntimeError as error:
        raise ProcessError(
            f"Another of the {count} processes ended without a word (killed, or out of memory): {str(error).splitlines()[0]} "
            "Its own output and the launcher's may say more; then run the same command again."
        ) from error
