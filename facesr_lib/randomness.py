"""Seeds: image i draws from its own generator, so that its numbers do not depend on its batch-mates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Integral

import numpy as np
import torch
from torch import Generator, Tensor

Seed = int | Sequence[int]
"""One number for all images, or one per image."""


def generators(seed: Seed, n: int, restarts: int = 1) -> list[Generator]:
    """One CPU generator for each of n images and each of its ``restarts``, image by image.

    With one seed, image i draws from (seed, i). With one per image, image i draws as a batch of one with that seed
    would. A ``ValueError`` says that there are not n seeds, or that one is negative or no whole number.
    """
    if isinstance(seed, (Tensor, np.ndarray)):
        seed = seed.tolist()
    seeds = list(seed) if isinstance(seed, Iterable) and not isinstance(seed, str) else [seed]
    if not all(isinstance(s, Integral) and s >= 0 for s in seeds):
        raise ValueError(f"a seed is a whole number that must not be negative, or one per image; got {seed!r}.")
    keys = [(int(s), 0) for s in seeds] if isinstance(seed, Iterable) else [(int(seed), i) for i in range(n)]
    if len(keys) != n:
        raise ValueError(f"{len(keys)} seeds for {n} images: give one number, or one per image.")
    entropies = [np.random.SeedSequence([*key, r]) for key in keys for r in range(restarts)]
    states = (entropy.generate_state(1, np.uint64)[0] for entropy in entropies)
    return [Generator("cpu").manual_seed(int(state >> np.uint64(1))) for state in states]


def normal(draws: Sequence[Generator], *shape: int) -> Tensor:
    """Standard Gaussian numbers, (len(draws), *shape), each row from its own generator."""
    return torch.stack([torch.randn(shape, generator=each, dtype=torch.float32, device="cpu") for each in draws])
