"""Losses on latent codes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.linalg import vector_norm

from facesr_lib.messages import check_tensors


def geocross(w: Tensor) -> Tensor:
    r"""Geodesic cross term: how far the layers' codes stray from one another on the sphere.

    .. math:: \mathrm{GEOCROSS}(w) = \frac{d}{8 L^2} \sum_{i,j} \theta_{ij}^2,
              \qquad \theta_{ij} = 2\,\mathrm{atan2}(\lVert w_i - w_j\rVert, \lVert w_i + w_j\rVert)

    w (N, L, d), one code per synthesis layer, after the mapping network's leaky ReLU → (N,): zero when all layers share
    one code (w lies in W), growing as W+ is used.

    Source: the official PULSE; the text of Menon et al. 2020 does not name it. Derived in chapter 3.
    """
    check_tensors("codes, one per layer,", "(N, L, d)", w)
    layers, d = w.shape[1:]
    i, j = torch.triu_indices(layers, layers, 1, device=w.device)  # every pair once; the sum holds it twice
    a, b = w.index_select(1, i), w.index_select(1, j)  # (N, P, d)
    theta = 2 * torch.atan2(vector_norm(a - b, dim=-1), vector_norm(a + b, dim=-1))  # (N, P)
    return theta.square().sum(1) * (2 * d / (8 * layers**2))
