"""Values as people type them, read as a type hint says."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

READ: dict[type, tuple[Callable[[str], Any], str]] = {
    NoneType: ({"none": None}.__getitem__, "none"),
    bool: ({"true": True, "false": False}.__getitem__, "true or false"),
    int: (int, "a whole number"),
    float: (float, "a number"),
    str: (str, "a word"),
}
"""Type → how a text is read, and what is expected; a union's are tried in this order."""


class Mistake(ValueError):
    """What a command is asked for cannot be, whatever it finds."""


def value(text: str, hint: Any) -> Any:
    """Read a text as one of a hint's types: "none", "true", "inf", "0.05", "mean", or "w,theta" for a sequence.

    An ``ArgumentTypeError`` says that it is none of these, and whether only a program can give others, as a function.
    """
    if isinstance(kind := get_origin(hint), type) and issubclass(kind, Sequence):
        return tuple(value(part, get_args(hint)[0]) for part in text.split(","))
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    expected = [READ[kind] for kind in READ if kind in kinds]
    for read, _ in expected:
        with suppress(ValueError, KeyError):
            return read(text if read is str else text.casefold())
    ways = [f"expected {' or '.join(words for _, words in expected)}"] if expected else []
    if len(expected) < len(kinds):
        ways.append(f"only a program can give {'others' if expected else 'one'}")
    raise ArgumentTypeError(f"{text!r} cannot be given: {'; '.join(ways)}.")


def text(value: Any) -> str:
    """Write a value as it would be typed."""
    if isinstance(value, tuple):
        return ",".join(map(text, value))
    return getattr(value, "__name__", f"{value:g}" if isinstance(value, float) else str(value).lower())


def path(text: str) -> Path:
    """Read a path; ``~`` is the home folder wherever the shell left it."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ArgumentTypeError(f"{text!r} names the home of nobody here.") from error
