"""How a paper's table is described: its scales, its rows, and what is measured of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from facesr_lib.evaluation import measures

PAPER_RESOLUTION = 1024


@dataclass(frozen=True)
class Row:
    """A method as a table has it.

    Attributes
    ----------
    label : str
    method : str
        A name in `restoration.METHODS`; "" where codes are measured, not pictures.
    options : mapping
        For the method, or for what measures codes.
    start : Row, optional
        A first stage: this row's method gets its codes as ``anchor``.
    corrupt : callable, optional
        What befalls the low-resolution picture, in both stages.
    before : bool
        Whether ``corrupt`` befalls the face instead, before it is made small.
    """

    label: str = field(repr=False)  # rows that differ in it alone are measured once
    method: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    start: Row | None = None
    corrupt: Callable[[Tensor], Tensor] | None = None
    before: bool = False


@dataclass(frozen=True)
class PaperTable:
    """A table.

    Attributes
    ----------
    about : str
    scales, paper_scales : tuple of int
        Of a small prior, and in the paper at its faces' size: 16 stands for the papers' 64 at 64². Codes stand at 1.
    rows : tuple of Row
    measure : callable
        One of `measures`. Seconds are to be taken on a machine that does nothing else.
    """

    about: str
    scales: tuple[int, ...]
    paper_scales: tuple[int, ...]
    rows: tuple[Row, ...]
    measure: measures.Measure = measures.quality

    def settings(self, resolution: int) -> list[tuple[int, int]]:
        """Pairs of our scale and the paper's; they are the same for a prior of the papers' size."""
        ours = self.paper_scales if resolution >= PAPER_RESOLUTION else self.scales
        return list(zip(ours, self.paper_scales, strict=True))


BASELINES = (Row("bilinear", "bilinear"), Row("bicubic", "bicubic"))
PULSE = Row("PULSE", "pulse")
