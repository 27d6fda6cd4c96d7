"""Faces in, restored faces out: what `facesr restore --aligned` does."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from facesr_lib import data, images, messages
from facesr_lib.degrade import check_lowres
from facesr_lib.prior import FacePrior
from facesr_lib.restoration import tiles
from facesr_lib.restoration.methods import check
from facesr_lib.restoration.outputs import Outcome, Outputs, paths, told


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
        If ``out`` is no folder, ``photos`` is no list of paths, ``batch`` or ``seed`` cannot be, or as
        `check`.
    KeyboardInterrupt
        After Ctrl-C, when the best that the interrupted batch had found is written and yielded.
    """
    todo = [Outcome(photo) for photo in paths(photos)]
    messages.check("batch", batch, int, at_least=1)
    messages.check("seed", seed, int, at_least=0)
    find = check(method, options, prior)
    outputs = Outputs(out, [outcome.photo for outcome in todo], overwrite)
    batch = 1 if find.pictures else batch  # they differ in size
    resolution = find.resolution or prior.resolution
    for first in range(0, len(todo), batch):
        outcomes = todo[first : first + batch]
        ready: list[tuple[Outcome, Path, Tensor]] = []
        for outcome in outcomes:
            with told(outcome):
                lowres = (_any_picture if find.pictures else _lowres)(outcome.photo, resolution, operator, degrade)
                (output,) = outputs.named(outcome.photo.stem, "{}.png")
                ready.append((outcome, output, lowres))
        if ready:
            lowres = torch.cat([image for *_, image in ready]).to(prior.device)
            result = find(lowres, operator, prior=prior, seed=[seed] * len(ready), **options)
            found = zip(ready, result.image.cpu(), 255 * result.residual, strict=True)
            for (outcome, output, _), image, residual in found:
                with told(outcome, output):
                    images.write(image, output, overwrite=overwrite)
                    outcome.output, outcome.residual = output, float(residual)
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
    image, scale = images.read(photo)[None], getattr(operator, "scale", 1)
    if not degrade:
        tiles.require_room(image.shape[2], image.shape[3], scale)
        return image
    height, width = (side // scale * scale for side in image.shape[2:])
    if not height or not width:
        raise ValueError(f"{image.shape[3]}×{image.shape[2]} pixels cannot be made {scale} times smaller.")
    if (height, width) != image.shape[2:]:
        came = f"{image.shape[3]}×{image.shape[2]}"
        warnings.warn(f"{photo} is cropped from {came} to {width}×{height}, multiples of {scale}.", stacklevel=2)
    return operator(image[:, :, :height, :width]).clamp(0, 1)
