"""Optimisers that keep their variables on a set (PULSE's sphere, the ℓ1 ball of RLS+), several at once, schedules."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from math import cos, pi
from typing import Any

import torch
from torch import Tensor

Adam = partial(torch.optim.Adam, fused=True)
"""Adam that reads and writes every variable once a step."""


class SphericalOptimizer:
    """A torch optimiser whose variables go back to their sphere after every step.

    Each row (all dimensions from the third on: one layer's code, one noise map) keeps the norm that it started with.

    Parameters
    ----------
    optimizer : callable
        A torch optimiser's class, such as ``torch.optim.Adam``.
    params : iterable of (N, L, ...) tensors
        The variables, already at their start.
    **options
        For the inner optimiser: ``lr`` and the like.

    Notes
    -----
    Source: Menon et al. 2020, section 3.2, and the official PULSE.
    """

    def __init__(self, optimizer: Callable[..., torch.optim.Optimizer], params: Iterable[Tensor], **options: Any):
        self.params = list(params)
        self.inner = optimizer(self.params, **options)
        self.radii = [_row_norm(p.detach()) for p in self.params]

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The inner optimiser's groups, whose ``lr`` a schedule sets."""
        return self.inner.param_groups

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self.inner.zero_grad()

    @torch.no_grad()
    def step(self) -> None:
        """One step of the inner optimiser, then back onto the sphere."""
        self.inner.step()
        for p, radius in zip(self.params, self.radii, strict=True):
            p.mul_(radius / _row_norm(p))


class ProjectedOptimizer:
    """Projected gradient descent: after every step the variables are put back onto a set.

    Parameters
    ----------
    inner : torch.optim.Optimizer
    params : iterable of tensors
        Those that are projected.
    project : callable
        Nearest point of the set.
    """

    def __init__(self, inner: torch.optim.Optimizer, params: Iterable[Tensor], project: Callable[[Tensor], Tensor]):
        self.inner, self.params, self.project = inner, list(params), project

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The inner optimiser's groups."""
        return self.inner.param_groups

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self.inner.zero_grad()

    @torch.no_grad()
    def step(self) -> None:
        """One step of the inner optimiser, then back onto the set."""
        self.inner.step()
        for p in self.params:
            p.copy_(self.project(p))


class Together:
    """Several optimisers that step as one, each with its own variables."""

    def __init__(self, *optimizers: Any):
        self.optimizers = optimizers

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """All groups."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def step(self) -> None:
        """One step of each."""
        for optimizer in self.optimizers:
            optimizer.step()


def _row_norm(p: Tensor) -> Tensor:
    return (p.square().sum(tuple(range(2, p.ndim)), keepdim=True) + 1e-9).sqrt()


def project_l1_ball(x: Tensor, center: Tensor, radius: float) -> Tensor:
    """Nearest point, in Euclidean distance, of the ℓ1 ball round ``center``: one ball per image.

    Parameters
    ----------
    x, center : (N, ...)
        All of an image's coordinates share one ball.
    radius : float
        In units of the ℓ1 norm; positive.

    Returns
    -------
    (N, ...)
        ``x`` itself where it lies inside.

    Raises
    ------
    ValueError
        If the radius is not positive or the shapes differ.

    Notes
    -----
    Exact: coordinates shrink by one threshold, found by sorting (Duchi et al. 2008, figure 1).
    """
    if not radius > 0:
        raise ValueError(f"the radius of an ℓ1 ball must be positive; got {radius}.")
    if x.shape != center.shape:
        raise ValueError(f"x is {tuple(x.shape)}, its centre {tuple(center.shape)}: they must agree.")
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


def ramps(t: float) -> float:
    """The learning-rate factor of StyleGAN2's projector, t from 0 to 1: linear up to 0.05, a cosine down from 0.75."""
    down = min(1.0, (1 - t) / 0.25)
    return (0.5 - 0.5 * cos(pi * down)) * min(1.0, t / 0.05)
