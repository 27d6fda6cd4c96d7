"""Reading, writing, resizing and tiling pictures: float32 ``(N, 3, H, W)``, RGB, [0, 1].

A tensor's shape and every size that the library takes have the height first; a size in words, 640×480, the width.
"""

from __future__ import annotations

import functools
import math
import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from numbers import Integral
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F

from facesr_lib import colours, files, messages
from facesr_lib.devices import in_full

# What Pillow decodes by itself (HEIF: with pillow-heif); EPS, for one, would start an external program.
_READABLE = {"PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "AVIF", "HEIF"}
WRITABLE: dict[str, tuple[str, dict[str, object]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95}),
    ".jpeg": ("JPEG", {"quality": 95}),
    ".webp": ("WEBP", {"lossless": True}),
}
SUFFIXES = (*WRITABLE, ".jfif", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm", ".avif", ".heic", ".heif")


def read(path: str | os.PathLike[str], *, max_megapixels: float = 50.0) -> Tensor:
    """Read a picture as sRGB: turned as its EXIF says, alpha composited on white, grey spread over RGB.

    Its colours are those of its profile or, without one, of Adobe RGB where its EXIF says so, as cameras' does.

    Parameters
    ----------
    path
        PNG, JPEG, WebP, TIFF, BMP, GIF (first frame), PPM, AVIF, or, with the package pillow-heif, HEIC; grey, palette,
        RGB, CMYK, with or without alpha or a colour profile. Pillow keeps all 16 bits of grey pictures and the upper 8
        of colour ones.
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
        The file is empty, truncated, no picture, a camera's raw one, too large, or its white is not known.

    Warns
    -----
    UserWarning
        Something is transparent, the file holds more pictures, or its colour profile is damaged and taken for sRGB.
    """
    messages.check("max_megapixels", max_megapixels, above=0)
    path = files.expanded(path)
    if not path.is_file():
        if path.is_dir():
            os.listdir(path)  # raises where nobody may
            raise FileNotFoundError(f"{path} is a folder: name the pictures that lie in it, such as {path / '*.jpg'}.")
        raise FileNotFoundError(f"there is no picture at {path}: check the path.")
    with path.open("rb") as file:
        head = file.read(32)
        if not head:
            raise ValueError(f"{path} is empty (0 bytes): copy or download it again.")
        try:
            picture = Image.open(file, formats=_formats())
        except Image.DecompressionBombError as error:
            raise ValueError(f"{path} is too large to be decoded safely ({error}): shrink it first.") from error
        except Exception as error:  # a decoder raises nearly anything on foreign bytes
            way = "give a PNG, JPEG, WebP or TIFF."
            if head[4:8] == b"ftyp":  # the family of HEIC and AVIF
                way = "HEIC needs `pip install pillow-heif`, AVIF Pillow 11.3 or later; or save it as JPEG."
            elif head[:4] in (b"II*\0", b"MM\0*"):
                way = "a TIFF has to hold 8 or 16 bits a channel, black at zero where they are more; or save it as PNG."
            raise ValueError(f"{path} is no picture that can be read here: {way}") from error
        with picture:
            width, height = picture.size
            if width * height > max_megapixels * 1e6:
                raise ValueError(
                    f"{path} has {width}×{height} pixels ({width * height / 1e6:.0f} megapixels), more than "
                    f"{max_megapixels:g}: shrink it (or, in Python, pass a larger max_megapixels)."
                )
            tags = getattr(picture, "tag_v2", {})  # a TIFF's
            if 50706 in tags or tags.get(254, 0) & 1:  # DNGVersion; NewSubfileType: a smaller version of another
                raise ValueError(f"{path} is a camera's raw file, of which a preview could be read: develop it first.")
            if picture.mode == "F" or (picture.mode == "I" and picture.format == "TIFF"):
                kind = "floating-point pixels" if picture.mode == "F" else "pixels of 32 or of signed bits"
                raise ValueError(f"{path} has {kind}, whose white is not known: convert it to 16 bits.")
            try:
                if getattr(picture, "is_animated", False) and picture.format != "MPO":  # a JPEG beside its preview
                    warnings.warn(f"{path}: it holds several pictures, and only the first is taken.", stacklevel=2)
                picture.load()
                try:
                    picture.getexif()
                except Exception as error:  # it fails in many ways
                    warnings.warn(f"{path}: its EXIF data are damaged ({error}); they are left out.", stacklevel=2)
                    picture.info.pop("exif", None)
                rgb = _deep_grey(picture, path) if picture.mode.startswith("I") else _colour(picture, path, head)
            except Exception as error:
                raise ValueError(f"{path} is damaged or cut short ({error}): copy or download it again.") from error
    return torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1)))


@functools.cache
def _formats() -> list[str]:
    """List what can be read on this machine."""
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()
    return sorted(_READABLE & Image.OPEN.keys())


