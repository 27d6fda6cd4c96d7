"""The only search loop, and the frame round it: every method is an objective, a start and an optimiser.

Each image of a batch keeps its own best result, whatever its batch-mates do; an image whose loss is no longer a number,
or small enough, stops there while the others go on; Ctrl-C ends the search with the best so far.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import wraps
from inspect import signature
from typing import Any, Concatenate, ParamSpec

import torch
from torch import Tensor
from torch.optim import Optimizer
from tqdm.auto import tqdm

from facesr_lib import images, messages, randomness
from facesr_lib.degrade import check_gradient, check_lowres
from facesr_lib.devices import undisturbed
from facesr_lib.prior import FacePrior
from facesr_lib.search.optimizers import Schedule

Variables = dict[str, Tensor]
"""What is optimised: name → (N, ...), one row per image."""

Render = Callable[[Variables], tuple[Tensor, Tensor]]
"""Variables → codes (N, L, d) and images (N, 3, H, W); differentiable."""

Operator = Callable[[Tensor], Tensor]
"""HR → LR, differentiable: (N, 3, H, W) → (N, 3, h, w)."""

Callback = Callable[[int, Tensor, Tensor], Any]
"""Called as ``callback(step, image (N, 3, H, W), loss (N,))``; returning ``True`` ends the search."""

P = ParamSpec("P")


@dataclass
class History:
    """What happened, step by step."""

    losses: dict[str, Tensor]  # (steps, N): the weighted terms, before each step; their sum is what is minimised
    latents: Tensor  # (K, N, L, d): codes at
    latent_steps: list[int]  # every k-th step, and the last if the search got there

    @property
    def total(self) -> Tensor:
        """Sum of the terms, (steps, N)."""
        return torch.stack(list(self.losses.values())).sum(0)


@dataclass
class SearchResult:
    """The best that was found for each image."""

    image: Tensor  # (N, 3, H, W) in [0, 1]
    latent: Tensor  # (N, L, d): its codes
    loss: Tensor  # (N,): its objective, before it was clamped to [0, 1]; infinite, and told, if no step gave a number
    step: Tensor  # (N,): at which it was found
    history: History
    interrupted: bool = False  # before the last step, by Ctrl-C or the callback
    residual: Tensor = field(default_factory=lambda: torch.empty(0))  # (N,): what is left, root mean squared
    anchor: Tensor | None = None  # (N, L, d): the codes round which `search.rls_plus` refined

    def best_of(self, restarts: int) -> SearchResult:
        """Keep each image's best of ``restarts`` consecutive tries."""
        n = len(self.loss) // restarts
        pick = self.loss.view(n, restarts).argmin(1) + restarts * torch.arange(n, device=self.loss.device)
        losses = {name: values[:, pick] for name, values in self.history.losses.items()}
        history = replace(self.history, losses=losses, latents=self.history.latents[:, pick])
        rows = {name: value[pick] for name, value in vars(self).items() if isinstance(value, Tensor) and len(value)}
        return SearchResult(**rows, history=history, interrupted=self.interrupted)


def latent_search(
    method: Callable[Concatenate[FacePrior, Tensor, Operator, P], SearchResult],
) -> Callable[Concatenate[FacePrior, Tensor, Operator, P], SearchResult]:
    """Frame a paper's method: what is the same before and after each of them.

    The method gets ``lowres`` checked, as float32 on the prior's device, each image as often as there are ``restarts``,
    of which the best is kept, and a view of the prior: threads may share one. It runs the same whatever state torch is
    in, and leaves that state, the prior and the picture as they were. A ``TypeError`` says that ``lowres`` is no
    tensor, a ``ValueError`` that it does not fit, or that a number among the options cannot be.
    """
    parameters = signature(method).parameters.values()
    numbers = {each.name: type(each.default) for each in parameters if type(each.default) in (int, float)}
    numbers |= {"record_every": int, "restarts": int}
    known = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]
    known += ["record_every", "callback", "progress"]

    @wraps(method)
    def framed(
        prior: FacePrior, lowres: Tensor, operator: Operator, *args: P.args, **options: P.kwargs
    ) -> SearchResult:
        images.check_batch(lowres)
        if not isinstance(prior, FacePrior):
            raise TypeError(f"a prior is what FacePrior.load gives; got a {type(prior).__name__}.")
        for name in options:
            messages.choose(name, known, f"option of {method.__name__}")
        for name in sorted(options.keys() & numbers.keys() - {"seed", "good_enough"}):  # before a first stage runs
            messages.check(name, options[name], numbers[name], **_bounds(name, numbers[name]))
        restarts: Any = options.get("restarts", 1)
        randomness.generators(options.get("seed", 0), len(lowres))  # type: ignore[arg-type]
        with undisturbed():
            lowres = lowres.detach().to(prior.device, torch.float32, copy=True)  # a copy is no inference tensor
            lowres = check_lowres(operator, lowres, prior.resolution)
            check_gradient(operator, prior.resolution, prior.device)
            result = method(prior.view(), lowres.repeat_interleave(restarts, 0), operator, *args, **options)
            result = result.best_of(restarts)
            if bad := (~result.loss.isfinite()).nonzero()[:, 0].tolist():
                warnings.warn(
                    f"{method.__name__}: no step gave a number for image {', '.join(map(str, bad))} of {len(lowres)}: "
                    "its start is returned. The operator, the prior or a term of the loss gives NaN.",
                    stacklevel=2,
                )
            with torch.no_grad():
                return replace(result, residual=(operator(result.image) - lowres).square().mean((1, 2, 3)).sqrt())

    return framed


