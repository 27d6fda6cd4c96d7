"""Pictures to work on: the faces, anybody's folder, the super-resolution benchmarks."""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from facesr_lib import assets, files, images

FACE_SIDE = 256
TEST_FACES = 50


def faces(split: Literal["train", "test"] = "train", resolution: int = 64, count: int | None = None) -> Tensor:
    """Load the prepared OMI faces, shrunk by the mean over blocks (as the shipped prior was trained).

    Parameters
    ----------
    split
        "train": 900 identities; "test": 50 others (``TEST_FACES``).
    resolution
        A divisor of 256.
    count
        Only the first so many, in the order of their numbers.

    Returns
    -------
    (N, 3, resolution, resolution)
        [0, 1], whole multiples of 1/255. The whole split is kept in the cache as one file, which makes the second
        call fast.

    Raises
    ------
    AssetMissing
        The faces are not on this machine.
    ValueError
        Unknown split, a resolution that does not divide 256, more faces asked for than there are.
    """
    if split not in ("train", "test"):
        raise ValueError(f"unknown split {split!r}: choose 'train' or 'test'")
    if resolution < 1 or FACE_SIDE % resolution:
        raise ValueError(f"resolution {resolution} does not divide {FACE_SIDE}: choose 256, 128, 64, 32, 16, ...")
    paths = _pictures(assets.path("faces") / split)
    if count is not None and not 1 <= count <= len(paths):
        raise ValueError(f"asked for {count} faces, but split {split!r} has 1 to {len(paths)}")
    return _to_images(prepared(assets.path("faces") / split, resolution, skip_damaged=False)[:count])


def celeba_hq(resolution: int, count: int) -> Tensor:
    """Load the first pictures of CelebA-HQ, the faces that the papers measure on, from where the user has put them.

    Returns
    -------
    (count, 3, resolution, resolution)
        [0, 1], in the order of the numbers in their names.

    Raises
    ------
    AssetMissing
        They are not on this machine.
    ValueError
        Fewer than ``count``, or a picture that cannot be read.
    """
    paths = _pictures(assets.path("celeba-hq"))
    if not 1 <= count <= len(paths):
        raise ValueError(f"asked for {count} faces, but CelebA-HQ has 1 to {len(paths)} here")
    return torch.cat([square(images.read(p), resolution) for p in paths[:count]])


def folder(path: str | os.PathLike[str], resolution: int) -> Tensor:
    """Load every picture of a folder as one batch: (N, 3, resolution, resolution), [0, 1]; see `prepared`."""
    return _to_images(prepared(path, resolution))


def prepared(path: str | os.PathLike[str], resolution: int, *, skip_damaged: bool = True) -> np.ndarray:
    """Prepare every picture of a folder for training: cropped to the central square, resized, kept in the cache.

    Pictures that cannot be read are skipped, and one warning counts and names them; or they are errors.

    Returns
    -------
    (N, resolution, resolution, 3)
        uint8, in the order of the numbers in the pictures' names; mapped from the cache's file, which may be larger
        than memory.

    Raises
    ------
    FileNotFoundError
        No such folder.
    ValueError
        No picture in it can be read, or a resolution below 1.
    """
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {path}: check the path")
    if resolution < 1:
        raise ValueError(f"resolution must be at least 1 pixel, got {resolution}")
    paths = _pictures(path)
    cached = assets.cache() / "prepared" / f"{path.name}-{resolution}-{_fingerprint(paths)}.npy"
    try:
        return np.load(cached, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        pass  # not there, or damaged
    squares, skipped = [], []
    for p in paths:
        try:
            squares.append(images.to_uint8(square(images.read(p), resolution)))
        except ValueError as error:
            if not skip_damaged:
                raise
            skipped.append(str(error))
    if skipped:
        warnings.warn(f"skipped {len(skipped)} of {len(paths)} pictures: {'; '.join(skipped)}", stacklevel=3)
    if not squares:
        raise ValueError(
            f"no picture in {path} can be read: it should hold files ending in {', '.join(images.SUFFIXES)}"
        )
    pixels = np.concatenate(squares)
    if not skipped:  # a damaged picture is named every time, until it is mended or gone
        with suppress(OSError):  # a cache that cannot be written costs time, nothing else
            cached.parent.mkdir(parents=True, exist_ok=True)
            with files.replacing(cached) as temporary, temporary.open("wb") as file:
                np.save(file, pixels)
    return pixels


def _to_images(pixels: np.ndarray) -> Tensor:
    """(N, R, R, 3) uint8 → (N, 3, R, R) in [0, 1]."""
    return torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).contiguous().float() / 255


def benchmark_images(name: Literal["set5", "set14", "bsd100", "bsd200"]) -> list[Tensor]:
    """Load a super-resolution benchmark: pictures (3, H, W) of different sizes.

    Raises
    ------
    AssetMissing
        It is not on this machine.
    ValueError
        There is no such benchmark.
    """
    known = ("set5", "set14", "bsd100", "bsd200")
    if name not in known:
        raise ValueError(f"unknown benchmark {name!r}: choose one of {', '.join(known)}")
    return [images.read(p) for p in _pictures(assets.path(name))]


def _pictures(path: Path) -> list[Path]:
    """List a folder's pictures, 2.jpg before 10.jpg."""
    found = (p for p in path.iterdir() if p.suffix.lower() in images.SUFFIXES and not p.name.startswith("."))
    return sorted(found, key=lambda p: ([int(n) for n in re.findall(r"\d+", p.stem)], p.name))


def _fingerprint(paths: Iterable[Path]) -> str:
    stats = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in paths]
    return hashlib.sha256(repr(stats).encode()).hexdigest()[:16]


def square(image: Tensor, resolution: int) -> Tensor:
    """Crop (3, H, W) to its central square and resize: (1, 3, R, R), by exact means where R divides its side."""
    _, height, width = image.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[None, :, top : top + side, left : left + side]
    kernel = "bicubic" if side % resolution else "box"
    return images.resize(square, (resolution, resolution), kernel).clamp(0, 1)
