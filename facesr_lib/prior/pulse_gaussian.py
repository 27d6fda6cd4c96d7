"""PULSE's Gaussianisation of W."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor
from torch.nn import functional as F

from facesr_lib.devices import undisturbed
from facesr_lib.messages import check_tensors
from facesr_lib.networks import stylegan2


@dataclass
class PulseGaussian:
    r"""PULSE's Gaussianisation: undo the last leaky ReLU, then standardise each dimension.

    .. math:: v = (\mathrm{LeakyReLU}_5(w / \sqrt2) - \mu) / \sigma, \qquad
              w = \sqrt2 \, \mathrm{LeakyReLU}_{0.2}(\sigma v + \mu)

    The √2 is the gain of StyleGAN2's activation (StyleGAN1's, which PULSE used, has none). Source: the official PULSE;
    the text of Menon et al. 2020 does not name it.
    """

    mean: Tensor  # (d,)
    std: Tensor  # (d,)

    @classmethod
    @undisturbed()
    @torch.no_grad()
    def fit(cls, mapping: stylegan2.MappingNetwork, count: int = 1_000_000, seed: int = 0) -> PulseGaussian:
        """Mean and standard deviation over ``count`` draws of z."""
        generator = torch.Generator().manual_seed(seed)
        total, squares = mapping.w_avg.new_zeros(2, len(mapping.w_avg), dtype=torch.float64)
        for drawn in range(0, count, 10_000):
            z = torch.randn(min(10_000, count - drawn), mapping.z_dim, generator=generator).to(total.device)
            x = _before_activation(mapping(z)).double()
            total += x.sum(0)
            squares += x.square().sum(0)
        mean = total / count
        return cls(mean.float(), (squares / count - mean.square()).sqrt().float())

    def forward(self, w: Tensor) -> Tensor:
        """W → Gaussianised codes, (..., d) → (..., d)."""
        check_tensors("codes", f"(..., {len(self.mean)})", w)
        return (_before_activation(w) - self.mean) / self.std

    def inverse(self, v: Tensor) -> Tensor:
        """Gaussianised codes → w, (..., d) → (..., d)."""
        check_tensors("Gaussianised codes", f"(..., {len(self.mean)})", v)
        return stylegan2.leaky_relu(v * self.std + self.mean)


def _before_activation(w: Tensor) -> Tensor:
    return F.leaky_relu(w / sqrt(2), 5.0)
