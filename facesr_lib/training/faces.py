"""The faces that a training sees, in batches, each put somewhere else every time."""

from __future__ import annotations

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from facesr_lib.training.augment import place, placements


class Faces:
    """Faces (M, S, S, 3), uint8, of which batches are drawn, small: a ``ValueError`` unless ``side`` divides S.

    ``times`` says how often it has to; 0: as often as it may. The message calls the faces by their ``kind``. A GPU
    holds them all; else they stay where they are, perhaps in a file that is larger than memory.
    """

    def __init__(self, pixels: np.ndarray, side: int, device: torch.device, times: int = 0, kind: str = "faces"):
        across = pixels.shape[1] if pixels.ndim == 4 else 0
        fits = across == times * side if times else across % side == 0
        if pixels.dtype != np.uint8 or not pixels.size or pixels.shape[1:] != (across, across, 3) or not fits:
            sides = f"S = {times * side}" if times else f"S a multiple of {side}"
            raise ValueError(f"{kind} are (M, S, S, 3), uint8, {sides}; got {pixels.shape}, {pixels.dtype}.")
        self._pixels = pixels if device.type == "cpu" else torch.from_numpy(np.array(pixels)).to(device)
        self._device, self._times = device, across // side

    def __len__(self) -> int:
        """How many."""
        return len(self._pixels)

    def __getitem__(self, index: Tensor) -> Tensor:
        """Some faces as they are, (n, 3, S, S) in [0, 1]."""
        if isinstance(self._pixels, Tensor):
            chosen = self._pixels[index.to(self._device, non_blocking=True)]
        else:
            chosen = torch.from_numpy(self._pixels[index.numpy()])
        return chosen.permute(0, 3, 1, 2).float() / 255

    def first(self, n: int) -> Tensor:
        """The first n faces, made small, (n, 3, side, side)."""
        return F.avg_pool2d(self[torch.arange(min(n, len(self._pixels)))], self._times)

    def draw(
        self, n: int, random: Generator, rotation: float, scale: float, shift: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Faces (n, 3, side, side) in [0, 1]; which they are, (n,), and how they were put: `augment.placements`."""
        index = torch.randint(len(self._pixels), (n,), generator=random)
        placement, mirrored = placements(n, random, rotation, scale, shift)
        image = place(self[index], placement.to(self._device, non_blocking=True))
        return F.avg_pool2d(image, self._times), index, placement, mirrored
