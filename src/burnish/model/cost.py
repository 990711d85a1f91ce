"""What it costs to run prompts through a model layer by layer: bytes, operations, memory, and time on a machine.

Reading and computing overlap: while a block runs, the next is read. A pass therefore takes the first read, then for every
block the longer of its computation and of the read behind it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from burnish.anatomy import Anatomy
from burnish.model.skeleton import text_config


@dataclass(frozen=True)
class BlockSize:
    """One decoder block. parameters: on disk; active: those that one token is multiplied with (of the experts, its own)."""

    parameters: int
    active: int
    joined: int = 0  # parameters of fused experts, which are put together from parts
    attention: int = 0  # inputs of the attention output projections: heads times their width
    widest: int = 0  # outputs of the widest product

    def operations(self, tokens: int, width: float) -> float:
        """2 for each active parameter and token, 4 for each attention input and pair of tokens (Kaplan et al. 2020, table 1)."""
        return tokens * (2.0 * self.active + 4.0 * self.attention * width)


@dataclass(frozen=True)
class Work:
    """What goes through the blocks. tokens: positions, padding included; width: mean tokens that one attends over."""

    sequences: int
    tokens: int
    width: float
    sites: int = 1


@dataclass(frozen=True)
class Machine:
    """Rates of a machine: operations a second of a block that runs, bytes a second read from the weights' files."""

    flops: float
    read: float


@dataclass(frozen=True)
class Cost:
    """One or several passes. states_bytes: hidden states and what is kept of them, on disk beyond `--states-memory`."""

    disk_bytes: int
    flops: float
    states_bytes: int
    peak_bytes: int  # besides the program itself
    read_seconds: float
    compute_seconds: float
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """For plans, with rounded numbers."""
        minutes = {
            "expected_minutes": self.seconds / 60,
            "minutes_of_reading": self.read_seconds / 60,
            "minutes_of_computing": self.compute_seconds / 60,
        }
        return {
            "disk_bytes_read": self.disk_bytes,
            "states_bytes": self.states_bytes,
            "peak_bytes": self.peak_bytes,
            **{name: float(f"{value:.3g}") for name, value in {"flops": self.flops, **minutes}.items()},
        }


def block_sizes(network: nn.Module, config: Any, anatomy: Anatomy) -> tuple[BlockSize, ...]:
    """The size of every block of a network, which may be on the meta device."""
    stated = getattr(text_config(config), "num_experts_per_tok", None)
    chosen = stated if isinstance(stated, int) else 0
    sizes = []
    for index, block in enumerate(network.get_submodule(anatomy.stack).children()):
        parameters = list(block.parameters())
        active, joined = 0, 0
        for parameter in parameters:
            fused = parameter.ndim == 3 and 0 < chosen < parameter.shape[0]
            active += parameter.numel() * chosen // parameter.shape[0] if fused else parameter.numel()
            joined += parameter.numel() if fused else 0
        attention = sum(p.inputs for p in anatomy.attention() if p.layer == index)
        widest = max(p.shape[-2] for p in parameters if p.ndim > 1)
        sizes.append(BlockSize(sum(p.numel() for p in parameters), active, joined, attention, widest))
    return tuple(sizes)


def predict(
    blocks: Sequence[BlockSize],
    hidden: int,
    work: Work,
    machine: Machine,
    *,
    stored: int = 2,
    running: int = 2,
    batch: int = 512,
) -> Cost:
    """The cost of one pass. hidden: width of the model; stored, running: bytes of a number on disk and in memory; batch: tokens at once."""
    reads = [b.parameters * stored / machine.read for b in blocks]
    flops = [b.operations(work.tokens, work.width) for b in blocks]
    computes = [f / machine.flops for f in flops]
    largest = max(b.parameters for b in blocks)
    joined = max(b.joined for b in blocks)
    states = work.tokens * hidden * running + 4 * work.sequences * len(blocks) * hidden * work.sites
    # In memory: the block that runs, the one that is read, experts a second time while they are put together, and a batch's activations.
    peak = (
        largest * (running + stored) + joined * running + 4 * batch * max(hidden, *(b.widest for b in blocks)) * running
    )
    return Cost(
        disk_bytes=sum(b.parameters for b in blocks) * stored,
        flops=sum(flops),
        states_bytes=states,
        peak_bytes=peak,
        read_seconds=sum(reads),
        compute_seconds=sum(computes),
        seconds=reads[0] + sum(map(max, computes, [*reads[1:], 0.0])),
    )


def together(costs: Iterable[Cost]) -> Cost:
    """Several passes, one after the other."""
    listed = list(costs)
    return Cost(
        disk_bytes=sum(c.disk_bytes for c in listed),
        flops=sum(c.flops for c in listed),
        states_bytes=max(c.states_bytes for c in listed),
        peak_bytes=max(c.peak_bytes for c in listed),
        read_seconds=sum(c.read_seconds for c in listed),
        compute_seconds=sum(c.compute_seconds for c in listed),
        seconds=sum(c.seconds for c in listed),
    )
