"""Terms on the codes w: what keeps a search among faces. One value per image, (N,); larger is likelier."""

from __future__ import annotations

from math import sqrt

from torch import Tensor

from facesr_lib.networks.flow import Flow


def density_and_shell(flow: Flow, w: Tensor) -> tuple[Tensor, Tensor]:
    r"""P_w and P_gaussian, from one pass of the flow.

    .. math:: P_w = \frac1L \sum_{i=1}^L \log p_F(w_i), \qquad
              P_{gaussian} = -\frac1L \sum_{i=1}^L (\lVert F(w_i) \rVert_2 - \sqrt d)^2

    F is the flow, w (N, L, d); both terms are (N,). Source: Gheisari and Genovesio 2023, equation 5. Derived in
    chapters 5 and 6.
    """
    v, log_prob = flow(w)
    return log_prob.mean(1), -(v.norm(dim=-1) - sqrt(v.shape[-1])).square().mean(1)


def cross(w: Tensor) -> Tensor:
    r"""P_cross: how little the layers' codes differ, zero in W.

    .. math:: P_{cross} = -\sum_{i=1}^{L-1} \sum_{j=i+1}^{L} \lVert w_i - w_j \rVert_2^2

    (N, L, d) → (N,), where the sum over all pairs is L times the spread round the mean code. Source: Gheisari and
    Genovesio 2023, equation 5.
    """
    return -w.shape[1] * (w - w.mean(1, keepdim=True)).square().sum((1, 2))


def standard_normal(w: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """BRGM's belief that w, standardised by ``mean`` and ``std`` (d,), is Gaussian: −mean squared entry, (N,)."""
    return -((w - mean) / std).square().mean((1, 2))


def cosine(w: Tensor) -> Tensor:
    """BRGM's belief that the layers' codes point one way: mean cosine of their pairs, minus one, (N,)."""
    unit = w / w.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    layers = w.shape[1]
    return (unit.sum(1).square().sum(1) - layers) / max(layers * (layers - 1), 1) - float(layers > 1)
