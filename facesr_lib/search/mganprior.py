"""mGANprior (Gu et al. 2020)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from facesr_lib.losses import vgg_l1
from facesr_lib.networks.stylegan2.fast import Features
from facesr_lib.prior import FacePrior
from facesr_lib.randomness import Seed, generators, normal
from facesr_lib.search.engine import Operator, SearchResult, Variables, latent_search, run_search
from facesr_lib.search.optimizers import of_all


@latent_search
def mganprior(
    prior: FacePrior,
    lowres: Tensor,
    operator: Operator,
    *,
    perceptual: Callable[[Tensor, Tensor], Tensor] | None = vgg_l1,
    steps: int = 2000,
    lr: float = 1.0,
    lambda_perceptual: float = 1e-3,
    codes: int = 20,
    at: int = 16,
    seed: Seed = 0,
    **run: Any,
) -> SearchResult:
    """mGANprior: several codes, mixed half-way through the generator, channel by channel (Gu et al. 2020).

    Parameters
    ----------
    prior, lowres, operator, seed, **run
        As for every method: see `search`. mGANprior made its pictures small by a bilinear filter.
    perceptual
        As for `brgm`.
    steps, lr
        Plain gradient descent's.
    lambda_perceptual : float
        Against the mean squared difference on the generator's scale, −1 to 1.
    codes, at : int
        K, and the side of the maps that are mixed, r: 16 stands for the paper's sixth layer.

    Notes
    -----
    Source: the official code, which is for a generator without styles. Here G₂ takes the mean of the codes' w as its
    style, and the pictures so far are averaged. The official start, z = 0, is the same for all codes, and gradient
    descent keeps equal codes equal: they begin at random instead. ``latent`` in the result is the mean of the codes.
    """
    synthesis = prior.generator.synthesis
    if codes < 1 or at not in synthesis.resolutions[:-1]:
        sides = ", ".join(map(str, synthesis.resolutions[:-1]))
        raise ValueError(f"at least one code, mixed at one of {sides}; got codes={codes}, at={at}.")
    middle, n = synthesis.resolutions.index(at) + 1, len(lowres)
    z = normal(generators(seed, n), codes, prior.z_dim).to(prior.device)
    channels = synthesis.blocks[middle - 1].conv1.weight.shape[0]
    start = {"z": z, "alpha": torch.full((n, codes, channels), 1 / codes, device=prior.device)}

    # x = G₂(Σ_k G₁(z_k) ⊙ α_k)
    def render(variables: Variables) -> tuple[Tensor, Tensor]:
        w, features = prior.generator.mapping(variables["z"].flatten(0, 1)), Features()  # (N·K, d)
        for i, block in enumerate(synthesis.blocks):
            if i == middle:  # from G₁ to G₂
                x, scale, image = (part.unflatten(0, (n, codes)) for part in features)
                factor = (scale * variables["alpha"]).to(x.dtype)  # (N, K, C)
                w = w.unflatten(0, (n, codes)).mean(1)  # (N, d)
                features = Features((x * factor[..., None, None]).sum(1), w.new_ones(n, channels), image.mean(1))
            noise = [layer.noise_const[None, None] for layer in block.layers]
            features = prior.synthesis.grow(block, features, [w] * (len(noise) + 1), noise)
        return w[:, None].expand(-1, prior.num_ws, -1), (features.image + 1) / 2

    # mean (2 (D(x) − y))² + λ · perceptual(D(x), y)
    def objective(w: Tensor, image: Tensor) -> dict[str, Tensor]:
        small = operator(image)
        terms = {"pixel": (2 * (small - lowres)).square().mean((1, 2, 3))}
        return terms | ({} if perceptual is None else {"perceptual": lambda_perceptual * perceptual(small, lowres)})

    return run_search(render, start, objective, optimizer=of_all(torch.optim.SGD, lr), steps=steps, **run)
