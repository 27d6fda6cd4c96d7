"""PULSE (Menon et al. 2020)."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from facesr_lib import messages
from facesr_lib.losses import geocross
from facesr_lib.prior import FacePrior
from facesr_lib.randomness import Seed, generators
from facesr_lib.search.engine import Operator, SearchResult, latent_search, run_search
from facesr_lib.search.optimizers import Adam, Schedule, SphericalOptimizer, linear_one_cycle_drop, of_all
from facesr_lib.search.starts import sphere


@latent_search
def pulse(
    prior: FacePrior,
    lowres: Tensor,
    operator: Operator,
    *,
    steps: int = 100,
    lr: float = 0.4,
    schedule: Schedule = linear_one_cycle_drop,
    lambda_l2: float = 100.0,
    lambda_l1: float = 0.0,
    lambda_geocross: float = 0.05,
    eps: float = 2e-3,
    space: str = "w+",
    noise: str = "random",
    trainable_noise_layers: int = 5,
    restarts: int = 1,
    seed: Seed = 0,
    **run: Any,
) -> SearchResult:
    """PULSE: walk on the sphere of Gaussianised codes until the face, made small, is the picture (Menon et al. 2020).

    Parameters
    ----------
    prior, lowres, operator, seed, **run
        As for every method: see `search`.
    steps, lr, schedule
        Adam's, within the spherical optimiser.
    lambda_l2, lambda_l1, lambda_geocross
        Weights of the clamped mean squared error, of the official code's other pixel loss, 10 · mean absolute error,
        and of the cross term.
    eps : float
        The mean squared error under which a match counts as perfect.
    space : {"w+", "w"}
        One code per layer, or one for all.
    noise : {"random", "const", "none"}
        Noise maps that are not optimised: drawn once per image, the network's own, or zero.
    trainable_noise_layers : int
        How many noise maps, from the coarsest on, are optimised along with v.
    restarts : int
        Independent starts per image, run as one batch; the best is kept.

    Notes
    -----
    As in the official code, but each image keeps its own best step, any residual is returned, and noise layer 17 of
    StyleGAN1's 18, which is zeroed there, has no counterpart here. Derived in chapter 3.
    """
    messages.choose(space, ("w+", "w"), "space")
    draws = generators(seed, len(lowres) // restarts, restarts)
    start, render = sphere(prior, draws, space, noise, trainable_noise_layers)

    # min over v ∈ S of  100 · max(‖D(G(w)) − y‖² / 3hw, ε) + λ · GEOCROSS(w),  w = LeakyReLU(σ v + μ)
    def objective(w: Tensor, image: Tensor) -> dict[str, Tensor]:
        error = operator(image) - lowres  # (N, 3, h, w)
        squared, absolute = error.square().mean((1, 2, 3)), error.abs().mean((1, 2, 3))  # (N,)
        pixel = lambda_l2 * squared.clamp_min(eps) + lambda_l1 * 10 * absolute
        return {"pixel": pixel, "geocross": lambda_geocross * geocross(w)}

    on_spheres = of_all(partial(SphericalOptimizer, Adam), lr)
    return run_search(render, start, objective, optimizer=on_spheres, steps=steps, schedule=schedule, **run)
