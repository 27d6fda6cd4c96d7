"""Sentences for people: what was meant by a name that nobody knows."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def choose(name: object, known: Iterable[str], kind: str) -> str:
    """Return ``name`` if it is among the known ones; else say which were meant, or which there are.

    Parameters
    ----------
    name
        What somebody typed; case, spaces, ``-``, ``_`` and ``+`` (for ``_plus``) count for nothing in the search for
        near ones.
    known
        The names that there are.
    kind : str
        What they name, such as "table".

    Raises
    ------
    ValueError
        There is no such name; near ones are named first (one that is spelt alike is the only one), all of them where
        none is near.
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
