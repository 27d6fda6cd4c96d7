"""What the training of every generative adversarial network shares: turns, lazy penalties, a moving average, its state.

A GAN's own training is a subclass of `Adversarial` that says what a step is::

    def step(self):
        with self.turn(self.d_optimizer):
            (F.softplus(D(G(z).detach())) + F.softplus(-D(real))).mean().backward()
        with self.turn(self.g_optimizer, frozen=self.discriminator):
            F.softplus(-D(G(z))).mean().backward()
        self.images_seen += self.batch
        follow(self.average, self.generator, self.batch, half_life=10_000)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.optim import Adam, Optimizer

from facesr_lib.training.processes import Processes


class Adversarial:
    """Networks in training that learn in turns, on as many processes as there are.

    Parameters
    ----------
    processes : Processes
    batch : int
        Images per step, over all processes.
    seed : int
        Every process draws numbers of its own.
    **parts
        Networks, optimisers and schedules whose state is kept, by the names that it has in checkpoints.

    Attributes
    ----------
    images_seen : int
        So far.
    share : int
        Images per step of this process.
    random : torch.Generator
        This process's, on the CPU: the same seed gives the same numbers on every device.

    Raises
    ------
    ValueError
        If the processes do not divide the batch.
    """

    finished = False  # a GAN has no loss that says so

    def __init__(self, processes: Processes, batch: int, seed: int, **parts: nn.Module | Optimizer):
        if batch % processes.count:
            raise ValueError(f"a batch of {batch} cannot be shared by {processes.count} processes: choose a multiple.")
        self.processes, self.batch, self.share, self._seed = processes, batch, batch // processes.count, seed
        self.images_seen, self._parts = 0, parts
        self.random = torch.Generator().manual_seed(seed * 1000 + processes.rank)

    def due(self, interval: int) -> bool:
        """Whether a lazy penalty is computed on this step; it comes on one in ``interval``, and counts as often."""
        return self.images_seen // self.batch % interval == 0

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

    def normal(self, *shape: int) -> Tensor:
        """Standard Gaussian numbers of this process, on its device."""
        return torch.randn(shape, generator=self.random).to(self.processes.device, non_blocking=True)

    def state_dict(self) -> dict[str, Any]:
        """Parts, images seen and the random state of every process, all of which have to call this at once."""
        parts = {name: part.state_dict() for name, part in self._parts.items()}
        own = self.random.get_state()
        random = own.new_zeros(self.processes.count, len(own))
        random[self.processes.rank] = own
        return parts | {"images_seen": self.images_seen, "random": self.processes.sum(random).cpu()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where `state_dict` was called, exactly if there are as many processes as there were."""
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        self.images_seen = state["images_seen"]
        if len(state["random"]) == self.processes.count:
            self.random.set_state(state["random"][self.processes.rank])
        else:  # go on with numbers that none of them has drawn
            self.random.manual_seed(self._seed * 1000 + self.processes.rank + 7919 * self.images_seen)


def lazy_adam(network: nn.Module, lr: float, beta: float, interval: int) -> Adam:
    """Adam, β = (0, beta), where a penalty on every k-th step makes k + 1 updates of k (Karras et al. 2020, app. B)."""
    ratio = interval / (interval + 1)
    return Adam(network.parameters(), lr=lr * ratio, betas=(0.0, beta**ratio))


@torch.no_grad()
def follow(average: nn.Module, live: nn.Module, batch: int, half_life: float) -> None:
    """Move the average of a network's weights on by a batch; after ``half_life`` images weights count half as much."""
    beta = 0.5 ** (batch / max(half_life, 1e-8))
    for kept, parameter in zip(average.parameters(), live.parameters(), strict=True):
        kept.lerp_(parameter, 1 - beta)
    for kept, buffer in zip(average.buffers(), live.buffers(), strict=True):
        kept.copy_(buffer)
