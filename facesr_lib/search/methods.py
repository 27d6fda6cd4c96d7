"""Each method as its paper has it: the objective, the start, the schedule, nothing else.

All take the same first three arguments: ``prior``, a `FacePrior` of any resolution and any d; ``lowres``,
(N, 3, h, w) in [0, 1], what is to be explained; and ``operator``, D: (N, 3, H, W) → (N, 3, h, w), differentiable, with
a ``scale``, such as `degrade.Downsample`. All take ``seed`` (one int, or one per image) and pass ``record_every``,
``callback`` and ``progress`` to `run_search`. All raise a ``ValueError`` where ``lowres`` does not fit the operator and
the prior, an option's value is unknown or impossible, or the prior lacks what the method needs. They differentiate,
whatever mode they are called in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import inf, sqrt
from typing import Any

import torch
from torch import Tensor

from facesr_lib.losses import SemanticLoss, geocross
from facesr_lib.prior import FacePrior
from facesr_lib.search import priors
from facesr_lib.search.engine import SearchResult, Variables, run_search
from facesr_lib.search.optimizers import (
    Adam,
    ProjectedOptimizer,
    SphericalOptimizer,
    Together,
    linear_one_cycle_drop,
    project_l1_ball,
)
from facesr_lib.search.starts import Operator, entrance_to, free_layers, given, sphere, start_codes

Schedule = Callable[[int, int], float]
"""``schedule(step, steps)`` → factor on the learning rate."""


@torch.inference_mode(False)
def pulse(
    prior: FacePrior,
    lowres: Tensor,
    operator: Operator,
    *,
    steps: int = 100,
    lr: float = 0.4,
    schedule: Schedule | None = None,
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
    prior, lowres, operator, seed, **run
        As for every method: see this module.
    steps, lr
        Adam's, within the spherical optimiser.
    schedule
        Default: `linear_one_cycle_drop`.
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

    Notes
    -----
    As in the official code, but each image keeps its own best step, any residual is returned, and noise layer 17 of
    StyleGAN1's 18, which is zeroed there, has no counterpart here. Derived in chapter 3.
    """
    if space not in ("w+", "w"):
        raise ValueError(f"space must be 'w+' or 'w'; got {space!r}.")
    lowres = given(prior, lowres, operator, restarts)
    start, codes, maps = sphere(prior, len(lowres), space, noise, trainable_noise_layers, restarts, seed)

    def render(variables: Variables) -> tuple[Tensor, Tensor]:
        w = codes(variables["v"])
        return w, prior.render(w, maps(variables))

    def objective(w: Tensor, image: Tensor) -> dict[str, Tensor]:
        error = operator(image) - lowres
        pixel = lambda_l2 * error.square().mean((1, 2, 3)).clamp_min(eps)
        if lambda_l1:
            pixel = pixel + lambda_l1 * 10 * error.abs().mean((1, 2, 3))
        return {"pixel": pixel, "geocross": lambda_geocross * geocross(w)}

    factor = schedule or linear_one_cycle_drop
    result = run_search(
        render,
        start,
        objective,
        optimizer=lambda variables: SphericalOptimizer(Adam, variables.values(), lr=lr),
        steps=steps,
        schedule=lambda step: factor(step, steps),
        **run,
    )
    return result.against(lowres, operator).best_of(restarts)


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


@torch.inference_mode(False)
def rls(
    prior: FacePrior,
    lowres: Tensor,
    operator: Operator,
    *,
    steps: int = 200,
    lr: float = 0.5,
    lambda_w: float = 2e-4,
    lambda_g: float = 4e-4,
    lambda_c: float = 0.05,
    lambda_pixel: float = 1.0,
    layers: int | None = None,
    space: str = "w+",
    start: str = "mean",
    restarts: int = 1,
    seed: int | Sequence[int] = 0,
    **run: Any,
) -> SearchResult:
    r"""Regularised latent search: codes that explain the picture and are likely (Gheisari and Genovesio 2023).

    .. math:: \min_w \; \lVert y - D(G(w)) \rVert_1 - (\lambda_w P_w + \lambda_g P_{gaussian} + \lambda_c P_{cross})

    Parameters
    ----------
    prior, lowres, operator, seed, **run
        As for every method: see this module. The prior needs a flow.
    steps, lr
        Adam's.
    lambda_w, lambda_g, lambda_c : float
        Of the terms in `search.priors`.
    lambda_pixel : float
        Weight of the *mean* absolute difference. The paper does not say whether its ℓ1 norm is a mean (1), PULSE's (10)
        or a sum (3hw); chapter 6 tries all three.
    layers : int, optional
        How many codes, from the coarsest on, are searched; the others stay at the start. Default: all.
    space : {"w+", "w"}
        One code per layer, or one for all.
    start : {"mean", "random"}
        The mean of W, or random faces' codes.
    restarts : int
        Independent random starts per image, run as one batch; the best is kept.

    Notes
    -----
    Source: equations 5 and 6. Derived in chapters 5 and 6.
    """
    flow = prior.require_flow("rls")
    if restarts > 1 and start == "mean":
        raise ValueError("restarts from the mean would all be alike: give start='random'.")
    lowres = given(prior, lowres, operator, restarts)
    w0 = start_codes(prior, start, len(lowres), restarts, seed)
    free, codes = free_layers(prior, w0, prior.num_ws if layers is None else layers, space)

    def render(variables: Variables) -> tuple[Tensor, Tensor]:
        w = codes(variables["w"])
        return w, prior.render(w)

    def objective(w: Tensor, image: Tensor) -> dict[str, Tensor]:
        p_w, p_gaussian = priors.density_and_shell(flow, w)
        return {
            "pixel": lambda_pixel * (operator(image) - lowres).abs().mean((1, 2, 3)),
            "density": -lambda_w * p_w,
            "shell": -lambda_g * p_gaussian,
            "cross": -lambda_c * priors.cross(w),
        }

    result = run_search(
        render,
        {"w": free},
        objective,
        optimizer=lambda variables: Adam(variables.values(), lr=lr),
        steps=steps,
        **run,
    )
    return result.against(lowres, operator).best_of(restarts)


