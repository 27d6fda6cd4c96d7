"""Faces in photographs: where they are, and the points by which they are cut out."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from facesr_lib import assets, images
from facesr_lib.degrade import check_pixels
from facesr_lib.devices import undisturbed
from facesr_lib.messages import choose
from facesr_lib.metrics import recognition
from facesr_lib.networks import landmarks, yunet
from facesr_lib.restoration.alignment import align, ellipse, place, quad

SIDES = (2048, 640)  # a photograph is looked at so large and so small: tiny faces, and those that fill it
LANDMARKS = "landmarks"
# eyes, nose and mouth corners of the mean training face, and dlib's box of it, as shares of FFHQ's crop
MEAN = torch.tensor([[0.377, 0.476], [0.623, 0.476], [0.5, 0.613], [0.384, 0.731], [0.616, 0.731]])
_BOX = torch.tensor(recognition.BOX).view(2, 2) / recognition.SIDE


@dataclass(frozen=True)
class Found:
    """A face in a photograph."""

    box: tuple[float, float, float, float]  # left, top, width, height, in pixels
    points: Tensor  # (68, 2) or (5, 2), for `alignment.align`
    score: float  # how certain the detector is, on its own scale
    detector: str  # what found the box
    landmarks: str  # what found the points

    @property
    def turned(self) -> float:
        """How far the nose is from the middle between the eyes, as a share of their distance: a profile has 0.5."""
        p = self.points
        left, right, nose = p[:3] if len(p) == 5 else (p[36:42].mean(0), p[42:48].mean(0), p[30])
        across = right - left
        return float(((nose - (left + right) / 2) @ across / across.square().sum()).abs())

    def inside(self, height: float, width: float) -> float:
        """What share of the face lies in a photograph of this size: of an oval in FFHQ's crop, from forehead to chin.

        The points say where a face goes on; a detector's box may end where the photograph does.
        """
        top_left, bottom_left, _, top_right = quad(self.points)
        at = ((ellipse(33) == 1).nonzero().flip(1).double() + 0.5) / 33  # (K, 2), x and y as shares of the crop
        places = top_left + at @ torch.stack([top_right - top_left, bottom_left - top_left])
        return float(((places >= 0) & (places < torch.tensor([width, height]))).all(1).double().mean())


class NoSuchFace(ValueError):
    """A number or a box names a face that is not in the photograph."""


@undisturbed()
def find(
    image: Tensor, *, detector: str = "auto", boxes: Sequence[Sequence[float]] | None = None, points: str = "auto"
) -> list[Found]:
    """Find the faces of a photograph, also of one that lies on its side or stands on its head.

    A ``ValueError`` says that no detector is on this machine and no boxes are given, or not the one that is asked for,
    or that a box is none, or, as `NoSuchFace`, that it lies outside of the photograph.

    Parameters
    ----------
    image : (3, H, W)
        In [0, 1].
    detector : {"auto", "yunet", "dlib"}
        "auto": the first that this machine has.
    boxes : sequence of (left, top, width, height), optional
        The faces, found by hand.
    points : {"auto", "dlib", "landmarks", "five"}
        Who finds 68 landmarks: dlib, or our network; or the detector's own five points are taken. "auto": the first
        that this machine has.

    Returns
    -------
    list of Found
        From left to right.
    """
    height, width = check_pixels(images.check_single(image)[None]).shape[2:]
    if boxes is not None:
        found = by_hand(boxes, height, width)
    else:
        name, look = _available(DETECTORS, detector, "detector")
        # a photograph that lies on its side shows more faces, and surer ones, when it is turned
        small = _shrunk(image, SIDES[1] / max(height, width))
        sure = [sum(face.score for face in look(small.rot90(n, (1, 2)), name, SIDES[1:])) for n in range(4)]
        quarter = sure.index(max(sure)) if max(sure) > 1.2 * sure[0] else 0
        turned = image.rot90(quarter, (1, 2)) if quarter else image
        found = [_turned_back(face, quarter, *turned.shape[1:]) for face in look(turned, name, SIDES)]
    name, locate = _available(LOCATORS, points, "way to landmarks")
    found = [_located(image, face, name, locate) if locate else face for face in found]
    return sorted(found, key=lambda face: face.box[0] + face.box[2] / 2)


Look = Callable[[Tensor, str, Sequence[int]], list[Found]]
"""A photograph, the detector's name, and how large to look at it, on its longest side → its faces."""


def _yunet() -> Look:
    network = once(yunet.load, assets.checked("yunet"))

    def look(image: Tensor, name: str, sides: Sequence[int]) -> list[Found]:
        rows = []
        longest = max(image.shape[1:])
        for scale in sorted({min(1.0, side / longest) for side in sides}):
            seen = network.detect(_shrunk(image, scale).float().cpu())
            seen[:, :14] /= scale
            rows.append(seen)
        faces = yunet.distinct(torch.cat(rows), 0.3)
        return [Found(tuple(f[:4].tolist()), f[4:14].view(5, 2), f[14].item(), name, "five") for f in faces]

    return look


def _dlib() -> Look:
    recognition.model_files()  # told where the extra is not installed
    import dlib

    detector: Any = dlib.get_frontal_face_detector()

    def look(image: Tensor, name: str, sides: Sequence[int]) -> list[Found]:
        scale = min(1.0, max(sides) / max(image.shape[1:]))
        pixels = images.to_uint8(_shrunk(image, scale)[None])[0]
        boxes, scores, _ = detector.run(pixels, int(scale == 1))  # once more at twice the size
        found = []
        for box, score in zip(boxes, scores, strict=True):
            at = (box.left() / scale, box.top() / scale, box.width() / scale, box.height() / scale)
            found.append(Found(at, _guessed(at), float(score), name, "guessed from the box"))
        return found

    return look


