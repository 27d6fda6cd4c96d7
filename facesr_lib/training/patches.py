"""Random patches of pictures, drawn on the device that trains on them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from facesr_lib import data, images


def read_pictures(folder: str | Path, patch: int) -> list[np.ndarray]:
    """Read every picture of a folder that a patch fits into, (H, W, 3), uint8; one warning counts and names the others.

    Errors say that there is no such folder, or nothing in it that can be used.
    """
    found, skipped = [], []
    for path in data.pictures(folder):
        try:
            pixels = images.to_uint8(images.read(path)[None])[0]
        except (ValueError, OSError) as error:
            skipped.append(str(error))
            continue
        if min(pixels.shape[:2]) < patch:
            skipped.append(f"{path.name} is {pixels.shape[1]}×{pixels.shape[0]}, smaller than a patch of {patch}².")
        else:
            found.append(pixels)
    if skipped:
        named = [*skipped[:10], f"and {len(skipped) - 10} more."][: len(skipped)]
        warnings.warn(f"skipped {len(skipped)} pictures of {folder}: {' '.join(named)}", stacklevel=2)
    if not found:
        raise ValueError(f"no picture in {folder} is readable and at least {patch}×{patch}: choose a smaller patch.")
    return found


class Patches:
    """Pictures of any size as one row of pixels on a device, and random square patches of them.

    Pictures are (H, W, 3), uint8, as `data.prepared`'s faces are; a ``ValueError`` says that one is none, or smaller
    than a patch. With ``turns`` patches come in any of a square's eight positions; else upright, and in the mirror.
    """

    def __init__(self, pictures: Sequence[np.ndarray], side: int, device: torch.device, turns: bool = True):
        for picture in pictures:
            if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
                raise ValueError(f"pictures are uint8 (H, W, 3); got {picture.dtype} {picture.shape}.")
            if min(picture.shape[:2]) < side:
                raise ValueError(f"a picture of {picture.shape[1]}×{picture.shape[0]} has no patch of {side}×{side}.")
        row = np.concatenate([picture.reshape(-1, 3) for picture in pictures])
        self._side, self._turns = side, turns
        self._pixels = torch.from_numpy(row).to(device)  # (all pixels, 3)
        self._sizes = torch.tensor([picture.shape[:2] for picture in pictures])  # (M, 2)
        self._first = self._sizes.prod(1).cumsum(0) - self._sizes.prod(1)  # (M,), where each picture begins

    def draw(self, n: int, random: torch.Generator) -> Tensor:
        """Patches (n, 3, S, S) in [0, 1], each of any picture, at any place, in any position that is allowed."""
        side = self._side
        which = torch.randint(len(self._sizes), (n,), generator=random)
        room = self._sizes[which].T - side + 1  # (2, n)
        top, left = (torch.rand(2, n, dtype=torch.float64, generator=random) * room).long()
        mirrored, upside_down, turned = torch.randint(2, (3, n), generator=random)
        if not self._turns:
            upside_down, turned = torch.zeros(2, n, dtype=torch.long)
        width = self._sizes[which, 1]
        down, right = torch.where(turned == 1, 1, width), torch.where(turned == 1, width, 1)  # pixels to the next one
        numbers = torch.stack([self._first[which] + top * width + left, upside_down, mirrored, down, right])
        first, upside_down, mirrored, down, right = numbers.to(self._pixels.device, non_blocking=True)[..., None]
        at = torch.arange(side, device=first.device)
        rows = down * torch.where(upside_down == 1, side - 1 - at, at)  # (n, S)
        columns = right * torch.where(mirrored == 1, side - 1 - at, at)
        index = first[:, None] + rows[:, :, None] + columns[:, None]  # (n, S, S)
        return self._pixels[index].permute(0, 3, 1, 2).float() / 255