@torch.inference_mode(False)
def rls_plus(
    prior: FacePrior,
    lowres: Tensor,
    operator: Operator,
    *,
    steps: int = 50,
    lr: float = 1e-4,
    radius: float | None = None,
    layers: int | None = None,
    optimise: Sequence[str] = ("w", "theta", "eta"),
    good_enough: float = 0.25 / 255,
    anchor: Tensor | None = None,
    seed: int | Sequence[int] = 0,
    rls_options: dict[str, Any] | None = None,
    **run: Any,
) -> SearchResult:
    r"""RLS+: `rls`, then codes, network and noise together, the codes near the anchor (Gheisari and Genovesio 2023).

    .. math:: \min_{w, \theta, \eta} \; \lVert y - D(G(w, \theta, \eta)) \rVert_1,
              \qquad \lVert w - w_{anchor} \rVert_1 \le r

    Parameters
    ----------
    prior, lowres, operator, seed, **run
        As for every method: see this module. The prior needs a flow.
    steps, lr
        Adam's, in the second stage.
    radius : float, optional
        r, one ball per image; default √d, the paper's. ``inf``: no ball.
    layers : int, optional
        How many codes, from the coarsest on, the second stage changes; default: half of them, as the paper's 9 of 18.
    optimise : some of {"w", "theta", "eta"}
        Codes, the synthesis network's parameters (a copy per image; the prior's stay as they are), noise maps.
    good_enough : float
        Early stopping: an image is left alone once its mean absolute difference is at most this. Default: the mean
        rounding error of a picture of 8 bits, below which there is nothing to explain.
    anchor : (N, L, d), optional
        Codes to refine instead of those that `rls` finds.
    rls_options : dict, optional
        For the first stage.

    Notes
    -----
    Source: equation 7; the projection is exact (`project_l1_ball`). The history is the second stage's, ``anchor`` in
    the result the first's. Derived in chapter 6.
    """
    unknown = set(optimise) - {"w", "theta", "eta"}
    if unknown or not optimise:
        raise ValueError(f"optimise names some of 'w', 'theta' and 'eta'; got {list(optimise)}.")
    radius = sqrt(prior.w_dim) if radius is None else radius
    if not radius > 0:
        raise ValueError(f"the radius of an ℓ1 ball must be positive; got {radius}.")
    if anchor is None:
        first = rls(prior, lowres, operator, **{"seed": seed} | run | (rls_options or {}))
        if first.interrupted:
            return replace(first, anchor=first.latent)
        anchor = first.latent
    lowres = given(prior, lowres, operator, 1)
    if anchor.shape != (expected := (len(lowres), prior.num_ws, prior.w_dim)):
        raise ValueError(f"the anchor holds one code per image and layer, {expected}; got {tuple(anchor.shape)}.")
    centre, codes = free_layers(prior, anchor.to(prior.device), prior.num_ws // 2 if layers is None else layers, "w+")
    groups: dict[str, Variables] = {
        "w": {"w": centre},
        "theta": prior.theta(len(lowres)),
        "eta": {f"noise_{i}": m.expand(len(lowres), -1, -1, -1) for i, m in enumerate(prior.noise_maps("const", []))},
    }
    fixed = {name: value for group in groups.values() for name, value in group.items()}
    start = {name: value for group in optimise for name, value in groups[group].items()}

    def render(variables: Variables) -> tuple[Tensor, Tensor]:
        now = fixed | variables
        w = codes(now["w"])
        theta = {name: now[name] for name in groups["theta"]} if "theta" in optimise else None
        return w, prior.render(w, [now[name] for name in groups["eta"]], theta)

    def objective(w: Tensor, image: Tensor) -> dict[str, Tensor]:
        return {"pixel": (operator(image) - lowres).abs().mean((1, 2, 3))}

    def optimizer(variables: Variables) -> Any:
        adam = Adam(variables.values(), lr=lr)
        if "w" not in variables or radius == inf:
            return adam
        return ProjectedOptimizer(adam, [variables["w"]], partial(project_l1_ball, center=centre, radius=radius))

    result = run_search(render, start, objective, optimizer=optimizer, steps=steps, good_enough=good_enough, **run)
    return replace(result.against(lowres, operator), anchor=anchor)
