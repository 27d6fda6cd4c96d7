"""What OpenCV and imgaug do to pictures, in batches: blur kernels, medians, and resizing as matrices."""

from __future__ import annotations

from math import ceil, pi

import torch
from torch import Tensor
from torch.nn import functional as F

BLURS = ("none", "gaussian", "average", "median", "motion")
RESIZES = ("nearest", "linear", "area", "cubic")


def blur_kernels(blur: Tensor, extent: Tensor, angle: Tensor, direction: Tensor) -> Tensor:
    """Kernels of blurs that are sums over neighbours, centre in the middle: (N, k, k), k odd, each with a sum of 1.

    Parameters
    ----------
    blur : (N,)
        Indices into `BLURS`: "gaussian", "average" or "motion".
    extent : (N,)
        A Gaussian's σ, or the side of the others' kernels; a motion's is odd.
    angle, direction : (N,)
        Of a motion, see `camera.Choices`.
    """
    motion, gaussian = (blur == BLURS.index(name) for name in ("motion", "gaussian"))
    sigma = side = extent.double()
    shares = torch.where(sigma < 3, 3.3, torch.where(sigma < 5, 2.9, 2.6))  # imgaug's sides of a Gaussian
    side = torch.where(gaussian, (shares * sigma).floor().clamp_min(5) // 2 * 2 + 1, side)[:, None]  # (N, 1)
    half, reach = side // 2, int(side.max()) // 2
    at = torch.arange(-reach, reach + 1, dtype=torch.float64)  # (k,)
    # an even side is not centred: it has one pixel more before the middle than after it
    bell = torch.exp(-at.square() / (2 * sigma.square()[:, None]))
    line = torch.where(gaussian[:, None], bell, 1) * ((at >= -half) & (at < side - half))  # (N, k)
    kernel = line[:, :, None] * line[:, None]
    if motion.any():
        kernel[motion] = _motion_kernels(angle[motion], direction[motion], half[motion], at)
    return kernel / kernel.sum((1, 2), keepdim=True)


def _motion_kernels(angle: Tensor, direction: Tensor, half: Tensor, at: Tensor) -> Tensor:
    """Lines of light, fading towards one end, turned about the centre, in 8 bits as imgaug draws them: (N, k, k)."""
    first, angle = (direction[:, None] + 1) / 2, angle.double()[:, None, None] * (pi / 180)
    light = (255 * (first + (1 - 2 * first) * (at + half) / (2 * half))).floor() * (at.abs() <= half)  # (N, k), upright
    y, x = at[:, None], at
    column = angle.cos() * x + angle.sin() * y  # (N, k, k), where each place was before
    row = angle.cos() * y - angle.sin() * x
    turned = torch.einsum("nj,nyxj->nyx", light, (1 - (row[..., None] - at).abs()).clamp_min(0))
    inside = (y.abs() <= half[..., None]) & (x.abs() <= half[..., None])
    return (turned * (1 - column.abs()).clamp_min(0)).round() * inside


def carried_over(kernel: Tensor, scale: float) -> Tensor:
    """Kernels (N, k, k) for pictures ``scale`` times as large: each weight's square grows, and is shared by area."""
    reach = kernel.shape[1] // 2
    new = ceil(scale * (reach + 0.5) - 0.5)
    new_at, at = torch.arange(-new, new + 1.0)[:, None], scale * torch.arange(-reach, reach + 1.0)
    ends = (torch.minimum(new_at + 0.5, at + scale / 2), torch.maximum(new_at - 0.5, at - scale / 2))
    share = ((ends[0] - ends[1]).clamp_min(0) / scale).to(kernel)  # (k', k)
    return share @ kernel @ share.T


def median(x: Tensor, half: int) -> Tensor:
    """Median of (2 · half + 1)² pixels, borders repeated; in bands of rows, because each pixel needs all of them."""
    side, rows = 2 * half + 1, x.shape[2]
    padded, band = F.pad(x, (half,) * 4, "replicate"), max(1, 2**24 // (x[:, :, 0].numel() * side**2))
    bands = (padded[:, :, top : top + band + 2 * half] for top in range(0, rows, band))
    windows = (each.unfold(2, side, 1).unfold(3, side, 1).flatten(4) for each in bands)
    return torch.cat([each.median(4).values for each in windows], 2)


def resizing(n_in: Tensor, n_out: Tensor, columns: int, rows: int, kernel: Tensor) -> Tensor:
    """OpenCV's resizing of one axis as matrices (N, 1, rows, columns), zero beyond n_out (N,) × n_in (N,).

    Only "area" looks at all pixels when it makes small; the others take one, two or four beside each place.
    """
    n_in, n_out = n_in[:, None], n_out[:, None]
    i = torch.arange(rows, device=kernel.device)  # (rows,)
    scale = n_in / n_out  # (N, 1)
    centre = (i + 0.5) * scale - 0.5  # (N, rows)
    first = centre.floor()
    t = centre - first
    # Keys' cubic, a = −3/4, at distances 1 + t, t, 1 − t, 2 − t
    a = -0.75
    near = [((a + 2) * d - (a + 3)) * d * d + 1 for d in (t, 1 - t)]
    far = [((d - 5) * d + 8) * d * a - 4 * a for d in (1 + t, 2 - t)]
    zero, one = torch.zeros_like(t), torch.ones_like(t)
    taps = {
        "nearest": [zero, one, zero, zero],
        "linear": [zero, 1 - t, t, zero],
        "area": [zero, zero, zero, zero],
        "cubic": [far[0], *near, far[1]],
    }
    weight = torch.stack([torch.stack(taps[name], 2) for name in RESIZES])  # (kernels, N, rows, 4)
    weight = weight[kernel, torch.arange(len(kernel), device=kernel.device)]
    nearest = (kernel == RESIZES.index("nearest"))[:, None]
    first = torch.where(nearest, i * n_in // n_out, first)
    index = first[..., None] + torch.arange(-1, 3, device=kernel.device)
    index = index.clamp_min(0).minimum(n_in[..., None] - 1).long()  # the border's pixel is repeated
    matrix = weight.new_zeros(len(kernel), rows, columns).scatter_add_(2, index, weight)
    j = torch.arange(columns, device=kernel.device)
    ends = torch.minimum((i + 1)[:, None] * scale[..., None], j + 1), torch.maximum(i[:, None] * scale[..., None], j)
    area = (ends[0] - ends[1]).clamp_min(0) / scale[..., None]
    matrix = torch.where((kernel == RESIZES.index("area"))[:, None, None], area, matrix)
    return (matrix * (i < n_out)[..., None])[:, None]
