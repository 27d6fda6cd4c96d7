"""Distil a landmark network by hints: its heatmaps are to be the teacher's (Kim et al. 2019, section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.optim import Adam

from facesr_lib.networks import checkpoints
from facesr_lib.networks.landmarks import MIRRORED, DistilledFAN, LandmarkNetwork, draw
from facesr_lib.training.augment import place_points
from facesr_lib.training.base import Training
from facesr_lib.training.config import Checked, within
from facesr_lib.training.faces import Faces

NETWORK = "landmarks.safetensors"
SIDE = 64  # of the pictures that the network sees


@dataclass(frozen=True)
class Config(Checked):
    """Every choice of a distillation; the paper gives Adam's rate, the batch and 100,000 steps."""

    lr: float = within(1e-4, at_least=0)
    """Adam's learning rate."""
    rotation: float = within(20.0, at_least=0, at_most=180)
    scale: float = within(0.2, at_least=0, at_most=0.9)
    shift: float = within(0.08, at_least=0, at_most=0.5)
    """Each face is turned by up to so many degrees, made larger or smaller by up to this share, and moved by up to this
    share of its side; mirrored with probability one half. The paper says nothing of the kind."""
    sigma: float = within(2.0, above=0)
    """Width of the drawn heatmaps in pixels, where the teacher is a set of labels."""


class Distillation(Training[Config]):
    """A landmark network in training.

    A ``ValueError`` says that the faces are not square, or the landmarks are not theirs.

    Parameters
    ----------
    pixels : (M, S, S, 3)
        Faces, uint8, S a multiple of 64 (`data.prepared`).
    points : (M, 68, 2), optional
        Their landmarks in pixels (`data.landmarks`); needed unless there is a teacher.
    teacher : LandmarkNetwork, optional
        Whose heatmaps are the hints; default: the points, drawn.
    """

    def __init__(
        self,
        pixels: np.ndarray,
        points: Tensor | None,
        config: Config,
        teacher: LandmarkNetwork | None = None,
        device: str = "cpu",
    ):
        super().__init__(config, device, bf16=True, faces=pixels, landmarks=points, teacher=teacher)
        self._faces = Faces(pixels, SIDE, self.device)
        if points is None and teacher is None:
            raise ValueError("hints come from landmarks or from a teacher: give one of them.")
        points = torch.zeros(len(pixels), 68, 2) if points is None else points
        if points.shape != (len(pixels), 68, 2):
            raise ValueError(f"{len(pixels)} faces need landmarks ({len(pixels)}, 68, 2); got {tuple(points.shape)}.")
        self._points = (points + 0.5) * (2 / pixels.shape[1]) - 1  # (M, 68, 2) in [−1, 1], as affine_grid counts
        self._teacher = None if teacher is None else teacher.to(self.device).eval()
        with config.seeded():
            self.network = DistilledFAN()
        self.enlist(partial(Adam, lr=config.lr), "optimizer", network=self.network)

    def step(self) -> dict[str, Tensor]:
        """One step on the mean squared difference of the heatmaps, Σ (F_d(I) − F_t(I))²."""
        image, points = self.faces()
        with torch.no_grad():
            hint = draw(points, SIDE, self._c.sigma) if self._teacher is None else self._teacher.heatmaps(image)
        heatmaps = self.forward(self.network, image.to(memory_format=torch.channels_last))
        with self.turn(self.optimizers["network"]):
            loss = (heatmaps - hint).square().mean()
            loss.backward()
        self.images_seen += self.batch
        return {"hint": loss.detach()}

    def faces(self) -> tuple[Tensor, Tensor]:
        """Faces (N, 3, 64, 64) in [0, 1], each moved at random, and their points (N, 68, 2) in pixels."""
        c = self._c
        image, index, placement, mirrored = self._faces.draw(self.share, self.random, c.rotation, c.scale, c.shift)
        points = self._points[index]
        points = place_points(torch.where(mirrored[:, None, None], points[:, MIRRORED], points), placement)
        return image, ((points + 1) * (SIDE / 2) - 0.5).to(image.device)

    def snapshot(self, folder: Path) -> None:
        """Write the network, in half precision, under the official names: ``landmarks.safetensors``."""
        checkpoints.save(self.network, folder / NETWORK, self.about())
