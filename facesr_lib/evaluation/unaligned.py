"""The held-out faces moved at random, as the "unaligned" trainings move theirs, each by numbers of its own."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from facesr_lib import data, randomness
from facesr_lib.networks.landmarks import MIRRORED
from facesr_lib.training.augment import UNALIGNED, place, place_points, placements

NAME = "unaligned"
"""What tables call these faces."""


def faces(resolution: int, count: int, seed: int) -> Tensor:
    """(count, 3, resolution, resolution) in [0, 1]; the resolution divides 128."""
    placement, _ = _placements(count, seed)
    return F.avg_pool2d(place(data.faces("test", 2 * resolution, count), placement), 2)


def points(count: int, seed: int) -> Tensor:
    """Their landmarks, (count, 68, 2) in shares of the side."""
    placement, mirrored = _placements(count, seed)
    at = 2 * aligned_points(count) - 1
    return (place_points(torch.where(mirrored[:, None, None], at[:, MIRRORED], at), placement) + 1) / 2


def aligned_points(count: int) -> Tensor:
    """The landmarks of the faces as they were, (count, 68, 2) in shares of the side."""
    return (data.landmarks("faces-test", data.FACE_SIDE)[:count] + 0.5) / data.FACE_SIDE


def _placements(count: int, seed: int) -> tuple[Tensor, Tensor]:
    drawn = [placements(1, generator, **UNALIGNED) for generator in randomness.generators(seed, count)]
    placement, mirrored = (torch.cat(parts) for parts in zip(*drawn, strict=True))
    return placement, mirrored