def _ours() -> Callable[[Tensor, Found], Tensor]:
    network = once(landmarks.load, assets.checked(LANDMARKS))

    @torch.no_grad()
    def locate(image: Tensor, face: Found) -> Tensor:
        """68 points, (68, 2): the mean of what the network says of the face and of its mirror image."""
        crop, transform = align(image, face.points, 64)
        crop = crop.float().cpu()
        seen, mirrored = (landmarks.peaks(network(x[None]))[0] for x in (crop, crop.flip(2)))
        mirrored = mirrored[landmarks.MIRRORED]
        mirrored[:, 0] = 63 - mirrored[:, 0]
        return place((seen + mirrored + 1) / 64 - 1, transform, *image.shape[1:])

    return locate


def _dlibs() -> Callable[[Tensor, Found], Tensor]:
    model = recognition.model_files()[0]
    import dlib

    predictor = once(dlib.shape_predictor, str(model))
    box = dlib.rectangle(*recognition.BOX)

    def locate(image: Tensor, face: Found) -> Tensor:
        crop, transform = align(image, face.points, recognition.SIDE)
        shape = predictor(images.to_uint8(crop[None])[0], box)
        points = torch.tensor([(point.x, point.y) for point in shape.parts()])
        return place((points + 0.5) * (2 / recognition.SIDE) - 1, transform, *image.shape[1:])

    return locate


DETECTORS: dict[str, Callable[[], Any]] = {"yunet": _yunet, "dlib": _dlib}
"""Name → what looks for faces; the first that this machine has is taken."""
LOCATORS: dict[str, Callable[[], Any]] = {"dlib": _dlibs, "landmarks": _ours, "five": lambda: None}
"""Name → what finds landmarks in a face that is roughly aligned."""


def _available(known: dict[str, Callable[[], Any]], name: str, kind: str) -> tuple[str, Any]:
    choose(name, ("auto", *known), kind)
    missing = []
    for each in known if name == "auto" else [name]:
        try:
            return each, known[each]()
        except assets.AssetMissing as error:
            missing.append(f"{each}: {error}")
    way = "give the faces as boxes, or cut them out yourself (--aligned)"
    raise ValueError(f"no {kind} is on this machine: {' '.join(missing)} Or {way}.")


@cache
def once(load: Callable[..., Any], path: Path | str) -> Any:
    """What ``load`` makes of a file, which is read once."""
    return load(path)


def _located(image: Tensor, face: Found, name: str, locate: Callable[[Tensor, Found], Tensor]) -> Found:
    """A face with 68 landmarks, found twice from a rough start; not believed where they stray far from five points."""
    points = locate(image, face)
    if face.landmarks != "five":
        points = locate(image, replace(face, points=points))
    elif (quad(points) - (five := quad(face.points))).norm(dim=1).mean() > 0.15 * (five[0] - five[3]).norm():
        return face
    return replace(face, points=points, landmarks=name)


def by_hand(boxes: Sequence[Sequence[float]], height: float = math.inf, width: float = math.inf) -> list[Found]:
    """Faces in boxes, left, top, width and height, of a photograph of this size; errors as `find`'s."""
    if not isinstance(boxes, Collection):
        raise ValueError(f"boxes are a list of boxes, one for each face; got {boxes!r}.")
    found = []
    for box in boxes:
        try:
            numbers = tuple(float(n) for n in box)
        except (TypeError, ValueError):
            numbers = ()
        if len(numbers) != 4 or not all(map(math.isfinite, numbers)) or min(numbers[2:]) <= 0:
            raise ValueError(f"a box is left, top, width and height in pixels, the last two above 0; got {box!r}.")
        found.append(Found(numbers, _guessed(numbers), 1.0, "by hand", "guessed from the box"))
        if not found[-1].inside(height, width) > 0:
            size = "and pixels count from 0, the upper left corner" if height == math.inf else f"of {width}×{height}"
            raise NoSuchFace(f"the box {tuple(box)} lies outside of the photograph, {size}.")
    return found


def _guessed(box: tuple[float, ...]) -> Tensor:
    """Five points of the mean face in a box."""
    left, top, width, height = box
    return (MEAN - _BOX[0]) / (_BOX[1] - _BOX[0]) * torch.tensor([width, height]) + torch.tensor([left, top])


def _turned_back(face: Found, quarter: int, height: int, width: int) -> Found:
    """Undo `Tensor.rot90`: a face of a turned picture of this size, in the picture as it was."""
    left, top, w, h = face.box
    corners, points = torch.tensor([[left, top], [left + w, top + h]]), face.points
    for _ in range(quarter):
        # (x, y) of the turned picture was (W − 1 − y, x), W being its height
        corners = torch.stack([height - corners[:, 1], corners[:, 0]], 1)
        points = torch.stack([height - 1 - points[:, 1], points[:, 0]], 1)
        height, width = width, height
    low, high = corners.min(0).values, corners.max(0).values
    return replace(face, box=(*low.tolist(), *(high - low).tolist()), points=points)


def _shrunk(image: Tensor, scale: float) -> Tensor:
    """A photograph made so much smaller; never larger."""
    if scale >= 1:
        return image
    size = [max(1, round(scale * n)) for n in image.shape[1:]]
    return F.interpolate(image[None], size=size, mode="bilinear", antialias=True)[0]
