"""A step's work recorded once and replayed: a GPU waits for thousands of small launches, not for one."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from facesr_lib.training.base import Training

Losses = dict[str, Tensor]


class Captured:
    """A function of tensors: called as it is on a CPU, replayed as a CUDA graph on a GPU by a process that is alone.

    The first three calls run it as it is, too: there caches fill, optimisers make their state and libraries choose
    their kernels. From then on inputs of the same shapes are asked for, and the losses returned are overwritten by the
    next call.

    Parameters
    ----------
    work : callable
        Tensors → losses. It works on the device, in place, and waits for no value; its Python runs only at first.
    trainee : Training
        Whose: it draws from its ``noise``.
    """

    def __init__(self, work: Callable[..., Losses], trainee: Training[Any]):
        self._work, self._random = work, trainee.noise
        self._replays = trainee.device.type == "cuda" and trainee.processes.count == 1
        self._calls_before = 3
        self._graph: torch.cuda.CUDAGraph | None = None
        if self._replays:  # gradients belong to the stream on which they were first made
            self._stream = torch.cuda.Stream(trainee.device)

    def __call__(self, *inputs: Tensor) -> Losses:
        """Do the work once."""
        if not self._replays:
            return self._work(*inputs)
        if self._calls_before:
            self._calls_before -= 1
            here = torch.cuda.current_stream()
            self._stream.wait_stream(here)
            with torch.cuda.stream(self._stream):
                losses = self._work(*inputs)
            here.wait_stream(self._stream)
            return losses
        if self._graph is None:
            graph, self._inputs = torch.cuda.CUDAGraph(), [x.clone() for x in inputs]
            graph.register_generator_state(self._random)
            gc.collect()  # another trainee's graphs must not be freed while this one records
            with torch.cuda.graph(graph, stream=self._stream):  # nothing runs yet
                self._losses = self._work(*self._inputs)
            self._graph = graph
        for kept, x in zip(self._inputs, inputs, strict=True):
            kept.copy_(x)
        self._graph.replay()
        return self._losses
