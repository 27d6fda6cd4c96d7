"""Pictures to work on, and what is known of them: the faces, anybody's folder, the sets of super-resolution."""

from __future__ import annotations

import os
import warnings
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from facesr_lib import assets, files, images, messages

FACE_SIDE = 256
DIVISORS = [1, 2, 4, 8, 16, 32, 64, 128, FACE_SIDE]
TEST_FACES = 50


def faces(split: str = "train", resolution: int = 64, count: int | None = None) -> Tensor:
    """Load the prepared OMI faces, shrunk by the mean over blocks (as the shipped prior was trained).

    ``split`` is "train", 900 identities, or "test", 50 others (``TEST_FACES``); ``resolution`` divides 256; ``count``:
    only the first so many, in the order of their numbers. (N, 3, resolution, resolution), [0, 1], whole multiples of
    1/255. An ``AssetMissing`` says that the faces are not on this machine, a ``ValueError`` that there are fewer.
    """
    messages.choose(split, ("train", "test"), "split")
    messages.check("resolution", resolution, int, among=DIVISORS)
    pixels = prepared(assets.path(f"faces-{split}"), resolution, skip_damaged=False)
    pixels = pixels[: assets.entry(f"faces-{split}").count]  # what `verify` counts, whatever else lies there
    _check_count(len(pixels) if count is None else count, len(pixels), f"split {split!r}")
    return _to_images(pixels[:count])


def held_out(resolution: int, count: int) -> tuple[Tensor, str]:
    """Load faces that no prior of this resolution was trained on, and say where they come from.

    They are `faces`' 50 of "test", "held-out faces"; above 256² the first of "CelebA-HQ", on which the papers measure,
    from where the user has put it. Errors as `faces`'.
    """
    if resolution <= FACE_SIDE:
        return faces("test", resolution, count), "held-out faces"
    paths = pictures(assets.path("celeba-hq"))
    _check_count(count, len(paths), "CelebA-HQ")
    return torch.cat([square(images.read(path), resolution) for path in paths[:count]]), "CelebA-HQ"


def folder(path: str | os.PathLike[str], resolution: int) -> Tensor:
    """Load every picture of a folder as one batch: (N, 3, resolution, resolution), [0, 1]; see `prepared`."""
    return _to_images(prepared(path, resolution))


def prepared(path: str | os.PathLike[str], resolution: int, *, skip_damaged: bool = True) -> np.ndarray:
    """Prepare the pictures of a folder for training: cropped to the central square, resized, kept in the cache.

    (N, resolution, resolution, 3), uint8, in the order of `pictures`; mapped from the cache's file, which may be larger
    than memory. Pictures that cannot be read are skipped, and one warning counts and names them; or they are errors, as
    is a folder without one that can.
    """
    path = files.expanded(path)
    messages.check("resolution", resolution, int, at_least=1)
    paths = pictures(path)
    states = [(p.relative_to(path), p.stat().st_size, p.stat().st_mtime_ns) for p in paths if os.path.isfile(p)]
    key = files.digest(repr((states, len(paths))), Path(__file__), Path(images.__file__))[:16]  # and how they are read
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


def landmarks(faces: str | Path = "faces-train", resolution: int = 64, labels: str | Path | None = None) -> Tensor:
    """Load the landmarks of every face of a folder, in the order of `prepared`.

    Parameters
    ----------
    faces : str or Path
        Registry name or folder.
    resolution : int
        In whose pixels the points are given, (N, 68, 2) in iBUG's order; (0, 0) is the centre of the top-left one.
    labels : str or Path, optional
        An ``.npz`` file of two arrays: "names", the pictures' without suffix, and "labels", (M, 68, 2), x and y in
        pixels of the pictures cropped square and resized to 256². Default: the shipped ones, of the registry's faces.

    Raises
    ------
    AssetMissing, FileNotFoundError
        Faces or labels are not on this machine.
    ValueError
        The labels are none of these faces', or no landmarks.
    """
    points, file = _labels("landmarks", faces, labels)
    messages.check("resolution", resolution, int, at_least=1)
    numbers = points.dtype.kind in "fiu" and bool(np.isfinite(points).all())
    if points.shape[1:] != (68, 2) or not numbers or abs(points - FACE_SIDE / 2).max() > FACE_SIDE:
        came = f"{points.shape}, {points.dtype}, or a place far outside"
        raise ValueError(f"{file} holds no landmarks: they are (M, 68, 2), in pixels of {FACE_SIDE}²; got {came}.")
    return (torch.from_numpy(points).float() + 0.5) * (resolution / FACE_SIDE) - 0.5


