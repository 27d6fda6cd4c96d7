"""Things in front of faces: sunglasses, a mask, a hand; simple shapes, put where the landmarks are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from facesr_lib.degrade.downsample import check_pixels
from facesr_lib.devices import in_full
from facesr_lib.messages import check_tensors, choose

THINGS = ("sunglasses", "mask", "hand")


class Head:
    """Where a face is and how it is held: lengths are in distances of the eyes, right and down are the head's.

    Parameters
    ----------
    points : (N, 68, 2)
        Landmarks in pixels, in iBUG's order.
    side : int
        Of the pictures.
    """

    def __init__(self, points: Tensor, side: int):
        at = torch.arange(side, device=points.device, dtype=points.dtype)
        self._pixels = torch.stack(torch.meshgrid(at, at, indexing="xy"), 2)  # (S, S, 2): x and y of each
        self.eyes = points[:, 36:42].mean(1), points[:, 42:48].mean(1)  # (N, 2) each
        self.mouth = (points[:, 33] + points[:, 8]) / 2  # between nose and chin
        across = self.eyes[1] - self.eyes[0]
        self.unit = across.norm(dim=1)[:, None]  # (N, 1)
        self._right = across / self.unit  # (N, 2)
        self._down = torch.stack([-self._right[:, 1], self._right[:, 0]], 1)

    def move(self, place: Tensor, right: float, down: float) -> Tensor:
        """(N, 2) → (N, 2), in pixels."""
        return place + self.unit * (right * self._right + down * self._down)

    def blob(self, centre: Tensor, wide: float, high: float, turn: float = 0.0, power: float = 3.0) -> Tensor:
        """How far a rounded shape of these half-axes, sloping by ``turn``, covers each pixel: (N, S, S) in [0, 1]."""
        axes = torch.stack([self._right + turn * self._down, self._down - turn * self._right], 1) / (1 + turn**2) ** 0.5
        at = torch.einsum("nhwk,nik->nihw", self._pixels - centre[:, None, None], axes) / self.unit[:, :, None, None]
        reach = ((at[:, 0] / wide).abs() ** power + (at[:, 1] / high).abs() ** power) ** (1 / power)
        return ((1 - reach) * min(wide, high) * self.unit[:, :, None] + 0.5).clamp(0, 1)


def paint(face: Tensor, shapes: Sequence[Tensor], colour: Tensor | Sequence[float]) -> Tensor:
    """Faces (N, 3, S, S) with shapes (N, S, S) on them, in one colour, (3,), or one for each face, (N, 3)."""
    cover = torch.stack([*shapes]).amax(0)[:, None]
    return face + cover * (torch.as_tensor(colour, device=face.device).view(-1, 3, 1, 1) - face)


@in_full()
def hide(face: Tensor, points: Tensor, thing: str) -> tuple[Tensor, Tensor]:
    """Put a thing in front of faces.

    Parameters
    ----------
    face : (N, 3, S, S)
        In [0, 1].
    points : (N, 68, 2)
        Their landmarks in pixels.
    thing : str
        Of `THINGS`.

    Returns
    -------
    face : (N, 3, S, S)
    cover : (N, S, S)
        How far each pixel is hidden, in [0, 1].
    """
    choose(thing, THINGS, "thing to hide a face")
    check_tensors("landmarks", f"({len(check_pixels(face))}, 68, 2)", points)
    head = Head(points, face.shape[3])
    if thing == "sunglasses":
        shapes = [head.blob(head.move(eye, 0, 0.05), 0.42, 0.31) for eye in head.eyes]
        shapes += [head.blob(head.move((head.eyes[0] + head.eyes[1]) / 2, 0, -0.1), 1.0, 0.06, power=6)]
        layers = [(shapes, face.new_tensor([0.06, 0.06, 0.07]))]
    elif thing == "mask":
        folds = [head.blob(head.move(head.mouth, 0, down), 0.6, 0.025) for down in (-0.22, 0.0, 0.22)]
        layers = [([head.blob(head.mouth, 0.85, 0.62)], face.new_tensor([0.6, 0.76, 0.85]))]
        layers += [(folds, face.new_tensor([0.5, 0.66, 0.76]))]
    else:
        cheek = points[:, 29].round().long().clamp(0, face.shape[3] - 1)
        skin = 0.85 * face[torch.arange(len(face)), :, cheek[:, 1], cheek[:, 0]]  # (N, 3)
        fingers = [head.move(head.mouth, 0.25 - 0.04 * k, 0.22 * k - 0.33) for k in range(4)]
        layers = [([head.blob(finger, 0.93, 0.135, turn=-0.15) for finger in fingers], 0.6 * skin)]
        layers += [([head.blob(finger, 0.9, 0.105, turn=-0.15) for finger in fingers], skin)]
    cover = torch.stack(layers[0][0]).amax(0)
    for shapes, colour in layers:
        face = paint(face, [shape * (cover > 0) for shape in shapes], colour)  # nothing beyond the thing's rim
    return face, cover
