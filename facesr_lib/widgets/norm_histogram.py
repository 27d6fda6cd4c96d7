"""Squared norms of Gaussianised codes, held against what a Gaussian's are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from traitlets import Dict, Float, Int, List, Unicode

from facesr_lib.plots import chi2_pdf
from facesr_lib.widgets.figure import Figure, check_named, numbers, rounded, script

FINEST = 512  # bins at most; they travel, the codes do not
COARSEST = 16  # finest bins in a bar


class NormHistogram(Figure):
    r"""Histograms of ‖v‖² for several sets of codes over the density of χ²_d; each set can be switched off.

    A standard Gaussian vector's squared norm follows χ² with d degrees of freedom. The readout gives each set's mean,
    its standard deviation ("spread"), its Kolmogorov–Smirnov distance to χ²_d ("KS"), the share outside the grey band
    that holds 99 % of χ²_d ("outside"), and the share beyond the end of the axis ("cut off"). A ``ValueError`` says
    that there is no set or more than six, or that codes have another shape, another d, fewer than two rows, or NaN.

    Parameters
    ----------
    codes : dict of (n, d)
        Name → codes; up to six sets, of any sizes.
    dof : int, optional
        d, to be checked against the codes. Default: theirs.
    alt : str, optional
        Default: the sets with their numbers, in words.
    **words
        ``title`` and ``caption``, as of every `Figure`.

    Attributes
    ----------
    shown : list of str
        The sets that are drawn; follows the reader's hand, and can be set and linked, as can the next two.
    upper : float
        Where the axis ends. What lies beyond is counted in the readout, not drawn.
    coarseness : int
        How many of the finest bins make a bar: 1, 2, 4, 8 or 16.
    """

    _esm = script("chart.js", "norm_histogram.js")

    dof = Int().tag(sync=True)
    series = List(Dict(), help="Per set: name, size, counts per finest bin, mean, std, ks, outside.").tag(sync=True)
    bin_width = Float(help="Of the finest bins, which begin at 0.").tag(sync=True)
    density: List[float] = List(Float(), help="Of χ² at the edges of the finest bins.").tag(sync=True)
    band: List[float] = List(Float(), help="Holds 99 % of χ².").tag(sync=True)
    shown = List(Unicode()).tag(sync=True)
    upper = Float().tag(sync=True)
    coarseness = Int(2, min=1, max=COARSEST).tag(sync=True)

    def __init__(self, codes: Mapping[str, Tensor], dof: int | None = None, *, alt: str | None = None, **words: Any):
        from scipy import stats

        from facesr_lib.metrics.gaussianity import Gaussianity

        check_named("sets of codes", codes)
        held = {name: _checked(name, v, dof) for name, v in codes.items()}
        d = next(iter(held.values())).shape[1]
        found = {name: Gaussianity.of(name, _checked(name, v, d)) for name, v in held.items()}
        low, high = stats.chi2(d).ppf([0.005, 0.995])
        longest = max(float(one.squared_norms.quantile(0.995)) for one in found.values())
        end = max(1.3 * high, min(longest, 20 * d))
        width = float(f"{max(math.sqrt(2 * d) / 8, end / FINEST):.2g}")
        bins = math.ceil(end / width / COARSEST) * COARSEST
        edges = width * torch.arange(bins + 1)
        series: list[dict[str, Any]] = []
        for name, one in found.items():
            index = (one.squared_norms / width).clamp_max(bins).long()
            inside = (one.squared_norms >= low) & (one.squared_norms <= high)
            series.append(
                {
                    "name": name,
                    "size": len(index),
                    "counts": torch.bincount(index, minlength=bins + 1)[:bins].tolist(),
                    "mean": float(f"{one.mean:.6g}"),
                    "std": float(f"{one.std:.6g}"),
                    "ks": float(f"{one.ks:.4g}"),
                    "outside": float(f"{1 - inside.double().mean():.4g}"),
                }
            )
        super().__init__(
            dof=d,
            series=series,
            bin_width=width,
            density=rounded(chi2_pdf(edges, d)),
            band=[float(low), float(high)],
            shown=list(codes),
            upper=float(edges[-1]),
            alt=_in_words(series, d) if alt is None else alt,
            **words,
        )


def _checked(name: str, codes: Any, d: int | None) -> Tensor:
    v = numbers(repr(name), codes)
    if v.ndim != 2 or len(v) < 2 or not v.shape[1]:
        raise ValueError(f"{name!r} has shape {tuple(v.shape)}; give codes (n, d), at least two.")
    if d not in (None, v.shape[1]):
        raise ValueError(f"{name!r} has codes of {v.shape[1]} dimensions where dof is {d}: they follow different χ²")
    return v


def _in_words(series: list[dict[str, Any]], d: int) -> str:
    sets = (f"{one['name']}: mean {one['mean']:.0f}, spread {one['std']:.0f}" for one in series)
    return (
        f"Histograms of squared norms over the density of chi-squared with {d} degrees of freedom, which has mean {d} "
        f"and spread {math.sqrt(2 * d):.0f}. {'; '.join(sets)}."
    )
