"""Where a search begins, and what it may change: the parts that the methods share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Generator, Tensor

from facesr_lib import images, messages, randomness
from facesr_lib.losses import Entrance
from facesr_lib.prior import FacePrior
from facesr_lib.search.engine import Operator, Render, Variables


def renderer(prior: FacePrior, codes: Callable[[Variables], Tensor], noise: list[Tensor] | None = None) -> Render:
    """How variables become codes (N, L, d) and images.

    ``codes`` makes the codes. The noise is ``noise``, by default the network's own, but for maps that are variables,
    "eta0", "eta1", ...; the network is the prior's, unless variables bear its parameters' names (`FacePrior.theta`).
    """
    maps = prior.noise_maps("const", []) if noise is None else noise
    parameters = prior.theta(1).keys()

    def render(variables: Variables) -> tuple[Tensor, Tensor]:
        w = codes(variables)
        theta = {name: value for name, value in variables.items() if name in parameters}
        return w, prior.render(w, [variables.get(f"eta{i}", m) for i, m in enumerate(maps)], theta or None)

    return render


def sphere(
    prior: FacePrior, draws: list[Generator], space: str, noise: str, trainable: int
) -> tuple[Variables, Render]:
    """A start on PULSE's spheres, v and the first ``trainable`` noise maps, and how they become images."""
    shape = {"w+": (prior.num_ws, prior.w_dim), "w": (1, prior.w_dim), "z": (1, prior.z_dim)}[space]
    start = {"v": randomness.normal(draws, *shape)}
    fixed = prior.noise_maps(noise, draws)
    start |= {f"eta{i}": randomness.normal(draws, *m.shape[1:]) for i, m in enumerate(fixed[:trainable])}

    def codes(variables: Variables) -> Tensor:
        v = variables["v"]
        w = prior.generator.mapping(v[:, 0])[:, None] if space == "z" else prior.pulse_gaussian.inverse(v)
        return w.expand(-1, prior.num_ws, -1)

    return {name: value.to(prior.device) for name, value in start.items()}, renderer(prior, codes, fixed)


def start_codes(prior: FacePrior, start: str, draws: list[Generator]) -> Tensor:
    """Codes to start from, (N, L, d): the "mean" of W or those of "random" faces."""
    if messages.choose(start, ("mean", "random"), "start") == "mean":
        return prior.mean_w(len(draws))
    with torch.no_grad():
        w = prior.generator.mapping(randomness.normal(draws, prior.z_dim).to(prior.device))
    return w[:, None].expand(-1, prior.num_ws, -1)


def entrance_to(prior: FacePrior, operator: Operator, entrance: str) -> Callable[[Tensor], Tensor] | Entrance:
    """How a small picture enters the discriminator: "upsample" or "own" (see `search.dse`)."""
    if messages.choose(entrance, ("upsample", "own"), "entrance") == "upsample":
        return partial(images.resize, size=(prior.resolution, prior.resolution))
    faces, _ = prior.sample(256, seed=0)
    return Entrance(prior.require_discriminator("dse"), faces, operator(faces))
