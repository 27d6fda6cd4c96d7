"""RLS and RLS+ (Gheisari and Genovesio 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from math import inf, sqrt
from typing import Any

import torch
from torch import Tensor

from facesr_lib.prior import FacePrior
from facesr_lib.search.engine import SearchResult, Variables, run_search
from facesr_lib.search.optimizers import (
    Adam,
    ProjectedOptimizer,
    project_l1_ball,
)
from facesr_lib.search.starts import Operator, free_layers, given, start_codes
from facesr_lib.search.terms import cross, density_and_shell


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
        Of the terms in `search.terms`.
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
        p_w, p_gaussian = density_and_shell(flow, w)
        return {
            "pixel": lambda_pixel * (operator(image) - lowres).abs().mean((1, 2, 3)),
            "density": -lambda_w * p_w,
            "shell": -lambda_g * p_gaussian,
            "cross": -lambda_c * cross(w),
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
