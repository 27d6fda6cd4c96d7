"""Few images made to look like more.

`augment` is differentiable, for what a discriminator sees, real and fake alike (Zhao et al. 2020); `placements` says
how faces are turned, scaled, moved and mirrored, together with what is known of them.
"""

from __future__ import annotations

from math import pi

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

UNALIGNED = {"rotation": 20.0, "scale": 0.2, "shift": 0.1}
"""How far faces are moved, see `placements`. The paper's unaligned faces are cropped by boxes from CelebA and
AFLW; these stand in for them."""


def augment(x: Tensor, p: float | Tensor, generator: Generator) -> Tensor:
    """Change each image at random; gradients pass through.

    Colour (brightness ±0.5, saturation 0–2, contrast 0.5–1.5), translation by up to an eighth, and one square of a
    quarter of the side cut out; each of the three with probability ``p``, image by image.

    Parameters
    ----------
    x : (N, 3, R, R)
        In [−1, 1].
    p : float or Tensor ()
        0 changes nothing.
    generator : torch.Generator
        On the CPU, or on the images' device.

    Returns
    -------
    (N, 3, R, R)
    """
    for change in (_colour, _translation, _cutout):
        chosen = _uniform(len(x), 1, 1, 1, generator=generator).to(x.device) < p
        x = torch.where(chosen, change(x, generator), x)
    return x


def _uniform(*shape: int, generator: Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device)


def _colour(x: Tensor, generator: Generator) -> Tensor:
    brightness, saturation, contrast = _uniform(3, len(x), 1, 1, 1, generator=generator).to(x)
    x = x + (brightness - 0.5)
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * (2 * saturation)
    middle = x.mean((1, 2, 3), keepdim=True)
    return middle + (x - middle) * (contrast + 0.5)


def _translation(x: Tensor, generator: Generator) -> Tensor:
    n, _, height, width = x.shape
    most = max(1, round(height / 8))
    shift = torch.randint(-most, most + 1, (2, n), generator=generator, device=generator.device).to(x.device)
    rows = torch.arange(height, device=x.device) + shift[0, :, None] + most  # (N, H), into the padded image
    columns = torch.arange(width, device=x.device) + shift[1, :, None] + most
    padded = F.pad(x, (most,) * 4).permute(0, 2, 3, 1)  # (N, H + 2·most, W + 2·most, 3)
    image = torch.arange(n, device=x.device)[:, None, None]
    return padded[image, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)


def _cutout(x: Tensor, generator: Generator) -> Tensor:
    n, _, height, width = x.shape
    half = max(1, round(height / 8))
    y, z = _uniform(2, n, 1, generator=generator).to(x.device)  # (N, 1), in heights and widths
    rows = (torch.arange(height, device=x.device) + 0.5 - y * height).abs() < half  # (N, H)
    columns = (torch.arange(width, device=x.device) + 0.5 - z * width).abs() < half
    return x * ~(rows[:, None, :, None] & columns[:, None, None, :])


def placements(
    n: int, generator: Generator, rotation: float = 0.0, scale: float = 0.0, shift: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Draw where n pictures are to be put: turned, made larger or smaller, moved, half of them mirrored.

    Parameters
    ----------
    n : int
    generator : torch.Generator
        On the CPU.
    rotation, scale, shift : float
        At most so many degrees, this share of the size, this share of the side, either way.

    Returns
    -------
    placement : (N, 2, 3)
        x = A x' + b, [A | b]: from places in the new picture to places in the old one, which both range over [−1, 1].
    mirrored : (N,)
        Which of them; what has a left and a right is to be renamed.
    """
    turn, size, right, down, mirror = torch.rand(5, n, generator=generator) * 2 - 1
    angle, size, flip = turn * (rotation * pi / 180), 1 + size * scale, torch.where(mirror < 0, -1.0, 1.0)
    cos, sin = size * angle.cos(), size * angle.sin()
    rows = torch.stack([flip * cos, -flip * sin, right * (2 * shift), sin, cos, down * (2 * shift)], 1)
    return rows.view(n, 2, 3), mirror < 0


def place(x: Tensor, placement: Tensor) -> Tensor:
    """Put pictures or maps, (N, C, H, W), where `placements` says; beyond their borders they are reflected."""
    grid = F.affine_grid(placement, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)


def place_points(points: Tensor, placement: Tensor) -> Tensor:
    """Where points, (N, P, 2) in [−1, 1], of the old pictures are in the new ones: x' = A⁻¹ (x − b)."""
    a, b = placement.split((2, 1), 2)
    return torch.linalg.solve(a, points.mT - b).mT
