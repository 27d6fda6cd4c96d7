"""What the training of every generative adversarial network shares: turns, lazy penalties, a moving average.

A GAN's own training is a subclass of `Adversarial` that says what a step is::

    def step(self):
        with self.turn(self.d_optimizer):
            (F.softplus(D(G(z).detach())) + F.softplus(-D(real))).mean().backward()
        with self.turn(self.g_optimizer, frozen=self.discriminator):
            F.softplus(-D(G(z))).mean().backward()
        self.images_seen += self.batch
        follow(self.average, self.generator, self.batch, half_life=10_000, seen=self.images_seen)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.optim import Adam, Optimizer
from torch.optim.swa_utils import update_bn

from facesr_lib.training.loop import Training

Network = TypeVar("Network", bound=nn.Module)


class Adversarial(Training):
    """Networks in training that learn in turns, on as many processes as there are."""

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


def adam(network: nn.Module, lr: float, beta: float) -> Adam:
    """Adam, β = (0, beta), whose steps can be replayed on a GPU (`capture`)."""
    on_gpu = next(network.parameters()).is_cuda
    return Adam(network.parameters(), lr=lr, betas=(0.0, beta), capturable=on_gpu)


def lazy_adam(network: nn.Module, lr: float, beta: float, interval: int) -> Adam:
    """`adam`, where a penalty on every k-th step makes k + 1 updates of k (Karras et al. 2020, app. B)."""
    ratio = interval / (interval + 1)
    return adam(network, lr * ratio, beta**ratio)


@torch.no_grad()
def follow(average: nn.Module, live: nn.Module, batch: int, half_life: float, seen: int, rampup: float = 0.05) -> None:
    """Move the average of a network's weights on by a batch; after ``half_life`` images weights count half as much.

    After less, as long as that is more than the share ``rampup`` of the images ``seen``: what a network began with is
    forgotten in a short training, too (Karras et al. 2020).
    """
    beta = 0.5 ** (batch / max(min(half_life, rampup * seen), 1e-8))
    for mean, parameter in zip(average.parameters(), live.parameters(), strict=True):
        mean.lerp_(parameter, 1 - beta)
    for kept, buffer in zip(average.buffers(), live.buffers(), strict=True):
        kept.copy_(buffer)


def with_own_statistics(average: Network, batches: Iterable[Tensor]) -> Network:
    """A copy of a moving average, to evaluate, whose batch norms know what it answers to ``batches``.

    The statistics that `follow` leaves in it are those of the live network: with them, averaged weights do much worse.
    """
    network = deepcopy(average)
    update_bn(batches, network)
    return network.eval()