def parsing(faces: str | Path = "faces-train", resolution: int = 256, labels: str | Path | None = None) -> np.ndarray:
    """Load what each pixel of every face of a folder belongs to, in the order of `prepared`.

    Parameters as `landmarks`'s, but "labels" are (M, 256, 256), uint8, and the resolution divides 256; errors too. (N,
    resolution, resolution), uint8: an index into `networks.parsing.CLASSES`, or 255 where nobody knows; made small by
    the nearest pixel.
    """
    messages.check("resolution", resolution, int, among=DIVISORS)
    each = FACE_SIDE // resolution
    maps, file = _labels("parsing", faces, labels)
    if maps.shape[1:] != (FACE_SIDE, FACE_SIDE) or maps.dtype != np.uint8:
        wanted = f"(M, {FACE_SIDE}, {FACE_SIDE}), uint8"
        raise ValueError(f"{file} holds no parsing: it is {wanted}; got {maps.shape}, {maps.dtype}.")
    return np.ascontiguousarray(maps[:, each // 2 :: each, each // 2 :: each])


def _labels(kind: str, faces: str | Path, labels: str | Path | None) -> tuple[np.ndarray, Path]:
    """Labels of every face of a folder, and the file that they come from."""
    folder = assets.locate(faces)
    if labels is None and str(faces) not in ("faces-train", "faces-test"):
        way = "give them, a file .npz that holds 'names' and 'labels'"
        raise ValueError(f"the faces in {faces} come without {kind}: {way}.")
    file = assets.locate(labels or f"labels-{kind}")
    try:
        with np.load(file) as held:
            names, values = held["names"].tolist(), held["labels"]
        index = {name: i for i, name in enumerate(names)}
        if len(index) != len(values):
            raise ValueError(f"{len(index)} names, {len(values)} labels")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no file of labels {file}: check the path.") from error
    except (OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file} holds no labels ({error}): it is to be .npz, with 'names' and 'labels'.") from error
    wanted = [p.relative_to(folder).with_suffix("").as_posix() for p in pictures(folder)]
    if not wanted:
        raise ValueError(f"no picture is in {folder}: names should end in {', '.join(images.SUFFIXES)}.")
    if missing := [name for name in wanted if name not in index]:
        raise ValueError(
            f"{file} has no {kind} of {len(missing)} of the {len(wanted)} faces in {folder}, such as {missing[0]}: "
            "give labels of these faces, or take the others away."
        )
    return values[[index[name] for name in wanted]], file


def _to_images(pixels: np.ndarray) -> Tensor:
    """(N, R, R, 3) uint8 → (N, 3, R, R) in [0, 1]."""
    return torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).contiguous().float() / 255


def picture_set(name: str) -> list[Tensor]:
    """Load a set of super-resolution, "set5", "set14", "bsd100" or "bsd200": pictures (3, H, W) of different sizes.

    An ``AssetMissing`` says that it is not on this machine.
    """
    known = ("set5", "set14", "bsd100", "bsd200")
    return [images.read(p) for p in pictures(assets.path(messages.choose(name, known, "set of pictures")))]


def pictures(path: str | Path) -> list[Path]:
    """List what has a picture's name in a folder and its sub-folders, and what nobody can look into (`files.shown`)."""
    if not (path := files.expanded(path)).is_dir():
        raise FileNotFoundError(f"there is no folder {path}: check the path.")
    return files.shown(path, images.SUFFIXES)


def _check_count(count: int, there: int, source: str) -> None:
    messages.check(f"the number of faces of {source} on this machine", count, int, at_least=1, at_most=there)


def square(image: Tensor, resolution: int) -> Tensor:
    """Crop (3, H, W) to its central square and resize: (1, 3, R, R), by exact means where R divides its side."""
    _, height, width = images.check_single(image).shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[None, :, top : top + side, left : left + side]
    kernel = "bicubic" if side % resolution else "box"
    return images.resize(square, (resolution, resolution), kernel).clamp(0, 1)
