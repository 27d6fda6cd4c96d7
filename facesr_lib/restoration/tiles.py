"""Pictures of any size through a network, tile by tile: memory is the tile's, however large the picture."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor
from tqdm.auto import tqdm

from facesr_lib.messages import check

LARGEST = 100e6  # pixels of a result, 1.2 GB


def require_room(height: int, width: int, scale: int) -> None:
    """Raise a ``ValueError`` if a picture of this size would become larger than memory is likely to hold."""
    if (large := scale**2 * height * width) > LARGEST:
        raise ValueError(
            f"{width}×{height} pixels, enlarged {scale} times, are {large / 1e6:.0f} megapixels, more than "
            f"{LARGEST / 1e6:.0f}: choose a smaller scale, or make the photograph smaller."
        )


def enlarge(
    network: Callable[[Tensor], Tensor],
    lowres: Tensor,
    scale: int,
    *,
    tile: int = 192,
    overlap: int = 16,
    progress: bool = False,
) -> Tensor:
    """Enlarge pictures by a convolutional network, a tile at a time.

    Each tile is seen with ``overlap`` more pixels on every side that has some. The outer three quarters of these are
    only surroundings; over the rest, and as much of the tile, it fades into its neighbour. So there is no jump where a
    network looks farther, and draws another texture when it sees more.

    Parameters
    ----------
    network : callable
        (N, C, h, w) → (N, 3, scale · h, scale · w).
    lowres : (N, C, h, w)
        Pictures, or what the network's first layers made of them.
    scale : int
    tile, overlap : int
        In pixels of the small picture.
    progress : bool
        Whether a picture of several tiles shows a bar.

    Returns
    -------
    (N, 3, scale · h, scale · w)
        Clamped to [0, 1].

    Raises
    ------
    ValueError
        If a tile has no pixel, or the overlap is negative or more than half a tile.
    """
    check("tile", tile, int, at_least=1)
    check("overlap", overlap, int, at_least=0, at_most=tile // 2)
    n, _, height, width = lowres.shape
    image = lowres.new_zeros(n, 3, scale * height, scale * width)
    corners = list(product(range(0, height, tile), range(0, width, tile)))
    for y, x in tqdm(corners, desc="tiles", disable=not (progress and len(corners) > 1)):
        rows, down = _reach(y, y + tile, height, overlap, scale)
        columns, across = _reach(x, x + tile, width, overlap, scale)
        large = network(lowres[:, :, rows, columns]).clamp(0, 1)
        large *= down.to(large)[:, None] * across.to(large)
        top, left = scale * rows.start, scale * columns.start
        image[:, :, top : top + len(down), left : left + len(across)] += large
    return image


def _reach(first: int, last: int, side: int, overlap: int, scale: int) -> tuple[slice, Tensor]:
    """What a tile sees along one axis, and how much each of its large pixels counts there; neighbours add up to 1."""
    seen = slice(max(first - overlap, 0), min(last + overlap, side))
    at = torch.arange(scale * seen.start, scale * seen.stop) + 0.5  # middles of the large pixels
    counts = torch.ones(len(at))
    if overlap and first > 0:
        counts *= (0.5 + 2 * (at / scale - first) / overlap).clamp(0, 1)
    if overlap and last < side:
        counts *= (0.5 + 2 * (last - at / scale) / overlap).clamp(0, 1)
    return seen, counts
