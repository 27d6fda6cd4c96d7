"""BRGM (Marinescu et al. 2021)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from facesr_lib.losses import lpips_vgg
from facesr_lib.prior import FacePrior
from facesr_lib.search.engine import SearchResult, Variables, run_search
from facesr_lib.search.optimizers import Adam, ramps
from facesr_lib.search.starts import Operator, given
from facesr_lib.search.terms import cosine, standard_normal


@torch.inference_mode(False)
def brgm(
    prior: FacePrior,
    lowres: Tensor,
    operator: Operator,
    *,
    perceptual: Callable[[Tensor, Tensor], Tensor] | None = lpips_vgg,
    steps: int = 5000,
    lr: float = 0.1,
    lambda_pixel: float = 1e-3,
    lambda_w: float = 100.0,
    lambda_c: float = 3.0,
    seed: int | Sequence[int] = 0,
    **run: Any,
) -> SearchResult:
    """BRGM: the most likely code under a Gaussian belief about W+ (Marinescu et al. 2021).

    Parameters
    ----------
    prior, lowres, operator, seed, **run
        As for every method: see `methods`. BRGM made its pictures small by a box filter.
    perceptual
        ``perceptual(x, y)`` → (N,), a distance between images in [0, 1]. ``None`` goes without, which is another
        method: say so.
    steps, lr
        Adam's; the rate follows StyleGAN2's projector, `optimizers.ramps`.
    lambda_pixel, lambda_w, lambda_c : float
        Of the mean squared difference on the scale 0 to 255, of the standardised codes' mean square, and of their mean
        cosine distance; see `search.terms`.

    Notes
    -----
    Source: the official code. It starts at the mean of W and draws nothing, so ``seed`` changes nothing.
    """
    lowres = given(prior, lowres, operator, 1)
    sample = prior.sample_w(10_000)[:, 0]  # the prior's, whatever the image
    mean, std = sample.mean(0), sample.std()

    def render(variables: Variables) -> tuple[Tensor, Tensor]:
        return variables["w"], prior.render(variables["w"])

    def objective(w: Tensor, image: Tensor) -> dict[str, Tensor]:
        small = operator(image)
        terms = {
            "pixel": lambda_pixel * (255 * (small - lowres)).square().mean((1, 2, 3)),
            "gaussian": -lambda_w * standard_normal(w, mean, std),
            "cosine": -lambda_c * cosine(w),
        }
        return terms | ({} if perceptual is None else {"perceptual": perceptual(small, lowres)})

    result = run_search(
        render,
        {"w": prior.mean_w(len(lowres))},
        objective,
        optimizer=lambda variables: Adam(variables.values(), lr=lr),
        steps=steps,
        schedule=lambda step: ramps((step + 1) / steps),
        **run,
    )
    return result.against(lowres, operator)
