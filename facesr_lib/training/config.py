"""What a training may be told: every field of a configuration states its bounds, and is checked where it is made."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field, fields
from math import isfinite
from numbers import Integral, Real
from typing import Any

_MEETS = {
    "at_least": operator.ge,
    "above": operator.gt,
    "at_most": operator.le,
    "among": lambda value, known: value in known,
}


def within(default: Any, **bounds: Any) -> Any:
    """A field of a `Checked` configuration: its default, and the bounds that `check` takes."""
    return field(default=default, metadata=bounds)


@dataclass(frozen=True)
class Checked:
    """A dataclass of numbers, each of its default's type, finite and within its bounds; a ``ValueError`` otherwise."""

    def __post_init__(self) -> None:
        """Check every field."""
        for each in fields(self):
            check(each.name, getattr(self, each.name), type(each.default), **each.metadata)


def check(name: str, value: Any, kind: type = float, **bounds: Any) -> None:
    """Make sure of a number, never infinite, never NaN.

    Parameters
    ----------
    name : str
        What the user calls it.
    value
        What came.
    kind : type
        ``int``: a whole number.
    **bounds
        Any of ``at_least``, ``above``, ``at_most`` (numbers) and ``among`` (a collection).

    Raises
    ------
    ValueError
        It is something else: what came and what was expected.
    """
    number = isinstance(value, Integral if kind is int else Real) and isfinite(value)
    if not number or not all(_MEETS[bound](value, limit) for bound, limit in bounds.items()):
        noun = "a whole number" if kind is int else "a finite number"
        asked = [f"{bound.replace('_', ' ')} {limit}" for bound, limit in bounds.items()]
        raise ValueError(f"{name} must be {', '.join([noun, *asked])}; got {value!r}.")
