"""Reading, writing, resizing and tiling pictures: float32 ``(N, 3, H, W)``, RGB, [0, 1].

Floor 0: nothing here imports another room of the library.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from facesr_lib import files

# What Pillow decodes by itself; EPS, for one, would start an external program.
_READABLE = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
_WRITABLE: dict[str, tuple[str, dict[str, object]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95}),
    ".jpeg": ("JPEG", {"quality": 95}),
    ".webp": ("WEBP", {"lossless": True}),
}
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm")


def read(path: str | os.PathLike[str], *, max_megapixels: float = 50.0) -> Tensor:
    """Read a picture: turned as its EXIF says, alpha composited on white, grey spread over RGB.

    Parameters
    ----------
    path
        PNG, JPEG, WebP, TIFF, BMP, GIF (first frame) or PPM; 8 or 16 bits, grey, palette, RGB, CMYK, with or
        without alpha. Pillow keeps all 16 bits of grey pictures and the upper 8 of colour ones.
    max_megapixels
        A larger picture is refused before it is decoded (50 megapixels are 600 MB as float32, and twice that while they
        are read).

    Returns
    -------
    (3, H, W)
        float32, RGB, [0, 1].

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file is empty, truncated, no picture, or too large.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no picture at {path}: check the path")
    if not path.stat().st_size:
        raise ValueError(f"{path} is empty (0 bytes): copy or download it again")
    with path.open("rb") as file:
        try:
            picture = Image.open(file, formats=_READABLE)
        except Image.DecompressionBombError as error:
            raise ValueError(f"{path} is too large to be decoded safely ({error}): shrink it first") from error
        except Exception as error:  # a decoder raises nearly anything on foreign bytes
            raise ValueError(f"{path} is no picture that can be read here: give a PNG, JPEG, WebP or TIFF") from error
        with picture:
            width, height = picture.size
            if width * height > max_megapixels * 1e6:
                raise ValueError(
                    f"{path} has {width} x {height} pixels ({width * height / 1e6:.0f} megapixels), more than "
                    f"{max_megapixels:g}: shrink it, or pass a larger max_megapixels"
                )
            if picture.mode == "F":
                raise ValueError(f"{path} has floating-point pixels, whose white is not known: convert it to 16 bits")
            try:
                rgb = _rgb(ImageOps.exif_transpose(picture))
            except Exception as error:
                raise ValueError(f"{path} is damaged or cut short ({error}): copy or download it again") from error
    return torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1)))


def _rgb(picture: Image.Image) -> np.ndarray:
    """Any Pillow mode -> (H, W, 3) float32 in [0, 1]."""
    if picture.mode.startswith("I"):  # 16-bit grey; "I" is how older Pillows call it
        grey = np.asarray(picture).astype(np.float32) / 65535
        if grey.min() < 0 or grey.max() > 1:
            raise ValueError("whole numbers beyond 16 bits")
        return np.repeat(grey[..., None], 3, axis=2)
    if not picture.has_transparency_data:
        return np.asarray(picture.convert("RGB"), np.float32) / 255
    rgba = np.asarray(picture.convert("RGBA"), np.float32) / 255
    alpha = rgba[..., 3:]
    return rgba[..., :3] * alpha + (1 - alpha)


def write(image: Tensor, path: str | os.PathLike[str]) -> None:
    """Write one picture, clamped to [0, 1] and rounded to 8 bits; whole or not at all.

    Parameters
    ----------
    image : (3, H, W) or (1, 3, H, W)
        float, RGB.
    path
        Its suffix chooses the format: .png, .jpg (quality 95), .webp (lossless). An existing file is replaced.

    Raises
    ------
    ValueError
        Wrong shape, NaN or infinite pixels, unknown suffix.
    FileNotFoundError
        The folder does not exist.
    """
    path = Path(path)
    if path.suffix.lower() not in _WRITABLE:
        raise ValueError(f"cannot tell a format from {path.name!r}: end the name in one of {', '.join(_WRITABLE)}")
    if image.ndim not in (3, 4) or (image.ndim == 4 and len(image) != 1):
        raise ValueError(f"expected one picture (3, H, W) or (1, 3, H, W), got {tuple(image.shape)}")
    pixels = to_uint8(image if image.ndim == 4 else image[None])[0]
    file_format, options = _WRITABLE[path.suffix.lower()]
    with files.replacing(path) as temporary:
        Image.fromarray(pixels).save(temporary, file_format, **options)


def to_uint8(x: Tensor) -> np.ndarray:
    """(N, 3, H, W) in [0, 1] -> (N, H, W, 3) uint8 on the CPU, clamped and rounded; ValueError where not finite."""
    _check_batch(x)
    x = x.detach()
    if not x.isfinite().all():
        bad = (~x.isfinite()).sum().item()
        raise ValueError(f"{bad} of {x.numel()} pixel values are NaN or infinite: they have no colour")
    return x.float().clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()


