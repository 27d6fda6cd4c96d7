"""What a training may be told: every field of a configuration states its bounds, and is checked where it is made."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from facesr_lib.messages import check


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
