"""NIQE's statistics: how far an image's patches are from those of pristine photographs (Mittal et al. 2013)."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from facesr_lib import assets, images
from facesr_lib.devices import in_full, undisturbed
from facesr_lib.metrics.per_image import luma, prepared_pair

BLOCK = 96


@in_full()
def niqe(x: Tensor, *, crop: int = 0, resize_to: int | None = None) -> Tensor:
    """Natural image quality evaluator (Mittal et al. 2013): lower is more natural; no reference needed.

    Luminance, rounded to whole grey levels; statistics of 96×96 blocks at two scales.

    Parameters
    ----------
    x : (N, 3, H, W)
    crop : int
        Border pixels to leave out.
    resize_to : int, optional
        Resize to this side first, after cropping (bicubic, clamped). The score then measures the resizing too: state it
        beside the number.

    Raises
    ------
    ValueError
        If fewer than four blocks fit, or fewer than two of them are not flat: a covariance would say nothing. Also as
        `psnr`.
    MetricUnavailable
        If the model of pristine images is not on this machine.
    """
    x, _ = prepared_pair(x, x, crop=crop)
    if resize_to is not None:
        x = images.resize(x, (resize_to, resize_to)).clamp(0, 1)
    mean, covariance, window = (t.to(x.device) for t in pristine())
    y = luma(x.double()).float() * 255  # grey levels, (N, 1, H, W)
    rows, columns = y.shape[2] // BLOCK, y.shape[3] // BLOCK
    if rows * columns < 4:
        raise ValueError(
            f"NIQE needs four blocks of {BLOCK}×{BLOCK} pixels, such as {2 * BLOCK}×{2 * BLOCK}; got {y.shape[3]}×"
            f"{y.shape[2]}. Pass resize_to=256 and say so beside the number."
        )
    y = y[:, :, : rows * BLOCK, : columns * BLOCK].round().double()
    features = []
    for scale in (1, 2):
        normalised = _normalise(y, window)
        side = BLOCK // scale
        blocks = normalised.unfold(2, side, side).unfold(3, side, side)  # (N, 1, rows, columns, side, side)
        features.append(_features(blocks.flatten(1, 3)))  # (N, B, 18)
        y = images.resize(y.expand(-1, 3, -1, -1), (y.shape[2] // 2, y.shape[3] // 2))[:, :1]
    statistics = torch.cat(features, 2)  # (N, B, 36)
    for i, textured in enumerate(statistics.isfinite().all(2).sum(1).tolist()):
        if textured < 2:
            raise ValueError(f"NIQE needs two blocks that are not flat; image {i} has {textured}: leave it out.")
    distances = [_mahalanobis(f, mean, covariance) for f in statistics]
    return torch.stack(distances).float() if distances else x.new_zeros(0)


@cache
@undisturbed()
def pristine() -> tuple[Tensor, Tensor, Tensor]:
    """Mean (36,) and covariance (36, 36) of pristine images' features, and the 7×7 window; float64."""
    with np.load(assets.checked("niqe"), allow_pickle=False) as file:
        names = ("mu_pris_param", "cov_pris_param", "gaussian_window")
        mean, covariance, window = (torch.from_numpy(file[name]).double() for name in names)
    return mean.flatten(), covariance, window


def _normalise(y: Tensor, window: Tensor) -> Tensor:
    """Subtract the local mean and divide by the local contrast plus one, in single precision as the official code does.

    Its rounding shows: where a picture is flat nothing else is left, and the shapes are read off a grid.
    """
    half, y = window.shape[0] // 2, y.float()
    padded = F.pad(torch.cat([y, y * y]).double(), (half,) * 4, mode="replicate")
    mean, square = F.conv2d(padded, window[None, None]).float().chunk(2)
    return (y - mean) / ((square - mean**2).abs().sqrt() + 1)


def _features(blocks: Tensor) -> Tensor:
    """Two numbers of the block itself and four of each product with a neighbour: (N, B, s, s) → (N, B, 18)."""
    alpha, left, right = _generalised_gaussian(blocks)
    columns = [alpha, (left + right) / 2]
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
        alpha, left, right = _generalised_gaussian(blocks * blocks.roll(shift, (2, 3)))
        mean = (right - left) * (torch.lgamma(2 / alpha) - torch.lgamma(1 / alpha)).exp()
        columns += [alpha, mean, left, right]
    return torch.stack(columns, 2)


def _generalised_gaussian(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Shape and the two widths of an asymmetric generalised Gaussian, by moments: each (N, B)."""
    halves = (x < 0).float(), (x > 0).float()
    left, right = (((x * half).square().sum((2, 3)) / half.sum((2, 3))).sqrt() for half in halves)
    ratio = left / right
    r = x.abs().mean((2, 3)) ** 2 / x.square().mean((2, 3))
    r = r * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shapes = torch.arange(200, 10_001, device=x.device, dtype=torch.float64) / 1000
    log_gamma = torch.lgamma(torch.stack([1 / shapes, 2 / shapes, 3 / shapes]))
    table = (2 * log_gamma[1] - log_gamma[0] - log_gamma[2]).exp()  # increasing in the shape
    alpha = shapes[(table - r[..., None]).square().argmin(-1)]
    width = ((torch.lgamma(1 / alpha) - torch.lgamma(3 / alpha)) / 2).exp()
    return alpha, left * width, right * width


def _mahalanobis(features: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """Distance of one image's blocks (B, 36) from pristine ones; flat blocks, which have no shape, do not count."""
    whole = features[features.isfinite().all(1)]
    offset = mean - features.nanmean(0)
    pooled = (covariance + torch.cov(whole.t())) / 2
    return (offset @ torch.linalg.pinv(pooled) @ offset).sqrt()
