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
    file = io.BytesIO()
    Image.fromarray(images.to_uint8(image[None])[0]).save(file, "WEBP", method=6, **options)
    return file.getvalue()


def numbers(name: str, given: Any, *sides: int | str, give: str = "numbers") -> Tensor:
    """Take a tensor, an array or a list as a tensor on the CPU; a ``ValueError`` says which is none, unfit, or NaN.

    ``sides`` are its shape, in which a letter stands for any length, and the same letter for the same; by default it
    has any. ``give`` says of what, in the plural.
    """
    try:
        values = torch.as_tensor(given).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        kind = type(given).__name__
        raise ValueError(f"{name} is a {kind} that makes no tensor ({error}): give a tensor of numbers.") from error
    lengths = {side: n for side, n in zip(sides, values.shape, strict=False) if isinstance(side, str)}
    if sides and (not values.numel() or tuple(lengths.get(str(side), side) for side in sides) != values.shape):
        wanted = str(sides).replace("'", "")
        raise ValueError(f"{name} has shape {tuple(values.shape)}; give {give}, {wanted}.")
    if len(bad := (~torch.atleast_1d(values).isfinite()).nonzero()):
        raise ValueError(f"{name} is NaN or infinite at entry {int(bad[0, 0])}.")
    return values


def pictures(name: str, given: Any, *sides: int | str, give: str = "square pictures") -> Tensor:
    """Take pictures in [0, 1], as `numbers`; a ``ValueError`` if some are far outside: bytes would all be white."""
    taken = numbers(name, given, *sides, give=give).float()
    low, high = (float(bound) for bound in taken.aminmax())
    if low < -0.25 or high > 1.25:
        raise ValueError(f"{name} ranges from {low:.2f} to {high:.2f}; pixels are in [0, 1]: divide bytes by 255.")
    return taken.clamp(0, 1)


def check_named(what: str, given: Any) -> None:
    """Raise a ``ValueError`` unless these are one to six things under their names."""
    if not isinstance(given, Mapping) or not 1 <= len(given) <= COLOURS:
        came = str(len(given)) if isinstance(given, Mapping) else f"a {type(given).__name__}"
        raise ValueError(
            f"expected one to {COLOURS} {what}, got {came}: give them by name, and show others in another figure."
        )


def rounded(values: Tensor) -> Any:
    """As nested lists with six significant digits: more than is shown, at half the bytes."""
    if values.ndim > 1:
        return [rounded(row) for row in values]
    return [float(f"{value:.6g}") for value in values.tolist()]
