"""Discriminator-semantic exploration (Shi et al. 2022)."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from facesr_lib import messages
from facesr_lib.losses import SemanticLoss, geocross
from facesr_lib.prior import FacePrior
from facesr_lib.randomness import Seed, generators
from facesr_lib.search.engine import Operator, SearchResult, Variables, latent_search, run_search
from facesr_lib.search.optimizers import Adam, Schedule, SphericalOptimizer, linear_one_cycle_drop
from facesr_lib.search.starts import entrance_to, sphere


@latent_search
def dse(
    prior: FacePrior,
    lowres: Tensor,
    operator: Operator,
    *,
    steps: int = 100,
    lr: float = 0.4,
    lr_theta: float = 5e-5,
    schedule: Schedule = linear_one_cycle_drop,
    lambda_p: float = 100.0,
    lambda_s: float = 0.5,
    lambda_g: float = 0.05,
    blocks: int = 3,
    entrance: str = "upsample",
    space: str = "w+",
    noise: str = "random",
    trainable_noise_layers: int = 5,
    restarts: int = 1,
    seed: Seed = 0,
    **run: Any,
) -> SearchResult:
    """Discriminator-semantic exploration: PULSE that asks D as well, and tunes G to each picture (Shi et al. 2022).

    Parameters
    ----------
    prior, lowres, operator, seed, **run
        As for every method: see `search`. The prior needs a discriminator.
    steps, lr, schedule, noise, trainable_noise_layers, restarts
        As for `pulse`; the paper names no schedule, which scales both rates here, and no treatment of the noise.
    lr_theta : float
        Adam's on θ, the synthesis network's parameters: every image tunes its own copy, the prior's stay as they are. 0
        leaves θ alone.
    lambda_p, lambda_s, lambda_g : float
        λ_p and λ_s as printed. The paper prints λ_g = 500 for a term that it takes from PULSE, which weighs it with
        0.05: that is the default, and what the ledger measures. With the printed weight the layers' codes collapse
        towards one, and PSNR falls (chapter 4 tries all orders of the three).
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
    as GEOCROSS vanishes where all layers share one code.
    """
    discriminator = prior.require_discriminator("dse")
    messages.choose(space, ("w+", "w", "z"), "space")
    semantic = SemanticLoss(discriminator, lowres, blocks, entrance_to(prior, operator, entrance))
    draws = generators(seed, len(lowres) // restarts, restarts)
    start, render = sphere(prior, draws, space, noise, trainable_noise_layers)
    theta = prior.theta(len(lowres)) if lr_theta else {}

    # Equation 2, over z and θ: λ_p ‖ỹ↓ − x‖₂ + λ_s Σ_{i≤b} ‖D⁽ⁱ⁾(ỹ↓) − D⁽ⁱ⁾(x)‖₁ + λ_g GEOCROSS,  ỹ = G(z; θ)
    def objective(w: Tensor, image: Tensor) -> dict[str, Tensor]:
        small = operator(image)  # (N, 3, h, w)
        return {
            "pixel": lambda_p * (small - lowres).flatten(1).norm(dim=1),
            "semantic": lambda_s * semantic(small),
            "geocross": lambda_g * geocross(w),
        }

    def optimizer(variables: Variables) -> Optimizer:
        tuned = {"params": [variables[name] for name in theta], "lr": lr_theta}
        return SphericalOptimizer(Adam, [variables[name] for name in start], tuned, lr=lr)

    return run_search(render, start | theta, objective, optimizer=optimizer, steps=steps, schedule=schedule, **run)
