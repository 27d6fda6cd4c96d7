"""Adversarial losses on a discriminator's logits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import softplus

from facesr_lib.messages import check_tensors

# Wasserstein with a gradient penalty (WGAN-GP; progressive super-resolution)


def wasserstein_critic_loss(real: Tensor, fake: Tensor, *, drift: float = 1e-3) -> Tensor:
    r"""How far the critic tells fakes from real pictures, to be made small; its answers must not drift away from zero.

    .. math:: D(\tilde I) - D(I) + \varepsilon_{drift} D(I)^2

    The critic's answers (N,), higher for real pictures → (N,), whose mean is the loss, together with that of
    `gradient_penalty`; the generator's is −D(fake).

    Source: Gulrajani et al. 2017; the drift Karras et al. 2018. Equation 4 of Kim et al. 2019 has the opposite sign.
    """
    check_tensors("answers", "(N,)", real, fake)
    return fake - real + drift * real.square()


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, epsilon: Tensor, *, weight: float = 10.0
) -> Tensor:
    r"""The slope of the critic between real pictures and fakes is to be 1.

    .. math:: \lambda (\lVert \nabla_{\hat I} D(\hat I) \rVert_2 - 1)^2,
              \qquad \hat I = \epsilon I + (1 - \epsilon) \tilde I

    ``critic`` takes pictures (N, 3, H, W) and gives (N,), as this does; no gradient passes to ``real`` and ``fake``.
    ``epsilon`` (N,), in [0, 1], is drawn anew for every picture; ``weight`` is λ.

    Source: Gulrajani et al. 2017; the last term of Kim et al. 2019, equation 4.
    """
    check_tensors("pictures", "(N, 3, H, W)", real, fake)
    check_tensors("numbers from 0 to 1", f"({len(real)},)", epsilon)
    between = torch.lerp(fake.detach(), real.detach(), epsilon.view(-1, 1, 1, 1)).requires_grad_(True)
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return weight * (slope.flatten(1).norm(dim=1) - 1).square()


# Relativistic average (ESRGAN, LSRGAN)


def relativistic_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    r"""D's loss: a real picture is to be more real than the fakes are on average, a fake less than the real ones.

    .. math:: L_D^{Ra} = -\tfrac12 \left( \mathbb E_y \log \sigma(C(y) - \mathbb E_z C(G(z)))
              + \mathbb E_z \log(1 - \sigma(C(G(z)) - \mathbb E_y C(y))) \right)

    Logits (N, 1) of as many real and generated pictures → (N,), whose mean is the loss: ln 2 where the critic knows
    nothing. The averages are the batch's, so a value depends on its neighbours; no gradient passes through them.

    Source: Jolicoeur-Martineau 2018, with the ½ of ESRGAN's official code, which that paper does not have. Derived in
    chapter 9.
    """
    check_tensors("logits", "(N, 1)", real, fake)
    real, fake = real.flatten(), fake.flatten()
    return (softplus(fake.mean().detach() - real) + softplus(fake - real.mean().detach())) / 2


def relativistic_generator_loss(real: Tensor, fake: Tensor) -> Tensor:
    r"""G's loss, the same with the answers exchanged: a fake is to be more real than the real ones are on average.

    .. math:: L_G^{Ra} = -\tfrac12 \left( \mathbb E_y \log(1 - \sigma(C(y) - \mathbb E_z C(G(z))))
              + \mathbb E_z \log \sigma(C(G(z)) - \mathbb E_y C(y)) \right)

    Parameters as `relativistic_discriminator_loss`'s → (N,). Nothing is learnt through the real ones; the fakes'
    average passes gradients here.
    """
    check_tensors("logits", "(N, 1)", real, fake)
    real, fake = real.flatten().detach(), fake.flatten()
    return (softplus(real - fake.mean()) + softplus(real.mean() - fake)) / 2
