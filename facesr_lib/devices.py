"""Where to compute, in which state of torch, and with whose memory."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


def pick_device(name: str) -> str:
    """Resolve "auto" to "cuda" if there is a GPU, else to "cpu"; a ``ValueError`` if a device cannot be computed on.

    To torch "cpu:3" is the one CPU, too; other libraries know that by "cpu" alone.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.device(name)
        torch.zeros(1, device=place).item()  # which "meta", for one, does not have
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"device {name!r} cannot be used here ({reason}): try 'cpu' or 'auto'.") from error
    return "cpu" if place.type == "cpu" else name


def cores() -> int:
    """Count the processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def undisturbed() -> Iterator[None]:
    """Give torch the state that it starts with, whatever the caller's, which is put back.

    That is: gradients, no inference mode, and what `in_full` gives.
    """
    with torch.inference_mode(False), torch.enable_grad(), in_full():
        yield


@contextmanager
def in_full() -> Iterator[None]:
    """Compute in the precision of what is given, whatever autocast and defaults the caller has chosen.

    Tensors of which nothing else is said are float32 and on the CPU. Threads have a state each, but for the default
    type, which is the process's: the last to leave puts it back.
    """
    with ExitStack() as stack:
        for kind in ("cpu", "cuda", "mps"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(_float32())
        yield


_lock, _inside, _found = threading.Lock(), 0, torch.float32
"""How many hold the default type at float32 just now, and which type the first of them found."""


@contextmanager
def _float32() -> Iterator[None]:
    global _inside, _found
    with _lock:
        found, first = torch.get_default_dtype(), _inside == 0
        if first:
            _found = found
        _inside += 1
        torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                torch.set_default_dtype(_found)
            elif not first:  # within a search's callback, which may have set its own
                torch.set_default_dtype(found)


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, on Linux: the next step needs as much, and new pages cost time.

    glibc's ``mallopt``, for the whole process and for good: for programs whose only work is a search or a training (the
    command line, the benchmark, a chapter), not for a library to decide. Elsewhere nothing happens.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        trim_threshold, mmap_max = -1, -4
        libc.mallopt(trim_threshold, -1)
        libc.mallopt(mmap_max, 0)
