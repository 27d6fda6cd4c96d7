"""Sentences for people: what was meant by a name that nobody knows, what a number or a tensor has to be."""

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


def check_tensors(what: str, wanted: str, *tensors: Any) -> None:
    """Make sure of float tensors, all of one shape; a ``TypeError`` or ``ValueError`` says what came and what is right.

    ``wanted`` is the shape as people write it, such as "(N, 3, H, W)": a letter stands for any length, "..." for any
    number of sides before the others. ``what`` they are is said in the plural.
    """
    from torch import Tensor  # which some commands do without

    sides = wanted.strip("(,)").removeprefix("..., ").split(", ")
    for x in tensors:
        if not isinstance(x, Tensor):
            kind, more = type(x).__name__, " of an array, images.read of a file" if "3, H, W" in wanted else ""
            raise TypeError(f"expected {what} as a float tensor {wanted}, got {kind}: torch.as_tensor makes one{more}.")
        shape = x.shape[-len(sides) :] if "..." in wanted else x.shape
        fits = len(shape) == len(sides)
        fits = fits and all(side.isalpha() or int(side) == n for side, n in zip(sides, shape, strict=True))
        if not fits or not x.is_floating_point():
            came = f"{str(x.dtype).removeprefix('torch.')} of shape {tuple(x.shape)}"
            hint = "; bytes are to be divided by 255" if came.startswith("uint8") else ""
            if "3, H, W" in wanted and x.shape[-1:] == (3,):
                hint += "; colours come before rows and columns: x.movedim(-1, -3)"
            raise ValueError(f"expected {what} as a float tensor {wanted}, got {came}{hint}.")
    if len({x.shape for x in tensors}) > 1:
        came = " and ".join(str(tuple(x.shape)) for x in tensors)
        raise ValueError(f"expected {what} of one shape, {wanted}, got {came}.")
