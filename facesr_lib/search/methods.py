"""Each method as its paper has it: the objective, the start, the schedule, nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from facesr_lib import randomness
from facesr_lib.degrade import check_lowres
from facesr_lib.losses import geocross
from facesr_lib.prior import FacePrior
from facesr_lib.search.engine import SearchResult, Variables, run_search
from facesr_lib.search.optimizers import SphericalOptimizer


def pulse(
    prior: FacePrior,
    lowres: Tensor,
    operator: Callable[[Tensor], Tensor],
    *,
    steps: int = 100,
    lr: float = 0.4,
    schedule: Callable[[int, int], float] | None = None,
    lambda_l2: float = 100.0,
    lambda_l1: float = 0.0,
    lambda_geocross: float = 0.05,
    eps: float = 2e-3,
    space: str = "w+",
    noise: str = "random",
    trainable_noise_layers: int = 5,
    restarts: int = 1,
    seed: int | Sequence[int] = 0,
    **run: Any,
) -> SearchResult:
    r"""PULSE: walk on the sphere of Gaussianised codes until the face, made small, is the picture (Menon et al. 2020).

    .. math:: \min_{v \in S} \; 100 \, \max\Bigl(\tfrac{1}{3hw} \lVert D(G(w)) - y \rVert_2^2,\, \varepsilon\Bigr)
              + \lambda \, \mathrm{GEOCROSS}(w), \qquad w = \mathrm{LeakyReLU}(\sigma v + \mu)

    Parameters
    ----------
    prior : FacePrior
        Any resolution, any d.
    lowres : (N, 3, h, w)
        What is to be explained, in [0, 1].
    operator
        D: (N, 3, H, W) → (N, 3, h, w), differentiable, with a ``scale``; such as `degrade.Downsample`.
    steps, lr
        Adam's, within the spherical optimiser.
    schedule
        ``schedule(step, steps)`` → factor on the learning rate; default: `linear_one_cycle_drop`.
    lambda_l2, lambda_l1, lambda_geocross
        Weights of the clamped mean squared error, of the official code's other pixel loss, 10 · mean absolute error,
        and of the cross term.
    eps
        The mean squared error under which a match counts as perfect.
    space : {"w+", "w"}
        One code per layer, or one for all.
    noise : {"random", "const", "none"}
        Noise maps that are not optimised: drawn once per image, the network's own, or zero.
    trainable_noise_layers : int
        How many noise maps, from the coarsest on, are optimised along with v.
    restarts : int
        Independent starts per image, run as one batch; the best is kept.
    seed
        One int, or one per image.
    **run
        ``record_every``, ``callback``, ``progress``: see `run_search`.

    Returns
    -------
    SearchResult

    Raises
    ------
    ValueError
        If ``lowres`` does not fit the operator and the prior, or an option is unknown.

    Notes
    -----
    As in the official code, but each image keeps its own best step, any residual is returned, and noise layer 17 of
    StyleGAN1's 18, which is zeroed there, has no counterpart here. Derived in chapter 3.
    """
    if space not in ("w+", "w"):
        raise ValueError(f"space must be 'w+' or 'w'; got {space!r}.")
    if restarts < 1:
        raise ValueError(f"restarts must be at least 1; got {restarts}.")
    lowres = check_lowres(operator, lowres, prior.resolution).to(prior.device).repeat_interleave(restarts, 0)
    draws = randomness.generators(seed, len(lowres) // restarts, restarts)
    start: Variables = {"v": randomness.normal(draws, prior.num_ws if space == "w+" else 1, prior.w_dim)}
    maps = prior.noise_maps(noise, draws)
    for i in range(min(trainable_noise_layers, len(maps))):
        start[f"noise_{i}"] = randomness.normal(draws, *maps[i].shape[1:])
    start = {name: value.to(prior.device) for name, value in start.items()}

    def render(variables: Variables) -> tuple[Tensor, Tensor]:
        w = prior.pulse_gaussian.inverse(variables["v"]).expand(-1, prior.num_ws, -1)
        return w, prior.render(w, [variables.get(f"noise_{i}", fixed) for i, fixed in enumerate(maps)])

    def objective(w: Tensor, image: Tensor) -> dict[str, Tensor]:
        error = operator(image) - lowres
        pixel = lambda_l2 * error.square().mean((1, 2, 3)).clamp_min(eps)
        if lambda_l1:
            pixel = pixel + lambda_l1 * 10 * error.abs().mean((1, 2, 3))
        return {"pixel": pixel, "geocross": lambda_geocross * geocross(w)}

    optimizer = partial(SphericalOptimizer, torch.optim.Adam, lr=lr)
    factor = schedule or linear_one_cycle_drop
    return run_search(
        render, start, objective, optimizer=optimizer, steps=steps, schedule=lambda step: factor(step, steps), **run
    ).best_of(restarts)


def linear_one_cycle_drop(step: int, steps: int) -> float:
    """PULSE's learning-rate factor: 0.1 → 1 → 0.1 over nine tenths of the steps, then down to 0.001."""
    cycle = 0.9 * steps
    if step < cycle:
        return 1 - 0.9 * abs(2 * step / cycle - 1)
    return 0.1 + (step - cycle) / (steps - cycle) * (0.001 - 0.1)
