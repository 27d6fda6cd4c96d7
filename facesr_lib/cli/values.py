"""Values as people type them, read as a type hint says."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import NoneType
from typing import Any, get_args

_READ: dict[type, tuple[Callable[[str], Any], str]] = {
    NoneType: ({"none": None}.__getitem__, "none"),
    bool: ({"true": True, "false": False}.__getitem__, "true or false"),
    int: (int, "a whole number"),
    float: (float, "a number"),
    str: (str, "a word"),
}
"""Type → how a text is read, what is expected; in the order in which a union's are tried."""


def value(text: str, hint: Any) -> Any:
    """Read a text as one of a hint's types: "none", "true", "inf", "0.05", "mean", or "w,theta" for a sequence.

    Raises
    ------
    ValueError
        The text is none of these, or the type is none that can be typed, such as a function.
    """
    kinds = get_args(hint) if NoneType in get_args(hint) else (hint,)
    for kind, (read, _) in _READ.items():
        if kind in kinds:
            with suppress(ValueError, KeyError):
                return read(text if kind is str else text.casefold())
    for kind in kinds:
        if issubclass(getattr(kind, "__origin__", NoneType), Sequence):
            return tuple(value(part, get_args(kind)[0]) for part in text.split(","))
    expected = [words for kind, (_, words) in _READ.items() if kind in kinds]
    raise ValueError(f"{text!r} cannot be given: expected {' or '.join(expected) or 'what only Python can give'}.")


def typed(text: str, hint: Any) -> Any:
    """As `value`, with an error that argparse prints."""
    try:
        return value(text, hint)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def text(value: Any) -> str:
    """Write a value as it would be typed."""
    if isinstance(value, tuple):
        return ",".join(map(text, value))
    return getattr(value, "__name__", f"{value:g}" if isinstance(value, float) else str(value).lower())


def path(text: str) -> Path:
    """Read a path; ``~`` is the home folder wherever the shell left it."""
    return Path(text).expanduser()
