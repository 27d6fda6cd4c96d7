"""Optimisers whose variables stay on a set (PULSE's spheres, the ℓ1 ball of RLS+), and learning-rate schedules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from math import cos, pi
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from facesr_lib import messages

Adam = partial(torch.optim.Adam, fused=True)
"""Adam that reads and writes every variable once a step."""

Schedule = Callable[[int, int], float]
"""``schedule(step, steps)`` → factor on the learning rates."""


def of_all(optimizer: Callable[..., Optimizer], lr: float) -> Callable[[Mapping[str, Tensor]], Optimizer]:
    """All variables of a search, at one rate: what `run_search` takes."""
    return lambda variables: optimizer(variables.values(), lr=lr)


def projected(optimizer: Optimizer, sets: Mapping[Tensor, Callable[[Tensor], Tensor]]) -> Optimizer:
    """Projected gradient descent: after each step of the optimiser, variables go to the nearest point of their sets."""

    @torch.no_grad()
    def put_back(*_: Any) -> None:
        for variable, nearest in sets.items():
            variable.copy_(nearest(variable))

    optimizer.register_step_post_hook(put_back)
    return optimizer


def SphericalOptimizer(
    optimizer: Callable[..., Optimizer], params: Iterable[Tensor], *free: dict[str, Any], **options: Any
) -> Optimizer:
    """Make a torch optimiser whose variables go back to their sphere after every step.

    Each row (all dimensions from the third on: one layer's code, one noise map) keeps the norm that it started with.
    ``optimizer`` is a torch optimiser's class, ``params`` are (N, L, ...), already at their start; ``free`` are further
    parameter groups, with rates of their own, that go where they like.

    Source: Menon et al. 2020, section 3.2, and the official PULSE, whose class has this name.
    """

    def norm(p: Tensor) -> Tensor:
        return (p.detach().square().sum(tuple(range(2, p.ndim)), keepdim=True) + 1e-9).sqrt()

    def to_sphere(p: Tensor, radius: Tensor) -> Tensor:
        return p * (radius / norm(p))

    params = list(params)
    spheres = {p: partial(to_sphere, radius=norm(p)) for p in params}
    return projected(optimizer([{"params": params}, *free], **options), spheres)


def check_radius(radius: float) -> float:
    """Return the radius of an ℓ1 ball; a ``ValueError`` unless it is a positive number (infinite: no ball)."""
    if not isinstance(radius, Real) or not radius > 0:
        raise ValueError(f"the radius of an ℓ1 ball must be positive; got {radius!r}.")
    return radius


def project_l1_ball(x: Tensor, center: Tensor, radius: float) -> Tensor:
    """Nearest point, in Euclidean distance, of the ℓ1 ball round ``center``: one ball per image.

    Exact: coordinates shrink by one threshold, found by sorting (Duchi et al. 2008, figure 1). ``x`` and ``center`` are
    (N, ...), and all of an image's coordinates share its ball; inside it ``x`` stays as it is. A ``ValueError`` says
    that the radius is not positive or that the shapes differ.
    """
    check_radius(radius)
    messages.check_tensors("x and its centre", "(..., D)", x, center)
    offset = (x - center).flatten(1)  # (N, D)
    size = offset.abs()
    descending = size.sort(1, descending=True).values
    excess = descending.cumsum(1) - radius
    count = torch.arange(1, size.shape[1] + 1, device=x.device)
    # the threshold that leaves the k largest coordinates, for the largest k that keeps all of them positive
    k = (descending * count > excess).sum(1, keepdim=True).clamp_min(1)
    threshold = (excess.gather(1, k - 1) / k).clamp_min(0)
    shrunk = offset.sign() * (size - threshold).clamp_min(0)
    inside = size.sum(1, keepdim=True) <= radius
    return torch.where(inside.view(-1, *[1] * (x.ndim - 1)), x, center + shrunk.view_as(x))


def linear_one_cycle_drop(step: int, steps: int) -> float:
    """PULSE's learning-rate factor: 0.1 → 1 → 0.1 over nine tenths of the steps, then down to 0.001."""
    cycle = 0.9 * steps
    if step < cycle:
        return 1 - 0.9 * abs(2 * step / cycle - 1)
    return 0.1 + (step - cycle) / (steps - cycle) * (0.001 - 0.1)


def ramps(step: int, steps: int) -> float:
    """StyleGAN2's projector's: a line up over the first twentieth of the steps, a cosine down in the last quarter."""
    t = (step + 1) / steps
    down = min(1.0, (1 - t) / 0.25)
    return (0.5 - 0.5 * cos(pi * down)) * min(1.0, t / 0.05)
