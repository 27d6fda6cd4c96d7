"""Pictures to work on: the faces, anybody's folder, the super-resolution benchmarks."""

from __future__ import annotations

import os
import warnings
from contextlib import suppress
from numbers import Integral
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from facesr_lib import assets, files, images, messages

FACE_SIDE = 256
TEST_FACES = 50


def faces(split: str = "train", resolution: int = 64, count: int | None = None) -> Tensor:
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
    messages.choose(split, ("train", "test"), "split")
    if not isinstance(resolution, Integral) or resolution < 1 or FACE_SIDE % resolution:
        raise ValueError(f"resolution {resolution} does not divide {FACE_SIDE}: choose 256, 128, 64, 32, 16, ….")
    pixels = prepared(assets.path(f"faces-{split}"), resolution, skip_damaged=False)
    pixels = pixels[: assets.entry(f"faces-{split}").count]  # what `verify` counts, whatever else lies there
    return _to_images(pixels[: _at_most(count, len(pixels), f"split {split!r}")])


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
    paths = pictures(assets.path("celeba-hq"))
    return torch.cat([square(images.read(p), resolution) for p in paths[: _at_most(count, len(paths), "CelebA-HQ")]])


def held_out(resolution: int, count: int) -> tuple[Tensor, str]:
    """Load faces that no prior of this resolution was trained on, and say where they come from.

    Returns
    -------
    faces : (count, 3, resolution, resolution)
    origin : str
        "held-out faces", which are `faces`' 50 of "test"; above 256² "CelebA-HQ".

    Raises
    ------
    AssetMissing
        They are not on this machine.
    ValueError
        There are fewer, or the resolution does not divide 256.
    """
    if resolution > FACE_SIDE:
        return celeba_hq(resolution, count), "CelebA-HQ"
    return faces("test", resolution, count), "held-out faces"


def folder(path: str | os.PathLike[str], resolution: int) -> Tensor:
    """Load every picture of a folder as one batch: (N, 3, resolution, resolution), [0, 1]; see `prepared`."""
    return _to_images(prepared(path, resolution))


def prepared(path: str | os.PathLike[str], resolution: int, *, skip_damaged: bool = True) -> np.ndarray:
    """Prepare the pictures of a folder for training: cropped to the central square, resized, kept in the cache.

    Pictures that cannot be read are skipped, and one warning counts and names them; or they are errors.

    Returns
    -------
    (N, resolution, resolution, 3)
        uint8, in the order of `pictures`; mapped from the cache's file, which may be larger than memory.

    Raises
    ------
    FileNotFoundError
        No such folder.
    ValueError
        No picture in it can be read, or a resolution below 1.
    """
    path = Path(path).expanduser()
    messages.check("resolution", resolution, int, at_least=1)
    paths = pictures(path)
    states = [(p.relative_to(path), p.stat().st_size, p.stat().st_mtime_ns) for p in paths if p.is_file()]
    key = files.digest(repr((states, len(paths))))[:16]
    cached = assets.cache() / "prepared" / f"{path.resolve().name}-{resolution}-{key}.npy"
    with suppress(OSError, ValueError, EOFError):  # not there, or damaged
        return np.load(cached, mmap_mode="r")
    pixels = np.empty((len(paths), resolution, resolution, 3), np.uint8)
    kept, skipped = 0, []
    for p in paths:
        try:
            pixels[kept] = images.to_uint8(square(images.read(p), resolution))[0]
            kept += 1
        except (ValueError, OSError) as error:
            if not skip_damaged:
                raise
            skipped.append(str(error))
    if skipped:
        named = [*skipped[:10], f"and {len(skipped) - 10} more."][: len(skipped)]
        warnings.warn(f"skipped {len(skipped)} of {len(paths)} pictures: {' '.join(named)}", stacklevel=3)
    if not kept:
        raise ValueError(f"no picture in {path} can be read: names should end in {', '.join(images.SUFFIXES)}.")
    if not skipped:  # a damaged picture is named every time, until it is mended or gone
        with suppress(OSError):  # a cache that cannot be written costs time, nothing else
            cached.parent.mkdir(parents=True, exist_ok=True)
            with files.replacing(cached) as temporary, temporary.open("wb") as file:
                np.save(file, pixels)
    return pixels[:kept]


def _to_images(pixels: np.ndarray) -> Tensor:
    """(N, R, R, 3) uint8 → (N, 3, R, R) in [0, 1]."""
    return torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).contiguous().float() / 255


def benchmark_images(name: str) -> list[Tensor]:
    """Load a super-resolution benchmark, "set5", "set14", "bsd100" or "bsd200": pictures (3, H, W) of different sizes.

    Raises
    ------
    AssetMissing
        It is not on this machine.
    ValueError
        There is no such benchmark.
    """
    known = ("set5", "set14", "bsd100", "bsd200")
    return [images.read(p) for p in pictures(assets.path(messages.choose(name, known, "benchmark")))]


def pictures(path: Path) -> list[Path]:
    """List what has a picture's name in a folder and its sub-folders, nothing hidden, 2.jpg before 10.jpg.

    Raises
    ------
    FileNotFoundError
        No such folder.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {path}: check the path.")
    return files.shown(path, images.SUFFIXES)


def _at_most(count: int | None, there: int, source: str) -> int:
    """Return ``count`` if there are so many (None: all)."""
    if count is not None and not (isinstance(count, Integral) and 1 <= count <= there):
        raise ValueError(f"asked for {count!r} faces, but {source} has 1 to {there} here.")
    return there if count is None else count


def square(image: Tensor, resolution: int) -> Tensor:
    """Crop (3, H, W) to its central square and resize: (1, 3, R, R), by exact means where R divides its side."""
    _, height, width = image.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[None, :, top : top + side, left : left + side]
    kernel = "bicubic" if side % resolution else "box"
    return images.resize(square, (resolution, resolution), kernel).clamp(0, 1)
