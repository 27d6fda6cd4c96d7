"""Discriminator-semantic exploration (Shi et al. 2022)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from facesr_lib.losses import SemanticLoss, geocross
from facesr_lib.prior import FacePrior
from facesr_lib.search.engine import SearchResult, Variables, run_search
from facesr_lib.search.optimizers import (
    Adam,
    SphericalOptimizer,
    Together,
    linear_one_cycle_drop,
)
from facesr_lib.search.starts import Operator, entrance_to, given, sphere

Schedule = Callable[[int, int], float]


@torch.inference_mode(False)
def dse(
    prior: FacePrior,
    lowres: Tensor,
    operator: Operator,
    *,
    steps: int = 100,
    lr: float = 0.4,
    lr_theta: float = 5e-5,
    schedule: Schedule | None = None,
    lambda_p: float = 100.0,
    lambda_s: float = 0.5,
    lambda_g: float = 500.0,
    blocks: int = 3,
    entrance: str = "upsample",
    space: str = "w+",
    noise: str = "random",
    trainable_noise_layers: int = 5,
    restarts: int = 1,
    seed: int | Sequence[int] = 0,
    **run: Any,
) -> SearchResult:
    r"""Discriminator-semantic exploration: PULSE that asks D as well, and tunes G to each picture (Shi et al. 2022).

    .. math:: \min_{z, \theta} \; \lambda_p \lVert \tilde y{\downarrow} - x \rVert_2
              + \lambda_s \sum_{i=1}^{b} \lVert D^{(i)}(\tilde y{\downarrow}) - D^{(i)}(x) \rVert_1
              + \lambda_g \, \mathrm{GEOCROSS}, \qquad \tilde y = G(z; \theta)

    Parameters
    ----------
    prior, lowres, operator, seed, **run
        As for every method: see this module. The prior needs a discriminator.
    steps, lr, schedule, noise, trainable_noise_layers, restarts
        As for `pulse`; the paper names no schedule and no treatment of the noise.
    lr_theta : float
        Adam's on θ, the synthesis network's parameters: every image tunes its own copy, the prior's stay as they are. 0
        leaves θ alone.
    lambda_p, lambda_s, lambda_g : float
        As printed in the paper; chapter 4 tries the orders in which they may have been meant.
    blocks : int
        b, D's last blocks.
    entrance : {"upsample", "own"}
        How a small picture enters D, which the paper does not say: enlarged to D's resolution (bicubic), or at the
        block of its own through a fitted `losses.Entrance`.
    space : {"w+", "w", "z"}
        What walks on the sphere: Gaussianised codes, one per layer or one for all, or z.

    Notes
    -----
    Source: equations 2 to 4 of the paper. Derived in chapter 4. The paper says that z is searched; the default is W+,
    as GEOCROSS vanishes where all layers share one code. The schedule scales both rates.
    """
    if prior.discriminator is None:
        raise ValueError(f"dse asks the discriminator, and the prior {prior.name!r} has none: load one with it.")
    if space not in ("w+", "w", "z"):
        raise ValueError(f"space must be 'w+', 'w' or 'z'; got {space!r}.")
    lowres = given(prior, lowres, operator, restarts)
    semantic = SemanticLoss(prior.discriminator, lowres, blocks, entrance_to(prior, operator, entrance))
    start, codes, maps = sphere(prior, len(lowres), space, noise, trainable_noise_layers, restarts, seed)
    theta = prior.theta(len(lowres)) if lr_theta else {}

    def render(variables: Variables) -> tuple[Tensor, Tensor]:
        w = codes(variables["v"])
        return w, prior.render(w, maps(variables), {name: variables[name] for name in theta} or None)

    def objective(w: Tensor, image: Tensor) -> dict[str, Tensor]:
        small = operator(image)
        return {
            "pixel": lambda_p * (small - lowres).flatten(1).norm(dim=1),
            "semantic": lambda_s * semantic(small),
            "geocross": lambda_g * geocross(w),
        }

    def optimizer(variables: Variables) -> Together:
        sphere = SphericalOptimizer(Adam, [variables[name] for name in start], lr=lr)
        tuned = [variables[name] for name in theta]
        return Together(sphere, *([Adam(tuned, lr=lr_theta)] if tuned else []))

    factor = schedule or linear_one_cycle_drop
    result = run_search(
        render,
        start | theta,
        objective,
        optimizer=optimizer,
        steps=steps,
        schedule=lambda step: factor(step, steps),
        **run,
    )
    return result.against(lowres, operator).best_of(restarts)
