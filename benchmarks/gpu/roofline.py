"""What a device can do, measured in the run that it is compared with, and the least time that puts on some work.

The roofline model (Williams, Waterman and Patterson, 2009): work of so many operations on so many bytes takes at least the longer
of operations / (operations a second) and bytes / (bytes a second).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

LARGE = (8192, 1 << 30)  # edge of the matrices, and bytes that are copied: beyond any cache
SMALL = (512, 1 << 26)


@dataclass(frozen=True)
class Roofline:
    """Measured limits of one device in one number type."""

    device: str  # its name
    dtype: str
    flops: float  # operations a second of a large matrix product; a multiplication with its addition counts as two
    bandwidth: float  # bytes a second, read and written

    def seconds(self, flops: float, moved: float) -> float:
        """The least time of `flops` operations that move `moved` bytes."""
        return max(flops / self.flops, moved / self.bandwidth)

    def __str__(self) -> str:
        return f"{self.device}, {self.dtype}: {self.flops / 1e12:.3g} TFLOP/s and {self.bandwidth / 1e9:.3g} GB/s, measured"


def timed(device: torch.device, call: Callable[[], object], runs: int) -> list[float]:
    """Seconds of each run, until the device is done, after those that do not count: one, on a GPU two (one compiles, one records)."""
    warm_up = 2 if device.type == "cuda" else 1
    seconds = []
    for number in range(warm_up + runs):
        _wait(device)
        started = time.perf_counter()
        call()
        _wait(device)
        if number >= warm_up:
            seconds.append(time.perf_counter() - started)
    return seconds


def measured(device: torch.device, dtype: torch.dtype, *, small: bool) -> Roofline:
    """The best of ten matrix products and of ten copies."""
    edge, size = SMALL if small else LARGE
    one, other = (torch.randn(edge, edge, device=device).to(dtype) for _ in range(2))
    product = min(timed(device, lambda: one @ other, 10))
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = min(timed(device, lambda: target.copy_(source), 10))
    return Roofline(name_of(device), str(dtype).removeprefix("torch."), 2 * edge**3 / product, 2 * size / copy)


def name_of(device: torch.device) -> str:
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return device.type


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
