"""Steps recorded once and replayed: a small network's kernels run faster than they can be started one by one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP = 3  # calls before the recording: caches fill, optimisers make their state


class Replayed:
    """Work on tensors that is recorded as one CUDA graph; on a CPU it is called as it is.

    Parameters
    ----------
    work : callable
        Tensors, always of the same shapes and on one device → scalars by name. What it does besides must be done on the
        device, in place, and may not wait for it: Python runs in the first calls only.

    Notes
    -----
    The scalars are written over by the next call.
    """

    def __init__(self, work: Callable[..., dict[str, Tensor]]):
        self._work, self._calls = work, 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Do the work once."""
        if not inputs[0].is_cuda:
            return self._work(*inputs)
        if self._calls < WARM_UP:
            return self._eagerly(*inputs)
        graph = self._graph or self._record(*inputs)
        for kept, new in zip(self._inputs, inputs, strict=True):
            kept.copy_(new)
        graph.replay()
        return self._results

    def _eagerly(self, *inputs: Tensor) -> dict[str, Tensor]:
        here = torch.cuda.current_stream()
        if not self._calls:
            self._stream = torch.cuda.Stream()  # gradients belong to the stream on which they were first made
        self._calls += 1
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            results = self._work(*inputs)
        here.wait_stream(self._stream)
        return results

    def _record(self, *inputs: Tensor) -> torch.cuda.CUDAGraph:
        self._inputs, graph = [x.clone() for x in inputs], torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):  # nothing runs yet
            self._results = self._work(*self._inputs)
        self._graph = graph
        return graph
