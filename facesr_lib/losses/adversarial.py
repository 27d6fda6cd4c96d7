"""Adversarial losses on a discriminator's logits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Wasserstein with a gradient penalty (WGAN-GP; progressive super-resolution)


def wasserstein_critic_loss(real: Tensor, fake: Tensor, *, drift: float = 1e-3) -> Tensor:
    r"""How far the critic tells fakes from real pictures, to be made small; its answers must not drift away from zero.

    .. math:: D(\tilde I) - D(I) + \varepsilon_{drift} D(I)^2

    Parameters
    ----------
    real, fake : (N,)
        The critic's answers, higher for real pictures; the generator's loss is −D(fake).
    drift : float

    Returns
    -------
    (N,)
        Their mean is the loss, together with that of `gradient_penalty`.

    Notes
    -----
    Source: Gulrajani et al. 2017; the drift Karras et al. 2018. Equation 4 of Kim et al. 2019 has the opposite sign.
    """
    return fake - real + drift * real.square()


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, epsilon: Tensor, *, weight: float = 10.0
) -> Tensor:
    r"""The slope of the critic between real pictures and fakes is to be 1.

    .. math:: \lambda (\lVert \nabla_{\hat I} D(\hat I) \rVert_2 - 1)^2,
              \qquad \hat I = \epsilon I + (1 - \epsilon) \tilde I

    Parameters
    ----------
    critic
        Pictures (N, 3, H, W) → (N,).
    real, fake : (N, 3, H, W)
        No gradient passes to them.
    epsilon : (N,)
        In [0, 1], drawn anew for every picture.
    weight : float
        λ.

    Returns
    -------
    (N,)

    Notes
    -----
    Source: Gulrajani et al. 2017; the last term of Kim et al. 2019, equation 4.
    """
    between = torch.lerp(fake.detach(), real.detach(), epsilon.view(-1, 1, 1, 1)).requires_grad_(True)
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return weight * (slope.flatten(1).norm(dim=1) - 1).square()
