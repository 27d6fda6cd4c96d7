"""Metrics: how good is a restored image, one number per image, (N,); and set metrics, one number per set.

Images are (N, 3, H, W) in [0, 1]; unless a docstring says otherwise they are compared unrounded.
Chapter 1 shows each metric's trap.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facesr_lib import assets, images, niqe_model, unpickling

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_WINDOW = 11
_ALEXNET_SMALLEST = 31
_INCEPTION_FEATURES = 2048


class MetricUnavailable(RuntimeError):
    """A metric's weights or package are not on this machine; it is not approximated by something else."""


def available() -> dict[str, str | None]:
    """Metric → ``None`` if it can run on this machine, else the reason why not."""
    return dict.fromkeys(("psnr", "ssim", "ms_ssim")) | {
        "lpips": _reason(_alexnet_file),
        "niqe": _reason(niqe_model.pristine),
        "fid": _reason(_inception_file),
        "kid": _reason(_inception_file),
    }


def luma(x: Tensor) -> Tensor:
    """Luminance of ITU-R BT.601 in studio range, as MATLAB's ``rgb2ycbcr``: (N, 3, H, W) → (N, 1, H, W)."""
    weights = x.new_tensor([65.481, 128.553, 24.966])
    return ((x * weights[:, None, None]).sum(1, keepdim=True) + 16) / 255


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
        If the shapes differ, the pixels are no floating-point numbers, one is NaN or infinite, or nothing is left after
        cropping.
    """
    x, y = _prepare(x, y, y_channel, crop)
    return -10 * (x - y).square().mean((1, 2, 3)).log10()


def ssim(x: Tensor, y: Tensor, *, y_channel: bool = False, crop: int = 0) -> Tensor:
    """Structural similarity (Wang et al. 2004): Gaussian 11×11 window, σ = 1.5, valid region, mean over channels.

    Parameters and errors as in `psnr`; images smaller than the window are refused.

    Returns
    -------
    (N,)
        At most 1.
    """
    x, y = _prepare(x, y, y_channel, crop)
    return _similarity(x, y)[0]


def ms_ssim(x: Tensor, y: Tensor, *, y_channel: bool = False, crop: int = 0, scales: int | None = None) -> Tensor:
    """Multi-scale structural similarity (Wang et al. 2003).

    The standard has five scales, and the coarsest must still hold a window: 176 pixels at least. A smaller image gets
    as many scales as it allows (three at 64, four at 128), with the first weights, renormalised to a sum of one. Values
    with different numbers of scales cannot be compared.

    Parameters
    ----------
    x, y, y_channel, crop
        As in `psnr`.
    scales : int, optional
        Number of scales, 1 to 5; by default as many as fit.

    Returns
    -------
    (N,)

    Raises
    ------
    ValueError
        As `psnr`, or if the image is too small for ``scales``.
    """
    x, y = _prepare(x, y, y_channel, crop)
    fit = ms_ssim_scales(min(x.shape[2:]))
    scales = fit if scales is None else scales
    if not 1 <= scales <= fit:
        raise ValueError(f"an image of {x.shape[2]}×{x.shape[3]} allows 1 to {fit} scales; {scales} were asked for.")
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


def lpips(x: Tensor, y: Tensor) -> Tensor:
    """Learned perceptual distance, AlexNet, version 0.1 (Zhang et al. 2018): 0 for equal images, (N,).

    Raises
    ------
    MetricUnavailable
        If AlexNet's weights are not on this machine, or are not the published ones.
    ValueError
        As `psnr`, or if the images are too small for AlexNet (31 pixels).
    """
    x, y = _prepare(x, y, False, 0)
    if min(x.shape[2:]) < _ALEXNET_SMALLEST:
        raise ValueError(f"LPIPS needs {_ALEXNET_SMALLEST} pixels a side; got {x.shape[2]}×{x.shape[3]}.")
    with torch.no_grad():
        return _lpips_network().to(x.device)(x, y, normalize=True).flatten()


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

    Returns
    -------
    (N,)

    Raises
    ------
    ValueError
        If fewer than four blocks fit, or fewer than two of them are not flat: a covariance would say nothing. Also as
        `psnr`.
    MetricUnavailable
        If the model of pristine images is not on this machine.
    """
    x, _ = _prepare(x, x, False, crop)
    if resize_to is not None:
        x = images.resize(x, (resize_to, resize_to)).clamp(0, 1)
    try:
        return niqe_model.distance(luma(x) * 255)
    except assets.AssetMissing as missing:
        raise MetricUnavailable(str(missing)) from missing


