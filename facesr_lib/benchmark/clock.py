"""What every measure of speed shares: works that take turns, clocks that wait for the device, peaks of memory."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

Work = Callable[[], Any]


def seconds(work: Work, device: torch.device) -> float:
    """Wall-clock time of a call, the device's work included; a ``KeyboardInterrupt`` if Ctrl-C has cut it short."""
    synchronise = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    synchronise()
    start = time.perf_counter()
    whole(work)
    synchronise()
    return time.perf_counter() - start


def whole(work: Work) -> None:
    """Do a work; what keeps its best so far after Ctrl-C, as a search does, is no measure of the whole."""
    if getattr(work(), "interrupted", False):
        raise KeyboardInterrupt


def turns(works: Sequence[Work], device: torch.device, repeat: int) -> list[list[float]]:
    """Times, a row per turn and a column per work, after a turn to warm up: a machine's speed changes."""
    return [[seconds(work, device) for work in works] for _ in range(repeat + 1)][1:]


def medians(works: Sequence[Work], device: torch.device, repeat: int) -> list[float]:
    """Median time of each of the works, which take turns."""
    return [median(times) for times in zip(*turns(works, device, repeat), strict=True)]


def share(rates: Sequence[float]) -> str:
    """Write the median of some shares, and the lowest and highest of them."""
    return f"{median(rates):.2f} ({min(rates):.2f} to {max(rates):.2f})"


def peak_megabytes(work: Work, device: torch.device) -> float:
    """Peak memory of a call beyond what is held before: the GPU's allocator, or Linux's count for the process.

    NaN where neither is there.
    """
    if device.type == "cuda":
        before: float = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        whole(work)
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what an earlier call left for the next does not count as held
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        before = _resident("VmRSS")
        whole(work)
        return (_resident("VmHWM") - before) / 1e3
    except (OSError, AttributeError):  # no Linux, or no glibc
        return float("nan")


def _resident(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(field)))