def _bounds(name: str, kind: type) -> dict[str, float]:
    """How small an option may be: a count is 1 at least, a rate or a tolerance not negative, a weight anything."""
    if name in ("lr", "lr_theta", "eps", "trainable_noise_layers"):
        return {"at_least": 0}
    return {"at_least": 1} if kind is int else {}


def run_search(
    render: Render,
    variables: Variables,
    objective: Callable[[Tensor, Tensor], dict[str, Tensor]],
    *,
    optimizer: Callable[[Variables], Optimizer],
    steps: int,
    good_enough: float = -torch.inf,
    schedule: Schedule = lambda step, steps: 1.0,
    record_every: int = 10,
    callback: Callback | None = None,
    progress: bool = True,
) -> SearchResult:
    """Minimise an objective over the variables, image by image. The residual is left open: what was given is unknown.

    Parameters
    ----------
    render, variables
        How variables become codes and images; their start, which is not changed.
    objective
        ``objective(codes, images)`` → the weighted terms, each (N,).
    optimizer, schedule
        Makes a torch optimiser of the variables; step and steps → factor on its learning rates.
    steps : int
        How often the objective is evaluated.
    good_enough : float
        An image keeps the first step whose loss is at most this; when all have one, the search ends.
    record_every : int
        How many steps lie between two codes in the history.
    callback, progress
        Sees every step, and ends the search by returning ``True``; whether there is a progress bar.
    """
    for name, count in {"steps": steps, "record_every": record_every}.items():
        messages.check(name, count, int, at_least=1)
    variables = {name: start.detach().clone().requires_grad_() for name, start in variables.items()}
    optimise = optimizer(variables)
    rates = [group["lr"] for group in optimise.param_groups]
    terms_seen: list[dict[str, Tensor]] = []
    latents: list[Tensor] = []
    latent_steps: list[int] = []
    best: dict[str, Tensor] = {}
    alive = torch.tensor(True)  # (N,) from the first step on: images that may still find something better
    interrupted = False

    bar = tqdm(range(steps), desc="search", leave=False, disable=not progress)
    try:
        for step in bar:
            for group, rate in zip(optimise.param_groups, rates, strict=True):
                group["lr"] = rate * schedule(step, steps)
            codes, image = render(variables)
            terms = objective(codes, image)
            total = torch.stack(list(terms.values())).sum(0)  # (N,)

            with torch.no_grad():
                found = {"loss": total, "image": image, "latent": codes, "step": torch.full_like(total, step).long()}
                if step == 0:
                    best = {name: value.clone() for name, value in found.items()}
                    best["loss"].fill_(torch.inf)
                alive = alive & total.isfinite()
                better = alive & (total < best["loss"])
                best = {name: torch.where(_rows(better, value), value, best[name]) for name, value in found.items()}
                alive = alive & (best["loss"] > good_enough)
                terms_seen.append({name: term.detach() for name, term in terms.items()})
                may_end = step == 0 or good_enough > -torch.inf  # asking makes a GPU wait
                over = step == steps - 1 or (may_end and not bool(alive.any()))
                if step % record_every == 0 or over:
                    latents.append(codes.detach().clone())
                    latent_steps.append(step)
                if step % 10 == 0 and progress:
                    bar.set_postfix(loss=f"{best['loss'].mean():.3f}")

            if callback is not None and callback(step, image.detach(), total.detach()):
                interrupted = True
                break
            if over:
                break
            optimise.zero_grad()
            # Rows do not mix: a NaN in one image's loss reaches that image's variables only.
            total.sum().backward(inputs=list(variables.values()))
            optimise.step()
    except KeyboardInterrupt:
        if not terms_seen:
            raise
        interrupted = True
    finally:
        bar.close()

    losses = {name: torch.stack([terms[name] for terms in terms_seen]) for name in terms_seen[0]}
    history = History(losses, torch.stack(latents), latent_steps)
    best["image"] = best["image"].clamp(0, 1)
    return SearchResult(**best, history=history, interrupted=interrupted)


def _rows(mask: Tensor, like: Tensor) -> Tensor:
    return mask.view(-1, *[1] * (like.ndim - 1))
