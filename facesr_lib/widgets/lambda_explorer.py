"""Realism against fidelity: what turning up one weight does to faces and to two numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from traitlets import Dict, Int, List, Unicode

from facesr_lib.widgets.figure import Album, check_named, numbers, pictures, rounded, script


@dataclass(frozen=True)
class Sweep:
    """The same faces, restored with one weight after another.

    Attributes
    ----------
    values : (K,)
        The weight λ, increasing; 0 may be the first.
    fidelity, realism : (K,)
        What is measured at each, such as the residual and log p of the codes; for several faces, their mean.
    faces : (K, 3, R, R) or (K, N, 3, R, R)
        What one face, or N faces, became; in [0, 1].
    """

    values: Sequence[float] | Tensor
    fidelity: Sequence[float] | Tensor
    realism: Sequence[float] | Tensor
    faces: Tensor


class LambdaExplorer(Album):
    """A slider through the values of a weight: its place between fidelity and realism, and the faces it gives.

    A ``ValueError`` says that there is no sweep or more than six, lengths or shapes do not fit, the weights do not
    increase, or something is NaN.

    Parameters
    ----------
    sweeps : dict of Sweep
        Name of the weight, such as "λ_w" → its sweep; up to six, all on the same faces.
    beside : dict of (N, 3, R, R), optional
        Pictures that stay, such as the inputs and the truth; smaller ones are shown as squares.
    fidelity, realism : str
        What the two axes are, with the unit, and better which way. An axis is logarithmic where all its values are
        positive and span more than a factor of ten.
    **words
        ``alt``, ``title`` and ``caption``, as of every `Figure`.

    Attributes
    ----------
    sweep, point : int
        Which weight is turned, and which of its values is shown; they follow the reader's hand, and can be set and
        linked. A ``point`` beyond a sweep's last stands for the last.
    """

    _esm = script("chart.js", "lambda_explorer.js")

    sweeps = List(Dict(), help="Per sweep: name, values, fidelity, realism, and its first tile.").tag(sync=True)
    beside = List(Dict(), help="Per row of pictures that stay: name and first tile.").tag(sync=True)
    axes = List(Unicode(), help="What fidelity and realism are.").tag(sync=True)
    count = Int(help="N, faces at each point.").tag(sync=True)
    sweep = Int(0, min=0).tag(sync=True)
    point = Int(0, min=0).tag(sync=True)

    def __init__(
        self,
        sweeps: Mapping[str, Sweep],
        *,
        beside: Mapping[str, Tensor] | None = None,
        fidelity: str,
        realism: str,
        **words: Any,
    ):
        check_named("sweeps", sweeps)
        sweeps = {name: _checked(name, sweep) for name, sweep in sweeps.items()}
        shapes = {tuple(sweep.faces.shape[1:]) for sweep in sweeps.values()}
        if len(shapes) > 1:
            raise ValueError(f"the sweeps show different faces, {sorted(shapes)}: give each the same N and R")
        n, _, side, _ = shapes.pop()
        still = [pictures(repr(name), given, n, 3, "R", "R") for name, given in (beside or {}).items()]
        tiles = [sweep.faces.flatten(0, 1) for sweep in sweeps.values()]
        tiles += [torch.nn.functional.interpolate(x, (side, side), mode="nearest-exact") for x in still]
        first = accumulate(map(len, tiles), initial=0)
        super().__init__(
            torch.cat(tiles),
            sweeps=[
                {"name": name, "first": next(first)} | {what: rounded(getattr(sweep, what)) for what in MEASURED}
                for name, sweep in sweeps.items()
            ],
            beside=[{"name": name, "first": next(first)} for name in beside or ()],
            axes=[fidelity, realism],
            count=n,
            **words,
        )


MEASURED = ("values", "fidelity", "realism")


def _checked(name: str, sweep: Sweep) -> Sweep:
    """All as tensors that fit together; the faces (K, N, 3, R, R)."""

    def taken(what: str, *sides: int | str, give: str = "numbers") -> Tensor:
        return numbers(f"{what!r} of {name!r}", getattr(sweep, what), *sides, give=give)

    values, faces = taken("values", "K", give="one or more"), taken("faces")
    faces = faces[:, None] if faces.ndim == 4 else faces
    faces = pictures(f"'faces' of {name!r}", faces, len(values), "N", 3, "R", "R")
    if (values.diff() <= 0).any():
        raise ValueError(f"the values of {name!r} must increase, got {rounded(values)}")
    each = {"give": "one for each of the values"}
    return Sweep(values, taken("fidelity", len(values), **each), taken("realism", len(values), **each), faces)
