"""From a photograph to the square that every face network expects, and back: FFHQ's crop and its inverse."""

from __future__ import annotations

from math import ceil, floor

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional as F

from facesr_lib import images, messages
from facesr_lib.degrade import check_pixels
from facesr_lib.devices import in_full

FINE = 4096  # FFHQ's own crops of 1024² are seen four times as fine first, and so are smaller ones


@in_full()
def align(image: Tensor, landmarks: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Cut a face out of a photograph as FFHQ's faces were cut, turned upright and framed alike.

    A ``ValueError`` says that ``image`` is no picture, or the landmarks are not so many, not finite, or all in one
    place.

    Parameters
    ----------
    image : (3, H, W)
        In [0, 1].
    landmarks : (68, 2) or (5, 2)
        (x, y) in pixels, (0, 0) the centre of the top-left one: dlib's 68 points, or two eyes, nose and two mouth
        corners, each from the picture's left. Only the eyes and the mouth count.
    size : int
        Side of the crop.

    Returns
    -------
    crop : (3, size, size)
        In [0, 1]. Beyond the photograph's border it continues mirrored and ever more blurred.
    transform : (2, 3)
        float64; from places in the crop to places in the photograph, both from −1 to 1, as
        `torch.nn.functional.affine_grid` takes it. It holds for the photograph and the crop at any size.

    Notes
    -----
    Source: Karras et al. 2019, appendix C, and the official script of FFHQ, in float where that rounds to 8 bits.
    """
    messages.check("size", size, int, at_least=1)
    _, height, width = images.check_single(image).shape
    transform = _transform(quad(landmarks), height, width)
    return view(image, transform, size), transform


def quad(landmarks: Tensor) -> Tensor:
    """Corners of FFHQ's crop, from top left counterclockwise: landmarks (68, 2) or (5, 2) → (4, 2), float64 pixels."""
    try:
        points = torch.as_tensor(landmarks, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        points = torch.empty(0)
    if points.shape not in ((68, 2), (5, 2)) or not points.abs().max() < 1e6:  # no photograph is so large
        came = f"{tuple(points.shape)}, or a place that is NaN or far away"
        raise ValueError(f"landmarks are (68, 2) or (5, 2) finite places (x, y) in pixels; got {came}.")
    left, right, mouths = (slice(36, 42), slice(42, 48), [48, 54]) if len(points) == 68 else ([0], [1], [3, 4])
    eyes = (points[left].mean(0) + points[right].mean(0)) / 2
    across, down = points[right].mean(0) - points[left].mean(0), points[mouths].mean(0) - eyes  # e, m
    # x = (e + m turned by 90°), as long as the larger of 2 |e| and 1.8 |m|; y = x turned; c = eyes + 0.1 m
    x = across + torch.stack([down[1], -down[0]])
    if not x.norm() > 0:
        raise ValueError("the landmarks of a face do not all lie in one place.")
    x = x / x.norm() * torch.maximum(2 * across.norm(), 1.8 * down.norm())
    y, centre = torch.stack([-x[1], x[0]]), eyes + 0.1 * down
    return torch.stack([centre - x - y, centre - x + y, centre + x + y, centre + x - y])


def place(points: Tensor, transform: Tensor, height: int, width: int) -> Tensor:
    """Where points of a crop, (K, 2) from −1 to 1, lie in a photograph of this size: (K, 2), float64 pixels."""
    size = torch.tensor([width, height], dtype=torch.float64)
    return (points.double() @ transform[:, :2].T + transform[:, 2] + 1) * size / 2 - 0.5


def side(transform: Tensor, height: int, width: int) -> float:
    """Side of the crop in the pixels of a photograph of this size."""
    return float((transform[:, 0] * torch.tensor([width, height], dtype=torch.float64)).norm())


def view(image: Tensor, transform: Tensor, size: int) -> Tensor:
    """What `align` cuts out, by its transform: (3, H, W) and (2, 3) → (3, size, size)."""
    _, height, width = image.shape
    corners = _corners(transform, height, width)
    length = side(transform, height, width)
    shrink = max(1, floor(length / size / 2))  # FFHQ shrinks a large photograph by a whole factor first
    new = [max(1, round(width / shrink)), max(1, round(height / shrink))]
    corners, length = corners / shrink, length / shrink
    # the crop with a border, of which what lies outside is added
    border = max(round(0.1 * length), 3)
    low, high = corners.min(0).values, corners.max(0).values
    left, top = (max(floor(n) - border, 0) for n in low)
    right, bottom = (min(ceil(n) + border, most) for n, most in zip(high, new, strict=True))
    if left >= right or top >= bottom:
        raise ValueError("this face lies outside of the photograph: check its landmarks.")
    rows, columns = slice(top, bottom), slice(left, right)
    if shrink > 1:
        (rows, weight), (columns, across) = _lanczos(height, new[1], top, bottom), _lanczos(width, new[0], left, right)
    part = check_pixels(image.detach()[None, :, rows, columns])[0].float().cpu()
    if shrink > 1:
        part = weight @ part @ across.T
    corners = corners - torch.tensor([left, top], dtype=torch.float64)
    low, high = corners.min(0).values, corners.max(0).values
    pad = [ceil(-low[0]) + border, ceil(-low[1]) + border]
    pad += [ceil(high[0]) - (right - left) + border, ceil(high[1]) - (bottom - top) + border]
    if max(pad) > border - 4:
        pad = [max(n, round(0.3 * length), 1) for n in pad]
        part, corners = _continued(part, pad, length), corners + torch.tensor(pad[:2], dtype=torch.float64)
    # bilinear, four times as fine, then Lanczos
    _, height, width = part.shape
    fine = size * (4 if 4 * size <= FINE else max(1, ceil(length / size)))
    grid = F.affine_grid(_transform(corners, height, width)[None].float(), [1, 3, fine, fine], align_corners=False)
    crop = F.grid_sample(part[None], grid, padding_mode="border", align_corners=False)[0]
    _, weight = _lanczos(fine, size, 0, size)
    return (weight @ crop @ weight.T).clamp(0, 1).to(image)


def paste(image: Tensor, crop: Tensor, transform: Tensor, mask: Tensor | None = None) -> Tensor:
    """Put a changed crop back: what changed is added, so that nothing else does.

    Where the photograph is finer than the crop, its own detail stays; a crop as `align` gave it changes nothing.

    Parameters
    ----------
    image : (3, H, W)
        The photograph, or an enlargement of it.
    crop : (3, S, S)
        Of any size.
    transform : (2, 3)
        From `align`.
    mask : (S, S), optional
        How much of the crop counts, in [0, 1]; default: `ellipse`.

    Returns
    -------
    (3, H, W)
        In [0, 1]; outside of the crop ``image`` itself.
    """
    check_pixels(images.check_single(crop)[None])
    return paste_(images.check_single(image).clone(), crop, transform, mask)


@in_full()
def paste_(image: Tensor, crop: Tensor, transform: Tensor, mask: Tensor | None = None) -> Tensor:
    """As `paste`, into the photograph itself, all at once."""
    _, height, width = images.check_single(image).shape
    size = images.check_single(crop).shape[-1]
    fits = isinstance(transform, Tensor) and transform.shape == (2, 3) and bool(transform.isfinite().all())
    if not fits or not transform.double()[:, :2].det():
        raise ValueError(f"a transform is what `align` gives beside a crop, (2, 3) and finite; got {transform!r}.")
    mask = ellipse(size) if mask is None else mask
    messages.check_tensors("a mask's weights", f"({size}, {size})", mask)
    if crop.shape[1] != size:
        raise ValueError(f"a crop is square and its mask as large; got {tuple(crop.shape)}.")
    change = mask.to(crop) * (crop - view(image, transform.double(), size).to(crop))  # (3, S, S)
    added, rows, columns = spread(change, transform.double(), height, width)
    region = image[:, rows, columns]
    region.copy_(torch.where(added == 0, region, (region + added.to(region)).clamp(0, 1)))
    return image


def spread(crop: Tensor, transform: Tensor, height: int, width: int) -> tuple[Tensor, slice, slice]:
    """A crop (C, S, S) in a photograph of this size, where it has some: (C, h, w), and which rows and columns."""
    finest = max(1, round(2 * side(transform, height, width)))
    if finest < crop.shape[-1]:  # much finer than the photograph
        weight = images.resize_matrix(crop.shape[-1], finest, dtype=crop.dtype)
        crop = weight @ crop @ weight.T
    rows, columns = reach(transform, height, width)
    # places in the photograph → places in the crop
    inverse = torch.linalg.inv(transform[:, :2])
    x = (torch.arange(columns.start, columns.stop, dtype=torch.float64) + 0.5) * (2 / width) - 1 - transform[0, 2]
    y = (torch.arange(rows.start, rows.stop, dtype=torch.float64) + 0.5) * (2 / height) - 1 - transform[1, 2]
    grid = y[:, None, None] * inverse[:, 1] + x[None, :, None] * inverse[:, 0]  # (h, w, 2)
    if not grid.numel():
        return crop.new_zeros(len(crop), *grid.shape[:2]), rows, columns
    return F.grid_sample(crop[None], grid[None].to(crop), "bicubic", "zeros", False)[0], rows, columns


def reach(transform: Tensor, height: int, width: int) -> tuple[slice, slice]:
    """Which rows and columns of a photograph of this size hold a crop, or have held what was pasted."""
    corners = _corners(transform.double(), height, width) + 0.5
    low, high, most = corners.amin(0).floor(), corners.amax(0).ceil(), torch.tensor([width, height])
    (left, top), (right, bottom) = (end.clamp_min(0).minimum(most).int().tolist() for end in (low, high))
    return slice(top, bottom), slice(left, right)


def ellipse(size: int) -> Tensor:
    """A soft mask for a face in FFHQ's frame, 1 on it and 0 at the crop's border: (size, size)."""
    at = (torch.arange(size) + 0.5) / size
    distance = (((at - 0.5) / 0.43).square() + ((at[:, None] - 0.54) / 0.45).square()).sqrt()  # 1 on the ellipse
    t = ((1 - distance) / 0.3).clamp(0, 1)
    return t * t * (3 - 2 * t)


def _transform(corners: Tensor, height: int, width: int) -> Tensor:
    """Corners (4, 2) in pixels → (2, 3), as `align` returns it."""
    scaled = (corners + 0.5) * 2 / torch.tensor([width, height], dtype=torch.float64) - 1
    first, below, opposite, beside = scaled
    return torch.stack([(beside - first) / 2, (below - first) / 2, (first + opposite) / 2], 1)


def _corners(transform: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `_transform`."""
    return place(torch.tensor([[-1, -1], [-1, 1], [1, 1], [1, -1]]), transform, height, width)


def _continued(part: Tensor, pad: list[int], length: float) -> Tensor:
    """Mirror a part beyond its border, so far left, above, right and below, blur there, and fade to the median."""
    left, top, right, bottom = pad
    wide = np.pad(part.numpy().transpose(1, 2, 0), ((top, bottom), (left, right), (0, 0)), "reflect")
    rows, columns = wide.shape[:2]
    y, x = np.ogrid[:rows, :columns]
    across, down = np.minimum(x / left, (columns - 1 - x) / right), np.minimum(y / top, (rows - 1 - y) / bottom)
    t = np.maximum(1 - across, 1 - down)[..., None].astype(np.float32)
    blurred = gaussian_filter(wide, [0.02 * length] * 2 + [0])
    wide = wide + (blurred - wide) * np.clip(3 * t + 1, 0, 1)
    wide = wide + (np.median(wide, axis=(0, 1)) - wide) * np.clip(t, 0, 1)
    return torch.from_numpy(wide.transpose(2, 0, 1).astype(np.float32).clip(0, 1))


def _lanczos(n_in: int, n_out: int, first: int, last: int) -> tuple[slice, Tensor]:
    """Resample an axis as Pillow does: the inputs of outputs ``first`` to ``last``, and a matrix of weights."""
    scale = n_in / n_out
    widened = max(scale, 1)
    centre = (torch.arange(first, last, dtype=torch.float64)[:, None] + 0.5) * scale
    needed = slice(max(floor(centre[0] - 3 * widened), 0), min(ceil(centre[-1] + 3 * widened), n_in))
    t = (torch.arange(needed.start, needed.stop, dtype=torch.float64) + 0.5 - centre) / widened
    weight = torch.sinc(t) * torch.sinc(t / 3) * (t.abs() < 3)
    return needed, (weight / weight.sum(1, keepdim=True)).float()
