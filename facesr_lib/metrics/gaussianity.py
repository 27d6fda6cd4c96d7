"""How Gaussian codes are, by their squared norms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from facesr_lib.messages import check_tensors


@dataclass(frozen=True)
class Gaussianity:
    """How far squared norms ‖v‖² are from χ² with d degrees of freedom, which a Gaussian's have."""

    space: str
    d: int
    mean: float  # of ‖v‖²; a Gaussian's is d
    std: float  # a Gaussian's is √(2d)
    ks: float  # Kolmogorov–Smirnov, the largest difference of the distribution functions; a Gaussian's is ≈ 0.87 / √n
    wasserstein: float  # Wasserstein-1: how far mass must be moved on average, in units of ‖v‖²
    squared_norms: Tensor  # (n,)

    @classmethod
    def of(cls, space: str, v: Tensor) -> Gaussianity:
        """Measure codes (n, d); a ``ValueError`` if one is NaN or infinite, or there are none."""
        from scipy import stats

        check_tensors(f"codes of {space}", "(n, d)", v)
        if not v.numel() or not v.isfinite().all():
            raise ValueError(f"{space}: codes are finite; these are {tuple(v.shape)}, or one is NaN or infinite.")
        norms = v.double().square().sum(1).cpu()
        expected = stats.chi2(v.shape[1])
        # between a sample and a distribution, as the mean difference of their quantiles
        quantiles = expected.ppf((np.arange(len(norms)) + 0.5) / len(norms))
        wasserstein = float(np.abs(np.sort(norms.numpy()) - quantiles).mean())
        ks = float(stats.kstest(norms.numpy(), expected.cdf).statistic)
        return cls(space, v.shape[1], norms.mean().item(), norms.std().item(), ks, wasserstein, norms.float())
