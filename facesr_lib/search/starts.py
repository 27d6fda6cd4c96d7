"""Where a search begins, and what it may change: the parts that the methods share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from facesr_lib import images, randomness
from facesr_lib.degrade import check_lowres
from facesr_lib.losses import Entrance
from facesr_lib.prior import FacePrior
from facesr_lib.search.engine import Variables

Operator = Callable[[Tensor], Tensor]


def given(prior: FacePrior, lowres: Tensor, operator: Operator, restarts: int) -> Tensor:
    """Check what is to be explained and repeat it for every restart."""
    if restarts < 1:
        raise ValueError(f"restarts must be at least 1; got {restarts}.")
    return check_lowres(operator, lowres, prior.resolution).to(prior.device).repeat_interleave(restarts, 0)


def sphere(
    prior: FacePrior, n: int, space: str, noise: str, trainable: int, restarts: int, seed: int | Sequence[int]
) -> tuple[Variables, Callable[[Tensor], Tensor], Callable[[Variables], list[Tensor]]]:
    """A start on PULSE's spheres; how v becomes codes (N, L, d); and how the variables become noise maps."""
    draws = randomness.generators(seed, n // restarts, restarts)
    shape = {"w+": (prior.num_ws, prior.w_dim), "w": (1, prior.w_dim), "z": (1, prior.z_dim)}[space]
    start = {"v": randomness.normal(draws, *shape)}
    fixed = prior.noise_maps(noise, draws)
    for i in range(min(trainable, len(fixed))):
        start[f"noise_{i}"] = randomness.normal(draws, *fixed[i].shape[1:])

    def codes(v: Tensor) -> Tensor:
        w = prior.generator.mapping(v[:, 0])[:, None] if space == "z" else prior.pulse_gaussian.inverse(v)
        return w.expand(-1, prior.num_ws, -1)

    def maps(variables: Variables) -> list[Tensor]:
        return [variables.get(f"noise_{i}", m) for i, m in enumerate(fixed)]

    return {name: value.to(prior.device) for name, value in start.items()}, codes, maps


def entrance_to(prior: FacePrior, operator: Operator, kind: str) -> Callable[[Tensor], Tensor] | Entrance:
    """How a small picture enters the discriminator: "upsample" or "own" (see `methods.dse`)."""
    if kind == "upsample":
        return lambda small: images.resize(small, (prior.resolution, prior.resolution))
    if kind == "own":
        assert prior.discriminator is not None
        faces, _ = prior.sample(256, seed=0)
        return Entrance(prior.discriminator, faces, operator(faces))
    raise ValueError(f"entrance must be 'upsample' or 'own'; got {kind!r}.")


def start_codes(prior: FacePrior, kind: str, n: int, restarts: int, seed: int | Sequence[int]) -> Tensor:
    """Codes to start from, (n, L, d): the "mean" of W or those of "random" faces."""
    if kind == "mean":
        return prior.mean_w(n)
    if kind == "random":
        z = randomness.normal(randomness.generators(seed, n // restarts, restarts), prior.z_dim).to(prior.device)
        with torch.no_grad():
            return prior.generator.mapping(z)[:, None].expand(-1, prior.num_ws, -1)
    raise ValueError(f"start must be 'mean' or 'random'; got {kind!r}.")


def free_layers(prior: FacePrior, w: Tensor, layers: int, space: str) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The codes that are searched, (N, k, d), k = 1 in W, and how they become all of them, (N, L, d)."""
    if not 1 <= layers <= prior.num_ws:
        raise ValueError(f"layers must be between 1 and {prior.num_ws}, the prior's number of codes; got {layers}.")
    if space not in ("w+", "w"):
        raise ValueError(f"space must be 'w+' or 'w'; got {space!r}.")
    if space == "w":  # one code for all: there is no rest that could stay
        return w[:, :1], lambda free: free.expand(-1, prior.num_ws, -1)
    return w[:, :layers], lambda free: torch.cat([free, w[:, layers:]], 1)
