"""Processes that train one network together: each on a device of its own, all with the same weights."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, multiprocessing

from facesr_lib.devices import pick_device
from facesr_lib.messages import check

T = TypeVar("T")


class Processes:
    """One process, on its ``device``, among ``count`` that train together; ``rank`` 0 writes files and speaks."""

    def __init__(self, device: str = "auto", rank: int = 0, count: int = 1):
        self.device, self.rank, self.count = torch.device(pick_device(device)), rank, count

    def sum(self, x: Tensor) -> Tensor:
        """Sum over the processes."""
        if self.count > 1:
            x = x.to(self.device, copy=True)
            distributed.all_reduce(x)
        return x

    def mean(self, x: Tensor) -> Tensor:
        """Average over the processes, which keeps their networks and statistics the same."""
        return x if self.count == 1 else self.sum(x) / self.count


def launch(work: Callable[..., T], *arguments: Any, device: str = "auto", count: int = 1) -> T:
    """Return ``work(Processes, *arguments)``, which ``count - 1`` new processes run too.

    With more than one, ``work`` is a module's function, and what it is given can be pickled. On "cuda" each process has
    a GPU of its own. A ``ValueError`` if there are fewer GPUs, or ``count`` is less than one.
    """
    check("devices", count, int, at_least=1)
    device = pick_device(device)
    if count == 1:
        return work(Processes(device), *arguments)
    if device.startswith("cuda") and count > torch.cuda.device_count():
        raise ValueError(f"{count} devices were asked for, and {torch.cuda.device_count()} GPUs are here.")
    with tempfile.TemporaryDirectory() as folder:
        group = count, device.partition(":")[0], (Path(folder) / "meeting").as_uri()
        others = multiprocessing.spawn(_follow, (group, work, arguments), count - 1, join=False, daemon=True)
        try:
            result = work(_join(0, *group), *arguments)
        except BaseException as error:
            if isinstance(error, RuntimeError):  # perhaps another process failed first: then this raises its error
                others.join(timeout=5)
            for process in others.processes:  # they would wait for this one
                process.kill()
            raise
        finally:
            if distributed.is_initialized():
                distributed.destroy_process_group()
        while not others.join():
            pass
        return result


def _join(rank: int, count: int, device: str, meeting: str) -> Processes:
    if device == "cuda":
        torch.cuda.set_device(rank)
        device = f"cuda:{rank}"
    distributed.init_process_group("gloo" if device == "cpu" else "nccl", meeting, rank=rank, world_size=count)
    return Processes(device, rank, count)


def _follow(index: int, group: tuple[int, str, str], work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    work(_join(index + 1, *group), *arguments)
    distributed.destroy_process_group()
