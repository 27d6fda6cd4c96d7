"""Sentences for people: what was meant by a name that nobody knows, what a number has to be."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from difflib import get_close_matches
from math import isfinite
from numbers import Integral, Real
from typing import Any

_MEETS = {
    "at_least": operator.ge,
    "above": operator.gt,
    "at_most": operator.le,
    "among": lambda value, known: value in known,
    "multiple_of": lambda value, unit: value % unit == 0,
}


def choose(name: object, known: Iterable[str], kind: str) -> str:
    """Return ``name`` if it is among the known ones; else a ``ValueError`` says which were meant, or which there are.

    Near ones are named (one that is spelt alike is the only one), all of them where none is near; case, spaces, ``-``,
    ``_`` and ``+`` (for ``_plus``) count for nothing. ``kind`` is what they name, such as "table".
    """
    known = list(known)
    if name in known:
        return str(name)
    plain = {_plain(one): one for one in reversed(known)}
    typed = _plain(str(name))
    near = [plain[one] for one in get_close_matches(typed, plain, n=3, cutoff=1.0 if typed in plain else 0.6)]
    hint = f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(known) or 'none'}."
    raise ValueError(f"there is no {kind} {name!r}: {hint}")


def _plain(name: str) -> str:
    return name.casefold().replace("+", "plus").translate(str.maketrans("", "", "-_ "))


def check(name: str, value: Any, kind: type = float, **bounds: Any) -> None:
    """Make sure of a number, never infinite, never NaN; a ``ValueError`` says what came and what was expected.

    ``name`` is what the user calls it; the ``kind`` ``int`` is a whole number, ``bool`` True or False; bounds are any
    of ``at_least``, ``above``, ``at_most``, ``multiple_of`` (numbers) and ``among`` (a collection).
    """
    if not is_number(value, kind) or not all(_MEETS[bound](value, limit) for bound, limit in bounds.items()):
        noun = {bool: "True or False", int: "a whole number"}.get(kind, "a finite number")
        asked = [f"{bound.replace('_', ' ')} {limit}" for bound, limit in bounds.items()]
        raise ValueError(f"{name} must be {', '.join([noun, *asked])}; got {value!r}.")


def is_number(value: object, kind: type = float) -> bool:
    """Whether this is a number, never infinite, never NaN; of ``int`` a whole one, of ``bool`` one of its two."""
    if kind is bool:
        return isinstance(value, bool)
    return isinstance(value, Integral) or (kind is not int and isinstance(value, Real) and isfinite(value))