def _colour(picture: Image.Image, path: Path, head: bytes) -> np.ndarray:
    """A picture of 8 bits a channel, in any mode of Pillow's → (H, W, 3) float32 in [0, 1]."""
    key = picture.info.get("transparency")  # a PNG's transparent colour, still of the file's depth
    if picture.format == "PNG" and isinstance(key, (int, tuple)) and picture.mode != "P":
        depth = head[24]
        levels = [k >> 8 if depth == 16 else min(k, 2**depth - 1) * 255 // (2**depth - 1) for k in np.atleast_1d(key)]
        picture.info["transparency"] = levels[0] if isinstance(key, int) else tuple(levels)
    transparent = picture.has_transparency_data
    picture = ImageOps.exif_transpose(picture)
    if not transparent:
        return np.asarray(colours.to_srgb(picture, path), np.float32) / 255
    picture = picture.convert("RGBA")
    alpha = np.asarray(picture.getchannel("A"), np.float32)[..., None] / 255
    return _on_white(np.asarray(colours.to_srgb(picture, path), np.float32) / 255, alpha, path)


def _on_white(picture: np.ndarray, alpha: np.ndarray, path: Path) -> np.ndarray:
    if alpha.min() < 1:
        warnings.warn(f"{path}: what is transparent is laid on white.", stacklevel=4)
    return picture * alpha + (1 - alpha)


def _deep_grey(picture: Image.Image, path: Path) -> np.ndarray:
    """A grey picture of up to 16 bits → (H, W, 3) float32 in [0, 1]."""
    tags = getattr(picture, "tag_v2", {})  # a TIFF's; other formats are spread over 16 bits by Pillow
    white = 2 ** tags[258][0] - 1 if tags else 65535  # BitsPerSample
    most, negative = np.max(tags.get(281, white)), tags.get(262) == 0  # MaxSampleValue; white is zero
    key, profile = picture.info.get("transparency"), picture.info.get("icc_profile")
    levels = np.asarray(ImageOps.exif_transpose(picture)).astype(np.int32)
    if most in (1023, 4095, 16383) and levels.max() <= most:  # 10, 12 or 14 bits that lie in 16
        white = int(most)
    if levels.min() < 0 or levels.max() > white:
        raise ValueError(f"a level outside 0 to {white}")
    grey = levels.astype(np.float32) / white
    grey = 1 - grey if negative else grey
    if profile:  # colour management works on 8 bits: its curve is applied instead
        ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
        ramp.info["icc_profile"] = profile
        curve = np.asarray(colours.to_srgb(ramp, path))[0, :, 0] / 255
        grey = np.interp(grey, np.linspace(0, 1, 256), curve).astype(np.float32)
    if key is not None:
        grey = _on_white(grey, (levels != key).astype(np.float32), path)
    return np.repeat(grey[..., None], 3, axis=2)


def write(
    image: Tensor, path: str | os.PathLike[str], *, overwrite: bool = True, like: str | os.PathLike[str] | None = None
) -> None:
    """Write one picture, clamped to [0, 1] and rounded to 8 bits; whole or not at all.

    Parameters
    ----------
    image : (3, H, W) or (1, 3, H, W)
        float, RGB.
    path
        Its suffix chooses the format: .png, .jpg (quality 95), .webp (lossless).
    overwrite
        Whether an existing file is replaced.
    like
        A photograph that this came from: its EXIF data go along, but for how it was turned, its size, its thumbnail and
        its being Adobe RGB, and, if it has one for RGB, so does its colour profile, into which colours are converted.

    Raises
    ------
    ValueError
        Wrong shape, NaN or infinite pixels, unknown suffix.
    TypeError
        No tensor.
    FileNotFoundError
        The folder does not exist.
    FileExistsError
        The file does, and is not to be overwritten.
    """
    path = files.expanded(path)
    if path.suffix.lower() not in WRITABLE:
        raise ValueError(f"cannot tell a format from {path.name!r}: end the name in one of {', '.join(WRITABLE)}.")
    pixels = to_uint8(image[None] if isinstance(image, Tensor) and image.ndim == 3 else image)
    if len(pixels) != 1:
        raise ValueError(f"expected one picture (3, H, W) or (1, 3, H, W), got {len(pixels)}: see `grid`.")
    file_format, options = WRITABLE[path.suffix.lower()]
    picture = Image.fromarray(pixels[0])
    if like is not None:
        with Image.open(files.expanded(like), formats=_formats()) as original:
            picture, kept = colours.as_in(original, picture)
        options = options | kept
    with files.replacing(path, overwrite=overwrite) as temporary:
        picture.save(temporary, file_format, **options)


def to_uint8(x: Tensor) -> np.ndarray:
    """(N, 3, H, W) in [0, 1] → (N, H, W, 3) uint8 on the CPU, clamped and rounded; ValueError where not finite."""
    check_batch(x)
    bands = x.detach().split(colours.BAND, 2)  # of a large picture there is no second one in numbers
    if bad := sum(int((~band.isfinite()).sum()) for band in bands):
        raise ValueError(f"{bad} of {x.numel()} pixel values are NaN or infinite: they have no colour.")
    pixels = np.empty((len(x), *x.shape[2:], 3), np.uint8)
    for i, band in enumerate(bands):
        rounded = band.float().clamp(0, 1).mul_(255).round_().to(torch.uint8)
        pixels[:, colours.BAND * i : colours.BAND * (i + 1)] = rounded.permute(0, 2, 3, 1).cpu().numpy()
    return pixels


def grid(x: Tensor, columns: int | None = None, pad: int = 2) -> Tensor:
    """Tile pictures (N, 3, H, W) row by row on white, ``pad`` pixels apart, by default as a square: (3, ·, ·)."""
    n = len(check_batch(x))
    columns = math.ceil(math.sqrt(n)) if columns is None else columns
    whole = isinstance(columns, Integral) and isinstance(pad, Integral)
    if not whole or n < 1 or columns < 1 or pad < 0:
        raise ValueError(f"expected at least one picture and column and pad >= 0, got {n}, {columns!r} and {pad!r}.")
    columns = min(columns, n)
    tiles = F.pad(x, (0, pad, 0, pad), value=1)
    tiles = torch.cat([tiles, tiles.new_ones(-n % columns, *tiles.shape[1:])])
    tiles = tiles.unflatten(0, (-1, columns)).permute(2, 0, 3, 1, 4)  # (3, rows, height + pad, columns, width + pad)
    return tiles.flatten(3).flatten(1, 2)[:, : -pad or None, : -pad or None]


def _cubic(t: Tensor) -> Tensor:
    """Keys' cubic with a = -1/2 (MATLAB's)."""
    t = t.abs()
    near = (1.5 * t - 2.5) * t**2 + 1
    far = ((-0.5 * t + 2.5) * t - 4) * t + 2
    return near * (t <= 1) + far * ((t > 1) & (t <= 2))


KERNELS: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {  # and how many pixels they are wide
    "bicubic": (_cubic, 4),
    "bilinear": (lambda t: (1 - t.abs()).clamp(min=0), 2),
    "box": (lambda t: ((t >= -0.5) & (t < 0.5)).to(t.dtype), 1),
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
    The kernel is "bicubic" (a = −1/2), "bilinear" or "box" (the mean of a block when n_out divides n_in).
    The matrix (n_out, n_in) is cached: treat it as read-only.
    """
    if not (isinstance(n_in, Integral) and isinstance(n_out, Integral) and n_in >= 1 and n_out >= 1):
        raise ValueError(f"sizes must be at least 1 pixel, in whole numbers, got {n_in} → {n_out}.")
    function, width = KERNELS[messages.choose(kernel, KERNELS, "kernel")]
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


@in_full()
def resize(x: Tensor, size: tuple[int, int], kernel: str = "bicubic") -> Tensor:
    """Resize as MATLAB's ``imresize`` does, antialiased when shrinking; differentiable.

    (N, 3, H, W), floating point, any range → (N, 3, h, w) of the same dtype and device, by a kernel of
    `resize_matrix`'s; not clamped: a cubic over- and undershoots.
    """
    check_batch(x)
    if not isinstance(size, Sequence) or len(size) != 2:
        raise ValueError(f"the size is (h, w), two whole numbers of pixels; got {size!r}.")
    (height, width), (h, w) = x.shape[-2:], size
    rows = resize_matrix(height, h, kernel, x.dtype, x.device)
    columns = resize_matrix(width, w, kernel, x.dtype, x.device)
    return rows @ x @ columns.T


def luma(x: Tensor) -> Tensor:
    """Luminance of ITU-R BT.601 in studio range, as MATLAB's ``rgb2ycbcr``: (N, 3, H, W) → (N, 1, H, W)."""
    red, green, blue = check_batch(x).split(1, 1)
    return (65.481 * red + 128.553 * green + 24.966 * blue + 16) / 255


def fingerprint(image: Tensor) -> int:
    """Say what a picture (3, H, W) looks like, in 256 bits: where its luminance rises, on a grid of 16 × 17 means.

    Of the same picture at another size or by another JPEG encoder few bits differ, of another picture a quarter.
    """
    grid = luma(resize(check_single(image)[None], (16, 17), "box"))[0, 0]
    rises = (grid[:, 1:] > grid[:, :-1]).flatten().tolist()
    return int("".join("01"[bit] for bit in rises), 2)


def check_single(x: Tensor) -> Tensor:
    """Return ``x`` if it is one float picture (3, H, W) that has pixels; else an error as `check_batch`'s."""
    if isinstance(x, Tensor) and (x.ndim != 3 or not x.numel()):
        raise ValueError(f"expected one float picture (3, H, W), got shape {tuple(x.shape)}: give them one by one.")
    check_batch(x[None] if isinstance(x, Tensor) else x)
    return x


def check_batch(x: Tensor) -> Tensor:
    """Return ``x`` if it is a float tensor (N, 3, H, W); else a ``TypeError`` or ``ValueError`` says what to do."""
    messages.check_tensors("pictures", "(N, 3, H, W)", x)
    return x
