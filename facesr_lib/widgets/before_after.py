"""A wipe between two pictures."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from traitlets import Bytes, Float, Int, List, Unicode

from facesr_lib.widgets.figure import Figure, numbers, pictures, script, webp


class BeforeAfter(Figure):
    """Two pictures on top of each other and a divider to drag: by mouse, finger or arrow keys.

    Both are shown at the same size; where a picture has fewer pixels than the screen shows, they stay square pixels. A
    ``ValueError`` says that a picture has another shape, NaN pixels, or other proportions than its partner.

    Parameters
    ----------
    before, after : (3, H, W) or (1, 3, H, W)
        In [0, 1]; of any two sizes with the same proportions.
    labels : (str, str)
        Shown on the two pictures.
    width : int
        Of the figure on a wide enough screen, in CSS pixels.
    closest : float
        How many times the pictures can be enlarged, to be scrolled over; 1: not at all.
    **words
        ``alt``, ``title`` and ``caption``, as of every `Figure`.

    Attributes
    ----------
    position : float
        Where the divider stands, 0 (only ``after`` is seen) to 1 (only ``before``).
    zoom : float
        How many times the pictures are enlarged. Both follow the reader's hand, and can be set and linked.
    """

    _esm = script("before_after.js")

    before = Bytes().tag(sync=True)
    after = Bytes().tag(sync=True)
    size = List(Int(), help="Width and height of the larger picture.").tag(sync=True)
    labels = List(Unicode()).tag(sync=True)
    width = Int().tag(sync=True)
    position = Float(0.5, min=0.0, max=1.0).tag(sync=True)
    closest = Float(1.0, min=1.0).tag(sync=True)
    zoom = Float(1.0, min=1.0).tag(sync=True)

    def __init__(
        self,
        before: Tensor,
        after: Tensor,
        *,
        labels: tuple[str, str] = ("before", "after"),
        width: int = 384,
        closest: float = 1.0,
        **words: Any,
    ):
        if len(labels) != 2:
            raise ValueError(f"expected two labels, for before and after; got {labels!r}")
        pair = [_single(before, "before"), _single(after, "after")]
        (h, w), (height, width_after) = (tuple(image.shape[1:]) for image in pair)
        if abs(h * width_after - w * height) > 0.02 * h * width_after:
            raise ValueError(
                f"before is {h} x {w} and after is {height} x {width_after}: crop them to the same proportions, "
                "or the wipe compares different places"
            )
        super().__init__(
            before=_encode(pair[0]),
            after=_encode(pair[1]),
            size=[max(w, width_after), max(h, height)],
            labels=list(labels),
            width=width,
            closest=closest,
            **words,
        )


def _single(image: Tensor, name: str) -> Tensor:
    """(3, H, W) or (1, 3, H, W) -> (3, H, W)."""
    image = numbers(name, image)
    return pictures(name, image[0] if image.shape[:-3] == (1,) else image, 3, "H", "W", give="one picture")


def _encode(image: Tensor) -> bytes:
    """Keep every pixel of small pictures, where the eye sees single ones; large ones would weigh megabytes."""
    if image[0].numel() <= 256**2:
        return webp(image, lossless=True)
    return webp(image, quality=92 if image[0].numel() <= 1024**2 else 75)
