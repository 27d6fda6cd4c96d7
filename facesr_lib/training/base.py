"""What is trained: steps, whose state can be put away and taken up again exactly."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.optim import Optimizer

from facesr_lib import files
from facesr_lib.training.config import Checked
from facesr_lib.training.processes import Processes

Choices = TypeVar("Choices", bound=Checked)


class Training(ABC, Generic[Choices]):
    """What is trained: a subclass makes steps; its state can be put away and taken up again exactly.

    A ``ValueError`` says that the processes do not divide the batch.

    Parameters
    ----------
    config : Checked
        Every choice.
    device : str or Processes
        Where, if this process is not alone.
    bf16 : bool
        Whether networks compute in bfloat16 (`forward`).
    seed : int, optional
        Of this process's own numbers; default: the configuration's.
    **inputs
        What else the run depends on, by what the user calls it: pictures, labels, networks, or a word that says which.

    Attributes
    ----------
    config : dict
        Choices and inputs, these by digests: all must be the same when a run is resumed.
    parts : dict
        Networks, optimisers and tensors whose state is kept, by the names that it has in checkpoints.
    optimizers : dict
        Of the networks that were enlisted, by their names.
    images_seen, hours : int, float
        So far, in all calls of `fit`.
    share : int
        Images per step of this process.
    random : torch.Generator
        This process's, on the CPU: what a batch is made of is the same on every device.
    noise : torch.Generator
        This process's, on its device: a GPU draws maps of noise itself, millions of numbers a step. On a CPU, `random`.
    iterations : int, optional
        How many steps it takes, if it ends by itself.
    """

    parts: dict[str, Any]

    def __init__(
        self, config: Choices, device: str | Processes, bf16: bool = False, seed: int | None = None, **inputs: Any
    ):
        self.processes = processes = device if isinstance(device, Processes) else Processes(device)
        self._c, self._bf16, batch = config, bf16, config.batch
        if batch % processes.count:
            raise ValueError(f"a batch of {batch} cannot be shared by {processes.count} processes: choose a multiple.")
        self.config = asdict(config) | {"bf16": bf16} | {name: _known_by(given) for name, given in inputs.items()}
        self.batch, self.share, self.device = batch, batch // processes.count, processes.device
        self.images_seen, self.hours = 0, 0.0
        self.iterations: int | None = getattr(config, "iterations", None)
        self._seed = (config.seed if seed is None else seed) + processes.rank
        self.random = torch.Generator().manual_seed(self._seed)
        on_cpu = self.device.type == "cpu"
        self.noise = self.random if on_cpu else torch.Generator(self.device).manual_seed(self._seed)

    def enlist(self, optimizer: Callable[..., Optimizer], called: str, **networks: nn.Module) -> None:
        """Let networks learn, here and with channels last, each by an optimiser of its own, and keep all of these.

        In a checkpoint an optimiser is ``called`` so, with its network's name in the place of "{}".
        """
        for network in networks.values():
            network.to(self.device).to(memory_format=torch.channels_last).train()
        self.optimizers = {name: optimizer(network.parameters()) for name, network in networks.items()}
        self.parts = {**networks, **{called.format(name): kept for name, kept in self.optimizers.items()}}

    @property
    def finished(self) -> bool:
        """Whether all its steps were made, or there is nothing more to gain."""
        return self.iterations is not None and self.images_seen >= self.iterations * self.batch

    @abstractmethod
    def step(self) -> dict[str, Tensor]:
        """Make one optimisation step, count its images, and return scalars for the log."""

    def forward(self, network: Callable[..., Any], *inputs: Any) -> Any:
        """A network's answer, a tensor or several, in float32 whatever it computed in."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16):
            answer = network(*inputs)
        return answer.float() if isinstance(answer, Tensor) else tuple(part.float() for part in answer)

    @contextmanager
    def turn(self, optimizer: Optimizer, *, frozen: nn.Module | None = None) -> Iterator[None]:
        """A step of ``optimizer`` along the block's gradients, averaged over the processes; the frozen gets none."""
        optimizer.zero_grad()
        if frozen is not None:
            frozen.requires_grad_(False)
        yield
        if frozen is not None:
            frozen.requires_grad_(True)
        if self.processes.count > 1:
            learning = (parameter for group in optimizer.param_groups for parameter in group["params"])
            gradients = [parameter.grad for parameter in learning if parameter.grad is not None]
            vector_to_parameters(self.processes.mean(parameters_to_vector(gradients)), gradients)
        optimizer.step()

    def snapshot(self, folder: Path) -> None:
        """Write what a person wants to see or use of the run so far, if the checkpoint is not enough."""

    def about(self) -> dict[str, str]:
        """How a network was trained, for its file."""
        return {"images_seen": str(self.images_seen), "config": json.dumps(self.config)}

    def normal(self, *shape: int) -> Tensor:
        """Standard Gaussian numbers of this process, drawn on its device."""
        return torch.randn(shape, generator=self.noise, device=self.noise.device)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on; all processes have to call this at once."""
        own = torch.cat([each.get_state() for each in self._generators()])
        random = own.new_zeros(self.processes.count, len(own))
        random[self.processes.rank] = own
        state = {name: part if isinstance(part, Tensor) else part.state_dict() for name, part in self.parts.items()}
        so_far = {"images_seen": self.images_seen, "hours": self.hours}
        return state | so_far | {"random": self.processes.sum(random).cpu()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where `state_dict` was called, exactly if there are as many processes, on the same kind of device."""
        for name, part in self.parts.items():
            if isinstance(part, Optimizer):  # whether a GPU replays its steps is not the checkpoint's to say
                for theirs, ours in zip(state[name]["param_groups"], part.param_groups, strict=True):
                    theirs |= {key: ours[key] for key in ("capturable",) if key in ours}
            if isinstance(part, Tensor):
                part.copy_(state[name])
            else:
                part.load_state_dict(state[name])
        self.images_seen, self.hours = state["images_seen"], state.get("hours", 0.0)
        sizes = [len(each.get_state()) for each in self._generators()]
        if state["random"].shape == (self.processes.count, sum(sizes)):
            for each, kept in zip(self._generators(), state["random"][self.processes.rank].split(sizes), strict=True):
                each.set_state(kept.clone())  # torch crashes on a view
        else:  # go on with numbers that none of them has drawn
            for each in self._generators():
                each.manual_seed(self._seed + 7919 * self.images_seen)

    def _generators(self) -> list[torch.Generator]:
        return [self.random] if self.noise is self.random else [self.random, self.noise]


def _known_by(given: Any) -> Any:
    """What a run keeps of an input, to know it again: a word itself, else a digest; of an array 64 rows count.

    Pictures are known by their mean levels, in eights: another processor may prepare the same ones otherwise, by a bit.
    """
    if given is None or isinstance(given, (str, dict)):
        return given
    if isinstance(given, nn.Module):
        given = [*given.state_dict().values()]
    known: list[str | bytes | Tensor] = []
    for part in given if isinstance(given, list) else [given]:
        known.append(str(tuple(part.shape)))
        if isinstance(part, np.ndarray):
            rows = part[:: len(part) // 64 + 1]
            part = (rows.mean((*range(1, rows.ndim),)) // 8 if rows.shape[-1] == 3 else rows).tobytes()
        known.append(part)
    return f"digest {files.digest(*known)[:16]}"
