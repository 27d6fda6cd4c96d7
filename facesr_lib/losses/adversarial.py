"""Adversarial losses on a discriminator's logits."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus

# Relativistic average (ESRGAN, LSRGAN)


def relativistic_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    r"""D's loss: a real picture is to be more real than the fakes are on average, a fake less than the real ones.

    .. math:: L_D^{Ra} = -\tfrac12 \left( \mathbb E_y \log \sigma(C(y) - \mathbb E_z C(G(z)))
              + \mathbb E_z \log(1 - \sigma(C(G(z)) - \mathbb E_y C(y))) \right)

    Parameters
    ----------
    real, fake : (N, 1)
        Logits of as many real and generated pictures.

    Returns
    -------
    (N,)
        Their mean is the loss: ln 2 where the critic knows nothing. The averages are the batch's, so this value depends
        on its neighbours; no gradient passes through them.

    Notes
    -----
    Source: Jolicoeur-Martineau 2018, with the ½ of ESRGAN's official code, which that paper does not have. Derived in
    chapter 9.
    """
    real, fake = real.flatten(), fake.flatten()
    return (softplus(fake.mean().detach() - real) + softplus(fake - real.mean().detach())) / 2


def relativistic_generator_loss(real: Tensor, fake: Tensor) -> Tensor:
    r"""G's loss, the same with the answers exchanged: a fake is to be more real than the real ones are on average.

    .. math:: L_G^{Ra} = -\tfrac12 \left( \mathbb E_y \log(1 - \sigma(C(y) - \mathbb E_z C(G(z))))
              + \mathbb E_z \log \sigma(C(G(z)) - \mathbb E_y C(y)) \right)

    Parameters
    ----------
    real, fake : (N, 1)
        As `relativistic_discriminator_loss`'s. Nothing is learnt through the real ones; the fakes' average passes
        gradients here.

    Returns
    -------
    (N,)
    """
    real, fake = real.flatten().detach(), fake.flatten()
    return (softplus(real - fake.mean()) + softplus(real.mean() - fake)) / 2
