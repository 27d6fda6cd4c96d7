"""How Gaussian codes are, by their squared norms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Gaussianity:
    """How far squared norms ‖v‖² are from χ² with d degrees of freedom, which a Gaussian's have.

    Attributes
    ----------
    space : str
    d : int
    mean, std : float
        Of ‖v‖²; a Gaussian's are d and √(2d).
    ks : float
        Kolmogorov–Smirnov: the largest difference between the two distribution functions. A true Gaussian's is about
        0.87 / √n for n draws.
    wasserstein : float
        Wasserstein-1: how far mass must be moved on average, in units of ‖v‖².
    squared_norms : (n,)
    """

    space: str
    d: int
    mean: float
    std: float
    ks: float
    wasserstein: float
    squared_norms: Tensor

    @classmethod
    def of(cls, space: str, v: Tensor) -> Gaussianity:
        """Measure codes (n, d); a ``ValueError`` if one is NaN or infinite, or there are none."""
        from scipy import stats

        if v.ndim != 2 or not v.numel() or not v.isfinite().all():
            raise ValueError(
                f"{space}: codes are finite, (n, d); these are {tuple(v.shape)}, or one is NaN or infinite."
            )
        norms = v.double().square().sum(1).cpu()
        expected = stats.chi2(v.shape[1])
        # between a sample and a distribution, as the mean difference of their quantiles
        quantiles = expected.ppf((np.arange(len(norms)) + 0.5) / len(norms))
        return cls(
            space,
            v.shape[1],
            norms.mean().item(),
            norms.std().item(),
            float(stats.kstest(norms.numpy(), expected.cdf).statistic),
            float(np.abs(np.sort(norms.numpy()) - quantiles).mean()),
            norms.float(),
        )
