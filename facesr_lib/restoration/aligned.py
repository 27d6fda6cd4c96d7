"""Photos in, restored photos out: what `facesr restore` does."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from facesr_lib import data, images, messages
from facesr_lib.degrade import check_lowres
from facesr_lib.prior import FacePrior
from facesr_lib.restoration.methods import check


@dataclass
class Outcome:
    """What became of one photo.

    Attributes
    ----------
    photo, output : Path
        ``output`` is ``None`` if nothing could be restored.
    residual : float
        Root mean squared difference, in grey levels of 255, between the restored face made small and what was given.
    error : str
        Why not, if not.
    """

    photo: Path
    output: Path | None = None
    residual: float = float("nan")
    error: str = ""

    @property
    def message(self) -> str:
        """One line for a terminal."""
        if self.output is None:
            return f"{self.photo}: {self.error}"
        doubt = "  (the result does not explain this picture well)" if self.residual > 25 else ""
        return f"{self.photo} → {self.output}  off by {self.residual:.1f} grey levels{doubt}"


def restore(
    photos: Iterable[str | Path],
    out: str | Path,
    prior: FacePrior,
    operator: Callable[[Tensor], Tensor],
    *,
    method: str = "pulse",
    degrade: bool = False,
    overwrite: bool = False,
    batch: int = 16,
    seed: int = 0,
    **options: Any,
) -> Iterator[Outcome]:
    """Restore aligned faces, one picture a face, or enlarge pictures by a method that takes any.

    Parameters
    ----------
    photos : iterable of paths
        Low-resolution faces of the size that ``operator`` gives; with ``degrade``, faces of any size, which are cropped
        square, resized to the resolution of the method or else the prior, and made small first. Where the method takes
        any picture (`Method.pictures`) they are of any size; with ``degrade`` cropped at most to multiples of the
        scale.
    out : path
        Folder of the results, ``<name>.png``; made if it does not exist.
    prior, operator
        The face prior; HR → LR.
    method : str
        A name in `METHODS`.
    degrade : bool
        Whether the photos are high-resolution originals.
    overwrite : bool
        Whether a result takes the place of a file of its name; never that of one of the photos.
    batch : int
        Faces searched at once.
    seed : int
        Every photo starts as it would alone.
    **options
        For the method.

    Yields
    ------
    Outcome
        One per photo, in order; a photo that cannot be restored does not stop the others.

    Raises
    ------
    ValueError
        If ``out`` is no folder, ``photos`` is one name instead of a list, ``batch`` or ``seed`` cannot be, or as
        `check`.
    KeyboardInterrupt
        After Ctrl-C, when the best that the interrupted batch had found is written and yielded.
    """
    if isinstance(photos, (str, os.PathLike)):
        raise ValueError(f"photos is a list of paths; got {str(photos)!r}: put it in brackets.")
    messages.check("batch", batch, int, at_least=1)
    messages.check("seed", seed, int, at_least=0)
    find = check(method, options, prior)
    out = Path(out).expanduser()
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is no folder: name a folder for the results.")
    out.mkdir(parents=True, exist_ok=True)
    todo = [Outcome(Path(photo).expanduser()) for photo in photos]
    originals = {_inode(outcome.photo) for outcome in todo} - {None}
    names: set[str] = set()
    batch = 1 if find.pictures else batch  # they differ in size
    resolution = find.resolution or prior.resolution
    for first in range(0, len(todo), batch):
        outcomes = todo[first : first + batch]
        ready: list[tuple[Outcome, Path, Tensor]] = []
        for outcome in outcomes:
            try:
                lowres = (_any_picture if find.pictures else _lowres)(outcome.photo, resolution, operator, degrade)
                output = out / f"{_unused(outcome.photo.stem, names)}.png"
                if _inode(output) in originals:
                    raise ValueError(f"the result would replace the photo {output}: choose another folder.")
                if _exists(output) and not overwrite:
                    raise ValueError(f"{output} exists: choose another folder, or replace it by --overwrite.")
                ready.append((outcome, output, lowres))
            except (ValueError, OSError) as error:
                outcome.error = _words(error)
        if ready:
            lowres = torch.cat([image for *_, image in ready]).to(prior.device)
            result = find(lowres, operator, prior=prior, seed=[seed] * len(ready), **options)
            found = zip(ready, result.image.cpu(), 255 * result.residual, strict=True)
            for (outcome, output, _), image, residual in found:
                try:
                    images.write(image, output, overwrite=overwrite)
                    outcome.output, outcome.residual = output, float(residual)
                except OSError as error:
                    reason = error.strerror or error  # a full disk, a name that is too long
                    outcome.error = f"{output} could not be written ({reason}): make room, or choose another folder."
                except ValueError as error:
                    outcome.error = _words(error)
            if result.interrupted:
                yield from outcomes
                raise KeyboardInterrupt
        yield from outcomes


def _lowres(photo: Path, resolution: int, operator: Callable[[Tensor], Tensor], degrade: bool) -> Tensor:
    image = images.read(photo)
    if degrade:
        return operator(data.square(image, resolution)).clamp(0, 1)
    try:
        return check_lowres(operator, image[None], resolution)
    except ValueError as error:
        large = min(image.shape[1:]) >= resolution
        hint = " Is it a high-resolution original? Then say so: --degrade." if large else ""
        raise ValueError(f"{error}{hint}") from error


def _any_picture(photo: Path, resolution: int, operator: Callable[[Tensor], Tensor], degrade: bool) -> Tensor:
    image = images.read(photo)[None]
    if not degrade:
        return image
    scale = getattr(operator, "scale", 1)
    height, width = (side // scale * scale for side in image.shape[2:])
    if not height or not width:
        raise ValueError(f"{image.shape[2]}×{image.shape[3]} pixels cannot be made {scale} times smaller.")
    return operator(image[:, :, :height, :width]).clamp(0, 1)


def _unused(stem: str, names: set[str]) -> str:
    name, k = stem, 2
    while name.casefold() in names:  # on many disks A.png and a.png are one file
        name, k = f"{stem}-{k}", k + 1
    names.add(name.casefold())
    return name


def _exists(path: Path) -> bool:
    """Whether anything has this name; an ``OSError`` if nothing can have it."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    return True


def _inode(path: Path) -> tuple[int, int] | None:
    """Which file this is, by whatever name or link; ``None`` if it is none, or cannot be one."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # no system takes some names: too long, or not to be encoded
        return None
    return status.st_dev, status.st_ino


def _words(error: ValueError | OSError) -> str:
    """What an error of one photo says; the system's own names neither the trouble nor a way out."""
    if isinstance(error, UnicodeError):
        return "its name cannot be written on this system: rename the photo."
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename} cannot be used ({error.strerror}): rename the photo, or choose another folder."
    return str(error)
