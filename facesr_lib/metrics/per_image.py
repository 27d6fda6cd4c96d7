"""Metrics of one image: how near is it to the truth, or how natural does it look; one number each, (N,)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from facesr_lib import messages
from facesr_lib.degrade import check_pixels
from facesr_lib.devices import in_full
from facesr_lib.images import luma
from facesr_lib.networks import perceptual

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_WINDOW = 11
_ALEXNET_SMALLEST = 31


def psnr(x: Tensor, y: Tensor, *, y_channel: bool = False, crop: int = 0) -> Tensor:
    """Peak signal-to-noise ratio in decibels, −10·log₁₀ of the mean squared error.

    Parameters
    ----------
    x, y : (N, 3, H, W)
        In [0, 1].
    y_channel : bool
        Compare the luminance only.
    crop : int
        Border pixels to leave out.

    Returns
    -------
    (N,)
        Infinite where the images are equal.

    Raises
    ------
    ValueError
        If the shapes differ, the pixels are no floating-point numbers, one is NaN, infinite or outside [0, 1] by more
        than 0.25 (a bicubic kernel overshoots by less), or nothing is left after cropping.
    TypeError
        If an image is no tensor.
    """
    x, y = prepared_pair(x, y, y_channel, crop)
    return -10 * (x - y).square().mean((1, 2, 3)).log10()


def ssim(x: Tensor, y: Tensor, *, y_channel: bool = False, crop: int = 0) -> Tensor:
    """Structural similarity (Wang et al. 2004): Gaussian 11×11 window, σ = 1.5, valid region, mean over channels.

    Parameters and errors as in `psnr`; images smaller than the window are refused. (N,), at most 1.
    """
    x, y = prepared_pair(x, y, y_channel, crop)
    return _similarity(x, y)[0]


@in_full()
def ms_ssim(x: Tensor, y: Tensor, *, y_channel: bool = False, crop: int = 0, scales: int | None = None) -> Tensor:
    """Multi-scale structural similarity (Wang et al. 2003).

    The standard has five scales, and the coarsest must still hold a window: 176 pixels at least. A smaller image gets
    as many scales as it allows (three at 64, four at 128), with the first weights, renormalised to a sum of one. Values
    with different numbers of scales cannot be compared.

    ``scales`` is their number, 1 to 5, by default as many as fit; other parameters and errors as in `psnr`. (N,).
    """
    x, y = prepared_pair(x, y, y_channel, crop)
    fit = ms_ssim_scales(min(x.shape[2:]))
    scales = fit if scales is None else scales
    messages.check(f"scales of {x.shape[3]}×{x.shape[2]} pixels", scales, int, at_least=1, at_most=fit)
    weights = torch.tensor(MS_SSIM_WEIGHTS[:scales], device=x.device)
    weights = weights / weights.sum()
    result = torch.ones(len(x), device=x.device)
    for i in range(scales):
        whole, contrast = _similarity(x, y)
        result = result * (whole if i == scales - 1 else contrast).clamp_min(0) ** weights[i]
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return result


def ms_ssim_scales(side: int) -> int:
    """How many scales `ms_ssim` uses for an image whose shorter side is ``side`` pixels."""
    return sum(side >> i >= _WINDOW for i in range(len(MS_SSIM_WEIGHTS)))


@in_full()
def lpips(x: Tensor, y: Tensor) -> Tensor:
    """Learned perceptual distance, AlexNet, version 0.1 (Zhang et al. 2018): 0 for equal images, (N,).

    Errors as `psnr`'s, also of images smaller than 31 pixels; a `MetricUnavailable` says that AlexNet's weights are not
    on this machine, or are not the published ones.
    """
    x, y = prepared_pair(x, y)
    if min(x.shape[2:]) < _ALEXNET_SMALLEST:
        raise ValueError(f"LPIPS needs {_ALEXNET_SMALLEST} pixels a side; got {x.shape[3]}×{x.shape[2]}.")
    network = perceptual.lpips_network("alex", str(x.device))
    with torch.no_grad():
        return network(x.float(), y.float(), normalize=True).flatten()


def prepared_pair(x: Tensor, y: Tensor, y_channel: bool = False, crop: int = 0) -> tuple[Tensor, Tensor]:
    """Check two batches and take what is compared of them; errors as `psnr`."""
    messages.check_tensors("pictures", "(N, 3, H, W)", x, y)
    messages.check("crop", crop, int, at_least=0)
    if 2 * crop >= min(x.shape[2:]):
        raise ValueError(f"cropping {crop} pixels leaves nothing of a {x.shape[3]}×{x.shape[2]} image.")
    for image in (x, y) if len(x) else ():
        check_pixels(image)
    if crop:
        x, y = x[:, :, crop:-crop, crop:-crop], y[:, :, crop:-crop, crop:-crop]
    # squares of small differences are zero in half precision
    x, y = (image.float() if image.dtype.itemsize < 4 else image for image in (x, y))
    return (luma(x), luma(y)) if y_channel else (x, y)


def _similarity(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """SSIM and its contrast-structure part, each (N,).

    torchmetrics' maps, cut to the valid region, give the same numbers in eight times the time (fifty faces of 64²: 2.9
    s instead of 0.34 on one core); its own means take a reflected border in, up to 0.001 at 64².
    """
    if min(x.shape[2:]) < _WINDOW:
        raise ValueError(f"SSIM needs at least {_WINDOW}×{_WINDOW} pixels; got {x.shape[3]}×{x.shape[2]}.")
    n, c = x.shape[:2]
    taps = torch.exp(-((torch.arange(_WINDOW, device=x.device) - _WINDOW // 2) ** 2) / (2 * 1.5**2)).double()
    taps = taps / taps.sum()
    x, y = x.double(), y.double()  # variances are differences of nearly equal numbers
    moments = torch.cat([x, y, x * x, y * y, x * y]).flatten(0, 1)[:, None]  # (5NC, 1, H, W)
    moments = F.conv2d(F.conv2d(moments, taps.view(1, 1, -1, 1)), taps.view(1, 1, 1, -1))
    mu_x, mu_y, xx, yy, xy = moments.view(5, n, c, *moments.shape[2:])
    c1, c2 = 0.01**2, 0.03**2
    contrast = (2 * (xy - mu_x * mu_y) + c2) / (xx - mu_x**2 + yy - mu_y**2 + c2)
    luminance = (2 * mu_x * mu_y + c1) / (mu_x**2 + mu_y**2 + c1)
    return (luminance * contrast).mean((1, 2, 3)).float(), contrast.mean((1, 2, 3)).float()
