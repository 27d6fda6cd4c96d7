"""RLS and RLS+ (Gheisari and Genovesio 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import sqrt
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from facesr_lib import messages
from facesr_lib.prior import FacePrior
from facesr_lib.randomness import Seed, generators
from facesr_lib.search.engine import Operator, SearchResult, Variables, latent_search, run_search
from facesr_lib.search.optimizers import Adam, check_radius, of_all, project_l1_ball, projected
from facesr_lib.search.starts import renderer, start_codes
from facesr_lib.search.terms import cross, density_and_shell


@latent_search
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
    seed: Seed = 0,
    **run: Any,
) -> SearchResult:
    """Regularised latent search: codes that explain the picture and are likely (Gheisari and Genovesio 2023).

    Parameters
    ----------
    prior, lowres, operator, seed, **run
        As for every method: see `search`. The prior needs a flow.
    steps, lr, restarts
        Adam's; how many random starts per image run as one batch, of which the best is kept.
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

    Notes
    -----
    Source: equations 5 and 6. Derived in chapters 5 and 6.
    """
    flow = prior.require_flow("rls")
    if restarts > 1 and start == "mean":
        raise ValueError("restarts from the mean would all be alike: set start to random.")
    searched = prior.num_ws if layers is None else layers
    messages.check("layers", searched, int, at_least=1, at_most=prior.num_ws)
    w0 = start_codes(prior, start, generators(seed, len(lowres) // restarts, restarts))  # (N, L, d)
    if messages.choose(space, ("w+", "w"), "space") == "w":  # one code for all: there is no rest that could stay
        free, codes = w0[:, :1], lambda v: v["w"].expand(-1, prior.num_ws, -1)
    else:
        free, codes = w0[:, :searched], lambda v: torch.cat([v["w"], w0[:, searched:]], 1)

    # Equation 6: ‖y − D(G(w))‖₁ − (λ_w P_w + λ_g P_gaussian + λ_c P_cross)
    def objective(w: Tensor, image: Tensor) -> dict[str, Tensor]:
        p_w, p_gaussian = density_and_shell(flow, w)
        return {
            "pixel": lambda_pixel * (operator(image) - lowres).abs().mean((1, 2, 3)),
            "density": -lambda_w * p_w,
            "shell": -lambda_g * p_gaussian,
            "cross": -lambda_c * cross(w),
        }

    return run_search(renderer(prior, codes), {"w": free}, objective, optimizer=of_all(Adam, lr), steps=steps, **run)


@latent_search
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
    anchor: Tensor | str | None = None,
    seed: Seed = 0,
    rls_options: dict[str, Any] | None = None,
    **run: Any,
) -> SearchResult:
    """RLS+: `rls`, then codes, network and noise together, the codes near the anchor (Gheisari and Genovesio 2023).

    Parameters
    ----------
    prior, lowres, operator, seed, **run
        As for every method: see `search`. Without an anchor the prior needs a flow.
    steps, lr
        Adam's, in the second stage.
    radius : float, optional
        r, one ball per image; default √d, the paper's. ``inf``: no ball.
    layers : int, optional
        How many codes, from the coarsest on, the second stage changes; default: half of them, as the paper's 9 of 18.
    optimise : some of {"w", "theta", "eta"}
        Codes, the synthesis network's parameters (a copy per image; the prior's stay as they are), noise maps; a list,
        or one string with commas.
    good_enough : float
        Early stopping: an image is left alone once its mean absolute difference is at most this. Default: the mean
        rounding error of a picture of 8 bits, below which there is nothing to explain.
    anchor : (N, L, d) or "mean", optional
        Codes to refine, or the mean of W. Default: those that `rls` finds first.
    rls_options : dict, optional
        For the first stage.

    Notes
    -----
    Source: equation 7; the projection is exact (`project_l1_ball`). The history is the second stage's, ``anchor`` in
    the result the first's. Derived in chapter 6.
    """
    optimise = optimise.split(",") if isinstance(optimise, str) else optimise
    if not optimise or not {"w", "theta", "eta"}.issuperset(optimise):
        raise ValueError(f"optimise names some of w, theta and eta; got {optimise!r}.")
    if not isinstance(rls_options, Mapping | None):
        raise ValueError(f"rls_options is a dictionary of rls's options; got {rls_options!r}.")
    radius = check_radius(sqrt(prior.w_dim) if radius is None else radius)
    searched = prior.num_ws // 2 if layers is None else layers
    messages.check("layers", searched, int, at_least=1, at_most=prior.num_ws)
    if anchor is None:
        first = rls(prior, lowres, operator, **{"seed": seed} | run | (rls_options or {}))
        if first.interrupted:
            return replace(first, anchor=first.latent)
        anchor = first.latent
    elif isinstance(anchor, str):
        messages.choose(anchor, ("mean",), "anchor")
        anchor = prior.mean_w(len(lowres))
    anchor = torch.as_tensor(anchor).detach().to(prior.device, torch.float32, copy=True)  # (N, L, d)
    if anchor.shape != (expected := (len(lowres), prior.num_ws, prior.w_dim)):
        raise ValueError(f"the anchor holds one code per image and layer, {expected}; got {tuple(anchor.shape)}.")
    if not anchor.isfinite().all():
        raise ValueError("the anchor holds NaN or infinite codes: give those of a search that has found something.")
    centre, rest = anchor[:, :searched], anchor[:, searched:]
    groups: dict[str, Variables] = {
        "w": {"w": centre},
        "theta": prior.theta(len(lowres)),
        "eta": {f"eta{i}": m.expand(len(lowres), -1, -1, -1) for i, m in enumerate(prior.noise_maps("const", []))},
    }
    start = {name: value for group in optimise for name, value in groups[group].items()}
    render = renderer(prior, lambda variables: torch.cat([variables.get("w", centre), rest], 1))

    # Equation 7, over w, θ, η: ‖y − D(G(w, θ, η))‖₁  with  ‖w − w_anchor‖₁ ≤ r
    def objective(w: Tensor, image: Tensor) -> dict[str, Tensor]:
        return {"pixel": (operator(image) - lowres).abs().mean((1, 2, 3))}

    def optimizer(variables: Variables) -> Optimizer:
        ball = partial(project_l1_ball, center=centre, radius=radius)
        bound = {variables["w"]: ball} if "w" in optimise else {}
        return projected(Adam(variables.values(), lr=lr), bound)

    result = run_search(render, start, objective, optimizer=optimizer, steps=steps, good_enough=good_enough, **run)
    return replace(result, anchor=anchor)
