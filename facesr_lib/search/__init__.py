"""Latent searches: find a face whose small version is the picture that was given."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches

from facesr_lib.search.brgm import brgm
from facesr_lib.search.dse import dse
from facesr_lib.search.engine import History, SearchResult, run_search
from facesr_lib.search.mganprior import mganprior
from facesr_lib.search.pulse import pulse
from facesr_lib.search.rls import rls, rls_plus

METHODS: dict[str, Callable[..., SearchResult]] = {
    method.__name__: method for method in (pulse, dse, rls, rls_plus, brgm, mganprior)
}
"""Name → method, as the command line and the tables know them."""

__all__ = [
    "METHODS",
    "History",
    "SearchResult",
    "brgm",
    "dse",
    "method",
    "mganprior",
    "pulse",
    "rls",
    "rls_plus",
    "run_search",
]


def method(name: str) -> Callable[..., SearchResult]:
    """Look a method up by its name; a ``ValueError`` names the nearest ones if there is none."""
    if name not in METHODS:
        near = get_close_matches(name, METHODS) or sorted(METHODS)
        raise ValueError(f"there is no method {name!r}; did you mean {' or '.join(near)}?")
    return METHODS[name]
