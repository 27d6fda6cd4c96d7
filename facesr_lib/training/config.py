"""What a training may be told: every field of a configuration states its bounds, and is checked where it is made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

import torch

from facesr_lib.messages import check


def within(default: Any, **bounds: Any) -> Any:
    """A field of a `Checked` configuration: its default, and the bounds that `check` takes."""
    return field(default=default, metadata=bounds)


@dataclass(frozen=True)
class Checked:
    """A dataclass of numbers and switches of their defaults' types, finite, within bounds; else a ``ValueError``.

    Texts stand below the fields that they are about: the command line shows them.
    """

    batch: int = within(16, at_least=1)
    """Images per step, over all processes."""
    seed: int = within(0, at_least=0, at_most=2**32)

    def __post_init__(self) -> None:
        """Check every field."""
        for each in fields(self):
            check(each.name, getattr(self, each.name), type(each.default), **each.metadata)

    @contextmanager
    def seeded(self) -> Iterator[None]:
        """Let torch itself draw from the seed, as new networks do; afterwards it goes on as if it had not."""
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            yield
