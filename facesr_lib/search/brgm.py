"""BRGM (Marinescu et al. 2021)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from facesr_lib.losses import lpips_vgg
from facesr_lib.prior import FacePrior
from facesr_lib.randomness import Seed
from facesr_lib.search.engine import Operator, SearchResult, latent_search, run_search
from facesr_lib.search.optimizers import Adam, of_all, ramps
from facesr_lib.search.starts import renderer
from facesr_lib.search.terms import cosine, standard_normal


@latent_search
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
    seed: Seed = 0,
    **run: Any,
) -> SearchResult:
    """BRGM: the most likely code under a Gaussian belief about W+ (Marinescu et al. 2021).

    Parameters
    ----------
    prior, lowres, operator, seed, **run
        As for every method: see `search`. BRGM made its pictures small by a box filter.
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
    render, start = renderer(prior, lambda variables: variables["w"]), {"w": prior.mean_w(len(lowres))}
    sample = prior.sample_w(10_000)[:, 0]  # the prior's, whatever the image
    mean, std = sample.mean(0), sample.std()

    # LPIPS(D(x), y) + 10⁻³ ‖·‖² on the scale 0…255 + λ_w mean((w − μ)/σ)² + λ_c mean(1 − cos(w_i, w_j))
    def objective(w: Tensor, image: Tensor) -> dict[str, Tensor]:
        small = operator(image)
        terms = {
            "pixel": lambda_pixel * (255 * (small - lowres)).square().mean((1, 2, 3)),
            "gaussian": -lambda_w * standard_normal(w, mean, std),
            "cosine": -lambda_c * cosine(w),
        }
        return terms | ({} if perceptual is None else {"perceptual": perceptual(small, lowres)})

    return run_search(render, start, objective, optimizer=of_all(Adam, lr), steps=steps, schedule=ramps, **run)
