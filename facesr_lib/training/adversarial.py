"""What the training of every generative adversarial network shares: lazy penalties and a moving average.

Its networks learn in turns (`base.Training.turn`)::

    def step(self):
        with self.turn(self.d_optimizer):
            (F.softplus(D(G(z).detach())) + F.softplus(-D(real))).mean().backward()
        with self.turn(self.g_optimizer, frozen=self.discriminator):
            F.softplus(-D(G(z))).mean().backward()
        self.images_seen += self.batch
        follow(self.average, self.generator, self.batch, half_life=10_000, seen=self.images_seen)
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.swa_utils import update_bn

Network = TypeVar("Network", bound=nn.Module)


def adam(network: nn.Module, lr: float, interval: int | None = None) -> Adam:
    """Adam, β = (0, 0.99), whose steps can be replayed on a GPU (`capture`).

    With an ``interval``, k, its rates are as for k + 1 updates in k steps (Karras et al. 2020, app. B, where a penalty
    on every k-th step has an update of its own; here it shares one with the loss).
    """
    ratio = interval / (interval + 1) if interval else 1.0
    on_gpu = next(network.parameters()).is_cuda
    return Adam(network.parameters(), lr=lr * ratio, betas=(0.0, 0.99**ratio), capturable=on_gpu)


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