def grid(x: Tensor, columns: int | None = None, pad: int = 2) -> Tensor:
    """Tile pictures row by row on white, ``pad`` pixels apart.

    Parameters
    ----------
    x : (N, 3, H, W)
    columns
        Default: as square as it goes.

    Returns
    -------
    (3, rows * (H + pad) - pad, columns * (W + pad) - pad)
    """
    _check_batch(x)
    n, _, height, width = x.shape
    columns = math.ceil(math.sqrt(n)) if columns is None else min(columns, n)
    if columns < 1 or pad < 0:
        raise ValueError(f"expected at least one picture and column and pad >= 0, got {n}, {columns} and {pad}")
    rows = math.ceil(n / columns)
    canvas = x.new_ones(3, rows * (height + pad) - pad, columns * (width + pad) - pad)
    for i, picture in enumerate(x):
        top, left = (i // columns) * (height + pad), (i % columns) * (width + pad)
        canvas[:, top : top + height, left : left + width] = picture
    return canvas


def _cubic(t: Tensor) -> Tensor:
    """Keys' cubic with a = -1/2 (MATLAB's)."""
    t = t.abs()
    near = (1.5 * t - 2.5) * t**2 + 1
    far = ((-0.5 * t + 2.5) * t - 4) * t + 2
    return near * (t <= 1) + far * ((t > 1) & (t <= 2))


def _triangle(t: Tensor) -> Tensor:
    return (1 - t.abs()).clamp(min=0)


def _box(t: Tensor) -> Tensor:
    return ((t >= -0.5) & (t < 0.5)).to(t.dtype)


_KERNELS: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "bicubic": (_cubic, 4),
    "bilinear": (_triangle, 2),
    "box": (_box, 1),
}


@functools.lru_cache(maxsize=32)
def resize_matrix(
    n_in: int,
    n_out: int,
    kernel: str = "bicubic",
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Resample one axis as a matrix: row i holds the weights of the inputs that make output i.

    MATLAB's ``imresize``: pixel centres at half-integers, the kernel widened by the scale when shrinking
    (antialiasing), weights normalised to 1, the border continued symmetrically (its edge pixel repeated).
    The matrix is cached: treat it as read-only.

    Parameters
    ----------
    n_in, n_out
        Sizes in pixels.
    kernel
        ``"bicubic"`` (a = -1/2), ``"bilinear"`` or ``"box"`` (the mean of a block when n_out divides n_in).

    Returns
    -------
    (n_out, n_in)

    Raises
    ------
    ValueError
        A size below 1 or an unknown kernel.
    """
    if n_in < 1 or n_out < 1:
        raise ValueError(f"sizes must be at least 1 pixel, got {n_in} -> {n_out}")
    if kernel not in _KERNELS:
        raise ValueError(f"unknown kernel {kernel!r}: choose one of {', '.join(_KERNELS)}")
    function, width = _KERNELS[kernel]
    scale = n_out / n_in
    shrink = min(scale, 1.0)
    with torch.inference_mode(False), torch.no_grad():  # a cached inference tensor would break later gradients
        centre = (torch.arange(n_out, dtype=torch.float64, device="cpu") + 0.5) / scale - 0.5  # (n_out,)
        taps = math.ceil(width / shrink) + 2
        first = (centre - width / shrink / 2).floor().long()
        index = first[:, None] + torch.arange(taps, device="cpu")  # (n_out, taps)
        weight = function((centre[:, None] - index) * shrink)
        weight = weight / weight.sum(1, keepdim=True)
        index = index.remainder(2 * n_in)  # one period of ... 1 0 | 0 1 ... n-1 | n-1 ... 0 | 0 ...
        index = torch.where(index < n_in, index, 2 * n_in - 1 - index)
        matrix = torch.zeros(n_out, n_in, dtype=torch.float64, device="cpu").scatter_add_(1, index, weight)
        return matrix.to(device=device, dtype=dtype)


def resize(x: Tensor, size: tuple[int, int], kernel: str = "bicubic") -> Tensor:
    """Resize as MATLAB's ``imresize`` does, antialiased when shrinking; differentiable.

    Parameters
    ----------
    x : (N, 3, H, W)
        Floating point, any range.
    size : (h, w)
    kernel
        See `resize_matrix`.

    Returns
    -------
    (N, 3, h, w)
        Of x's dtype and device. Not clamped: a cubic over- and undershoots.
    """
    _check_batch(x)
    (height, width), (h, w) = x.shape[-2:], size
    rows = resize_matrix(height, h, kernel, x.dtype, x.device)
    columns = resize_matrix(width, w, kernel, x.dtype, x.device)
    return rows @ x @ columns.T


def _check_batch(x: Tensor) -> None:
    if x.ndim != 4 or x.shape[1] != 3 or not x.is_floating_point():
        raise ValueError(f"expected float pictures (N, 3, H, W), got {x.dtype} of shape {tuple(x.shape)}")