def fid(real: Tensor, fake: Tensor, features: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Fréchet inception distance between two *sets* of images: one number.

    Biased upwards for small sets; use `kid` below some thousand images.

    Parameters
    ----------
    real, fake : (N, 3, H, W), (M, 3, H, W)
        At least two each.
    features : callable, optional
        Images (n, 3, H, W) → (n, F), on the images' device. By default Inception, the only network whose distances may
        be called FID without a note; name any other beside the number.

    Returns
    -------
    ()

    Raises
    ------
    MetricUnavailable
        If Inception's weights, or the package that defines it, are not on this machine.
    ValueError
        If a set is no batch of at least two finite images, or the features are not (n, F).
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    return _set_metric(FrechetInceptionDistance, real, fake, features).compute()


def kid(
    real: Tensor,
    fake: Tensor,
    features: Callable[[Tensor], Tensor] | None = None,
    *,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Kernel inception distance between two *sets* of images: mean and standard deviation over subsets.

    Unbiased: zero on average for two samples of one distribution, whatever their size. Subsets hold
    min(N, M, ``subset_size``) images; where that is the whole of both sets they are all alike, and their standard
    deviation, zero, says nothing. Other parameters and errors as `fid`.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    size = min(len(real), len(fake), subset_size)
    metric = _set_metric(KernelInceptionDistance, real, fake, features, subsets=subsets, subset_size=size)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        mean, std = metric.compute()
    return mean, std


def _prepare(x: Tensor, y: Tensor, y_channel: bool, crop: int) -> tuple[Tensor, Tensor]:
    if x.shape != y.shape or x.ndim != 4 or x.shape[1] != 3:
        raise ValueError(f"two batches of one shape (N, 3, H, W) are compared; got {tuple(x.shape)}, {tuple(y.shape)}.")
    if crop < 0 or 2 * crop >= min(x.shape[2:]):
        raise ValueError(f"cropping {crop} pixels leaves nothing of a {x.shape[2]}×{x.shape[3]} image.")
    if not (x.is_floating_point() and y.is_floating_point()):
        raise ValueError(f"images are floating-point numbers in [0, 1]; got {x.dtype}, {y.dtype}: divide bytes by 255.")
    if not (x.isfinite().all() and y.isfinite().all()):
        raise ValueError("an image has NaN or infinite pixels.")
    if crop:
        x, y = x[:, :, crop:-crop, crop:-crop], y[:, :, crop:-crop, crop:-crop]
    return (luma(x), luma(y)) if y_channel else (x, y)


def _similarity(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """SSIM and its contrast-structure part, each (N,)."""
    if min(x.shape[2:]) < _WINDOW:
        raise ValueError(f"SSIM needs at least {_WINDOW}×{_WINDOW} pixels; got {x.shape[2]}×{x.shape[3]}.")
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


def _alexnet_file() -> Path:
    try:
        file = assets.path("alexnet")
    except assets.AssetMissing:
        file = Path(torch.hub.get_dir()) / "checkpoints" / "alexnet-owt-7be5be79.pth"
        if not file.is_file():
            raise
    # nobody else checks a file that is already there; torchvision's names carry the beginning of the hash
    if not hashlib.sha256(file.read_bytes()).hexdigest().startswith("7be5be79"):
        raise MetricUnavailable(f"{file} does not hold AlexNet's published weights (wrong checksum): delete it.")
    return file


@cache
def _lpips_network() -> nn.Module:
    try:
        weights = unpickling.load(_alexnet_file())
    except assets.AssetMissing as missing:
        raise MetricUnavailable(str(missing)) from missing
    from lpips import LPIPS

    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")  # torchvision, on how lpips calls it
        network = LPIPS(net="alex", pnet_rand=True, verbose=False)  # random until the next lines replace every weight
    backbone = {
        f"slice{k}.{i}.{p}": (i, p) for k, i in enumerate((0, 3, 6, 8, 10), start=1) for p in ("weight", "bias")
    }
    network.net.load_state_dict({name: weights[f"features.{i}.{p}"] for name, (i, p) in backbone.items()}, strict=True)
    return network.eval().requires_grad_(False)


def _inception_file() -> Path:
    if importlib.util.find_spec("torch_fidelity") is None:
        raise MetricUnavailable("the package torch-fidelity, which defines FID's Inception, is not installed.")
    file = assets.path("inception")
    if (status := assets.verify("inception")) != "ok":
        raise MetricUnavailable(f"{file} does not hold Inception's published weights ({status}): delete it.")
    return file


@cache
def _inception() -> nn.Module:
    try:
        weights = unpickling.load(_inception_file())
    except assets.AssetMissing as missing:
        raise MetricUnavailable(str(missing)) from missing
    from torchmetrics.image.fid import NoTrainInceptionV3

    safe: Any = io.BytesIO()  # torch-fidelity would unpickle the file itself, without restrictions
    torch.save(weights, safe)
    safe.seek(0)
    with torch.random.fork_rng():
        return NoTrainInceptionV3("inception-v3-compat", [str(_INCEPTION_FEATURES)], safe)


def _inception_features(x: Tensor) -> Tensor:
    """(n, 3, H, W) → (n, 2048); Inception sees images of 8 bits."""
    return _inception().to(x.device)((x.clamp(0, 1) * 255).round().byte())


class _Given(nn.Identity):
    """Stands for a feature network where the features are already there."""

    def __init__(self, num_features: int):
        super().__init__()
        self.num_features = num_features


def _set_metric(
    kind: Any, real: Tensor, fake: Tensor, features: Callable[[Tensor], Tensor] | None, **options: Any
) -> Any:
    for x in (real, fake):
        _prepare(x, x, False, 0)
        if len(x) < 2:
            raise ValueError(f"a set has at least two images; got {len(real)} and {len(fake)}.")
    network = _inception_features if features is None else features
    with torch.no_grad():
        codes = [torch.cat([network(part) for part in x.split(64)]) for x in (real, fake)]  # (N, F), (M, F)
    if any(code.ndim != 2 for code in codes):
        raise ValueError(f"features are (n, F); these are {tuple(codes[0].shape)}.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchmetrics, on the memory that the features take
        metric = kind(feature=_Given(codes[0].shape[1]), **options).to(codes[0].device)
    metric.update(codes[0], real=True)
    metric.update(codes[1], real=False)
    return metric


def _reason(find: Any) -> str | None:
    try:
        find()
    except (assets.AssetMissing, MetricUnavailable) as missing:
        return str(missing)
    return None
