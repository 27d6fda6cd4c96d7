"""What every figure that moves has: a text alternative, a title and a caption, and pictures packed into bytes."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anywidget
import torch
from PIL import Image
from torch import Tensor
from traitlets import Bytes, Int, Unicode

from facesr_lib import images

FOLDER = Path(__file__).parent
COLOURS = 6  # that stay apart for colour-blind readers


def script(*names: str) -> str:
    """Return a figure's JavaScript, preceded by what all figures share."""
    return "\n".join((FOLDER / file).read_text(encoding="utf-8") for file in ("figure.js", *names))


class Figure(anywidget.AnyWidget):
    """A figure that carries its data with it; see `BeforeAfter`, `Playground` and the others.

    Attributes
    ----------
    alt : str
        What the figure shows, for those who cannot see it: screen readers, and programs that run no widgets.
    title, caption : str
        Shown above and below; either may be empty.
    """

    _css = (FOLDER / "figure.css").read_text(encoding="utf-8")

    alt = Unicode().tag(sync=True)
    title = Unicode().tag(sync=True)
    caption = Unicode().tag(sync=True)

    def __init__(self, *, alt: str, **traits: Any):
        if not alt.strip():
            raise ValueError("alt is empty: say in a sentence or two what the figure shows")
        if unknown := traits.keys() - set(self.trait_names()):
            raise TypeError(f"{type(self).__name__} takes no {', '.join(sorted(unknown))}.")
        super().__init__(alt=alt, **traits)

    def __repr__(self) -> str:
        """Say what the figure shows: all that a program without widgets can show of it."""
        return f"{type(self).__name__}: {self.alt}"

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is not None:
            bundle[0]["text/plain"] = repr(self)  # anywidget < 0.11 cuts it after 110 characters
        return bundle


class Album(Figure):
    """A figure whose faces are made before and travel with it: square tiles of one picture, the sheet.

    Attributes
    ----------
    sheet : bytes
        The tiles, row by row, as WebP.
    columns, resolution : int
        Tiles per row; pixels per side of a tile.
    """

    sheet = Bytes().tag(sync=True)
    columns = Int().tag(sync=True)
    resolution = Int().tag(sync=True)

    def __init__(self, tiles: Tensor, *, columns: int | None = None, quality: int = 90, **traits: Any):
        columns = columns or math.ceil(math.sqrt(len(tiles)))  # nearly square: WebP allows 16383 pixels a side
        sheet = webp(images.grid(tiles, columns, pad=0), quality=quality)
        super().__init__(sheet=sheet, columns=columns, resolution=tiles.shape[-1], **traits)


def webp(image: Tensor, **options: Any) -> bytes:
    """Encode one picture (3, H, W) in [0, 1] as WebP; ``options`` are Pillow's."""
    check_range("a picture", image)
    file = io.BytesIO()
    Image.fromarray(images.to_uint8(image[None])[0]).save(file, "WEBP", method=6, **options)
    return file.getvalue()


def numbers(name: str, values: Any) -> Tensor:
    """Take a tensor, an array or a list as a tensor on the CPU; a ``ValueError`` says which of them is none."""
    try:
        return torch.as_tensor(values).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        kind = type(values).__name__
        raise ValueError(f"{name} is a {kind} that makes no tensor ({error}): give a tensor of numbers.") from error


def squares(name: str, given: Any, *leading: int | None, side: int | None = None) -> Tensor:
    """Take square pictures, (*leading, 3, R, R) in [0, 1]; a ``ValueError`` names those that are none.

    R is ``side``; ``None``, as the default of it, is any number.
    """
    pictures, wanted = numbers(name, given).float(), (*leading, 3, side, side)
    fits = pictures.ndim == len(wanted) and pictures.shape[-2] == pictures.shape[-1] and pictures.numel()
    if not fits or any(n not in (None, there) for n, there in zip(wanted, pictures.shape, strict=True)):
        shape = ", ".join([*(str(n or "N") for n in leading), "3", *[str(side or "R")] * 2])
        raise ValueError(f"{name} has shape {tuple(pictures.shape)}; give square pictures, ({shape}).")
    check_finite(name, pictures, "picture")
    check_range(name, pictures)
    return pictures.clamp(0, 1)


def check_named(what: str, given: Any) -> None:
    """Raise a ``ValueError`` unless these are one to six things under their names."""
    if not isinstance(given, Mapping) or not 1 <= len(given) <= COLOURS:
        came = str(len(given)) if isinstance(given, Mapping) else f"a {type(given).__name__}"
        raise ValueError(
            f"expected one to {COLOURS} {what}, got {came}: give them by name, and show others in another figure."
        )


def check_range(name: str, pictures: Tensor) -> None:
    """Raise a ``ValueError`` if there is no pixel, or some are far outside [0, 1]: bytes would all be white."""
    if not pictures.numel():
        raise ValueError(f"{name} has no pixel, shape {tuple(pictures.shape)}: give at least one picture.")
    low, high = (float(bound) for bound in pictures.aminmax())
    if low < -0.25 or high > 1.25:
        raise ValueError(f"{name} ranges from {low:.2f} to {high:.2f}; pixels are in [0, 1]: divide bytes by 255.")


def check_finite(name: str, values: Tensor, what: str) -> None:
    """Raise a ``ValueError`` that names the first of these (K, …), each called ``what``, that is NaN or infinite."""
    finite = values.isfinite().flatten(1).all(1) if values.ndim > 1 else values.isfinite()
    if not finite.all():
        raise ValueError(f"{name} is NaN or infinite at {what} {int((~finite).int().argmax())}.")


def rounded(values: Tensor) -> Any:
    """As nested lists with six significant digits: more than is shown, at half the bytes."""
    if values.ndim > 1:
        return [rounded(row) for row in values]
    return [float(f"{value:.6g}") for value in values.tolist()]
