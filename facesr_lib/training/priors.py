"""What FSRNet is told of a face: a heatmap for each landmark and a map for each class of its parsing."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from facesr_lib.networks.landmarks import MIRRORED, POINTS, draw
from facesr_lib.networks.supervised import CLASSES
from facesr_lib.training.augment import place, place_points
from facesr_lib.training.parsing import check_classes

SIDE = 64

# Helen's classes, which FSRNet knows, of CelebAMask-HQ's: background, skin, brows, eyes, nose, lips, mouth, hair
HELEN = (0, 1, 6, 1, 4, 5, 2, 3, 0, 0, 8, 7, 9, 10, 0, 0, 0, 0, 0)
MIRRORED_CLASSES = torch.tensor([0, 1, 3, 2, 5, 4, *range(6, 12)])
"""Which of Helen's classes each becomes in the mirror; the last is none, but what is undecided."""


class Priors:
    """Landmarks and parsing of faces ``pixels`` (M, S, S, 3), which move and are mirrored with them.

    ``points`` (M, 68, 2) are in pixels, ``labels`` (M, S, S) uint8, of CelebAMask-HQ's 19 classes (anything else is
    undecided); ``sigma`` is the width of the heatmaps, in pixels of 64². A ``ValueError`` says that they are not these
    faces', or hold other classes.
    """

    def __init__(self, points: Tensor, labels: np.ndarray, pixels: np.ndarray, sigma: float, device: torch.device):
        if points.shape != (len(pixels), POINTS, 2) or labels.shape != pixels.shape[:3]:
            raise ValueError(
                f"faces {pixels.shape} need points ({len(pixels)}, {POINTS}, 2) and labels {pixels.shape[:3]}; got "
                f"{tuple(points.shape)} and {labels.shape}."
            )
        check_classes(labels, "the faces' labels")
        helen = torch.full((256,), CLASSES, dtype=torch.uint8)
        helen[: len(HELEN)] = torch.tensor(HELEN, dtype=torch.uint8)
        every = torch.arange(CLASSES + 1, device=device)[:, None, None]
        parts = []
        for part in torch.from_numpy(np.array(labels)).split(50):
            shares = (helen[part.int()][:, None].to(device) == every).float()  # (50, 12, S, S)
            parts.append((F.avg_pool2d(shares, shares.shape[2] // SIDE) * 255).round().byte())
        self._labels = torch.cat(parts)  # (M, 12, 64, 64)
        self._points = (points + 0.5) * (2 / pixels.shape[1]) - 1  # (M, 68, 2) in [−1, 1]
        self._sigma, self._device, self._mirrored = sigma, device, MIRRORED_CLASSES.to(device)

    def maps(self, index: Tensor, placement: Tensor, mirrored: Tensor) -> tuple[Tensor, Tensor]:
        """Of some faces, put where `augment.placements` says.

        Returns
        -------
        maps, known : (N, 68 + 11, 64, 64)
            In [0, 1]; each pixel's classes add up to 1 as far as they are known, 0 where the parsing is undecided.
        """
        points = torch.where(mirrored[:, None, None], self._points[index][:, MIRRORED], self._points[index])
        points = (place_points(points, placement) + 1) * (SIDE / 2) - 0.5
        index, placement, mirrored, points = (
            x.to(self._device, non_blocking=True) for x in (index, placement, mirrored, points)
        )
        heatmaps = draw(points, SIDE, self._sigma)  # (N, 68, 64, 64)
        labels = self._labels[index].float() / 255  # (N, 12, 64, 64)
        labels = place(torch.where(mirrored[:, None, None, None], labels[:, self._mirrored], labels), placement)
        classes, undecided = labels.split((CLASSES, 1), 1)
        known = (1 - undecided).expand_as(classes)
        maps = torch.cat([heatmaps, classes / known.clamp_min(1 / 16)], 1)
        return maps, torch.cat([torch.ones_like(heatmaps), known], 1)
