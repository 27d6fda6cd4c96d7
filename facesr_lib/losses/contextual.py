"""Contextual loss: whether every feature of the target is found somewhere in the picture."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from facesr_lib.devices import in_full
from facesr_lib.messages import check_tensors


@in_full()
def contextual_loss(x: Tensor, y: Tensor, *, h: float = 0.5, epsilon: float = 1e-5) -> Tensor:
    r"""Contextual loss on cosine distances, from a picture's features x to the target's y.

    .. math:: \mathrm{CX}(x, y) = -\log \frac1P \sum_j \max_i A_{ij}, \qquad
              A_{ij} = \frac{e^{(1 - d'_{ij}) / h}}{\sum_k e^{(1 - d'_{ik}) / h}}, \qquad
              d'_{ij} = \frac{d_{ij}}{\min_k d_{ik} + \epsilon}, \qquad
              d_{ij} = \tfrac12 (1 - \cos(x_i - r, y_j - r))

    Parameters
    ----------
    x, y : (N, C, H, W)
        Features of the picture (P = H·W points i) and of the target (points j); their sizes may differ.
    h : float
        Bandwidth: the smaller, the more only the nearest point counts.
    epsilon : float
        Added to the nearest distance, by which all are divided.

    Notes
    -----
    (N,), in float32 at least; 0 where every point of y is found. The reference r is the mean of y over the whole batch,
    as in the official code, so a value depends on its neighbours.

    Source: Mechrez et al. 2018; LSRGAN (Zhong & Zhou 2020) eq. 11, whose d is a *similarity* by its formula, with which
    the loss of a picture with itself is not 0; its h is not stated. Its exponent 1 − d'/h differs from (1 − d')/h by a
    factor that A's denominator cancels. Derived in chapter 9.
    """
    check_tensors("features", "(N, C, H, W)", x)
    check_tensors("features of the target", f"({x.shape[0]}, {x.shape[1]}, H, W)", y)
    x, y = (features.to(torch.promote_types(features.dtype, torch.float32)) for features in (x, y))
    reference = y.mean((0, 2, 3), keepdim=True)  # r
    x, y = (normalize((features - reference).flatten(2), dim=1) for features in (x, y))  # (N, C, P)
    distance = ((1 - x.mT @ y) / 2).clamp_min(0)  # d (N, P of x, P of y); rounding makes some of them negative
    relative = distance / (distance.amin(2, keepdim=True) + epsilon)  # d'
    affinity = ((1 - relative) / h).softmax(2)  # A
    return -affinity.amax(1).mean(1).log()
