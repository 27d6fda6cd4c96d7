"""Whole photographs: each face found, cut out, restored by any method, and put back where it was."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from facesr_lib import assets, images, messages, randomness
from facesr_lib.degrade import Downsample, check_pixels
from facesr_lib.devices import undisturbed
from facesr_lib.networks import parsing
from facesr_lib.prior import FacePrior
from facesr_lib.restoration import detection, tiles
from facesr_lib.restoration.alignment import align, ellipse, paste_, reach, side, spread, view
from facesr_lib.restoration.methods import METHODS, Method, check, shipped_prior

TURNED = 0.5  # a nose that is so far from the middle, in distances of the eyes, belongs to a profile
SHOWN = 0.8  # of a face; less is one that the border cuts
SMALLEST = 32  # pixels of an FFHQ crop, whose face is half as wide
LARGEST = 1024  # side of the faces that methods for any picture make
PARSER = "parsing-128"
UNCHOSEN = "not chosen"
OUTSIDE = tuple(map(parsing.CLASSES.index, ("background", "hat", "necklace", "neck", "cloth")))


@dataclass
class PhotoFace:
    """What became of a face."""

    number: int  # from 1 on, from left to right
    found: detection.Found  # box, landmarks, and who found them
    size: float  # side of its FFHQ crop in pixels of the photograph; the face itself is about half as wide
    transform: Tensor  # (2, 3), from `alignment.align`
    restored: bool = False
    note: str = ""  # why it was left as it is, or what is to be said of the result
    residual: float = float("nan")  # root mean square, in grey levels of 255: the result made small less what was given
    mask: str = ""  # by what it was pasted: "parsing" or "ellipse"
    before: Tensor = field(default_factory=lambda: torch.empty(0), repr=False)  # (3, S, S), in the enlarged photograph
    after: Tensor = field(default_factory=lambda: torch.empty(0), repr=False)  # cut out alike; empty where it was left


@dataclass
class RestoredPhoto:
    """A photograph with restored faces."""

    image: Tensor  # (3, scale · H, scale · W) in [0, 1]
    faces: list[PhotoFace]  # all that were found, from left to right
    interrupted: bool = False  # by Ctrl-C; faces that were done are in ``image``, the others are as they were


@dataclass(frozen=True)
class PhotoChoices:
    """What is done to a photograph, whatever the method; a ``ValueError`` says what cannot be."""

    scale: int = 2  # how much larger the result is; a method without a scale of its own enlarges faces as much
    detector: str = "auto"  # see `detection.find`
    boxes: Sequence[Sequence[float]] | None = None  # the faces, found by hand; see there
    only: Collection[int] | None = None  # numbers of faces, from 1 on and from the left, that alone are restored
    leave: Collection[int] = ()  # and of those that are not
    strength: float = 1.0  # from 0, the photograph itself, to 1
    background: str = "bicubic"  # what enlarges the photograph: a name in `METHODS` that takes any picture
    smallest: float | None = None  # side of the smallest FFHQ crop that is restored, in the photograph's pixels
    grain: bool = False  # whether a restored face is given the photograph's noise
    seed: int = 0  # every face starts as it would alone

    def __post_init__(self) -> None:  # noqa: D105
        messages.choose(self.detector, ("auto", *detection.DETECTORS), "detector")
        detection.by_hand(() if self.boxes is None else self.boxes)
        messages.check("scale", self.scale, int, at_least=1)
        messages.check("strength", self.strength, at_least=0, at_most=1)
        messages.check("seed", self.seed, int, at_least=0)
        messages.check("smallest", 0 if self.smallest is None else self.smallest, at_least=0)
        for name, numbers in {"only": self.only, "leave": self.leave}.items():
            listed = isinstance(numbers, Collection | None)
            if not listed or not all(messages.is_number(n, int) and n > 0 for n in numbers or ()):
                raise ValueError(f"{name} is a list of numbers of faces, such as [3, 5], from 1 on; got {numbers!r}.")
        _of_any_picture(self.background)

    @classmethod
    def among(cls, options: dict[str, Any]) -> tuple[PhotoChoices, dict[str, Any]]:
        """Tell them from a method's own options."""
        mine = options.keys() & {each.name for each in fields(cls)}
        rest = {name: value for name, value in options.items() if name not in mine}
        return cls(**{name: options[name] for name in mine}), rest


@undisturbed()
def restore_photo(
    image: Tensor,
    method: str = "esrgan",
    scale: int = 2,
    *,
    faces: Sequence[detection.Found] | None = None,
    prior: FacePrior | None = None,
    progress: bool = True,
    **options: Any,
) -> RestoredPhoto:
    """Restore the faces of a photograph and enlarge the rest.

    A restored face takes its colours from the photograph and gives its detail: the photograph's low frequencies stay,
    so that nothing jumps at the mask's border. A grey photograph stays grey.

    Parameters
    ----------
    image : (3, H, W)
        In [0, 1].
    method : str
        A name in `METHODS`. A face is made as small as the method wants it. Default: the one that does no
        harm. On poor faces ESRGAN comes as near to the truth as plain enlargement does and looks more natural; the
        networks for faces that were measured are farther away, to a face recogniser at least (``data/parsing-128.md``).
    faces : sequence of Found, optional
        Default: `detection.find`'s.
    prior : FacePrior, optional
        Default: the shipped one.
    progress : bool
        Whether bars count the background's tiles and the faces.
    scale, **options
        `PhotoChoices`, and the method's own. By default a crop is restored from 32 pixels on, or from what the method
        takes if that is less: of a smaller face every method invents the most.

    Raises
    ------
    ValueError
        As `detection.find`, `PhotoChoices`, `methods.check` and the method; ``image`` is no picture; or, as
        `detection.NoSuchFace`, ``only`` or ``leave`` names none.
    """
    asked, options = PhotoChoices.among({"scale": scale} | options)
    _, height, width = images.check_single(image).shape
    tiles.require_room(height, width, scale)
    image = check_pixels(image[None])[0].detach().float().cpu()
    image = image if image.min() >= 0 and image.max() <= 1 else image.clamp(0, 1)  # copied only where it has to be
    how, device = check(method, options, prior), "cpu" if prior is None else prior.device
    smallest = least(how, asked, prior)
    options = ({"progress": False} if "progress" in how.options else {}) | options
    found = detection.find(image, detector=asked.detector, boxes=asked.boxes) if faces is None else faces
    if not isinstance(found, Iterable) or not all(isinstance(face, detection.Found) for face in found):
        raise ValueError("faces are what detection.find gives; of boxes it makes them: find(image, boxes=…).")
    result = [_face(number, one, image) for number, one in enumerate(found, start=1)]
    for number in [*(asked.only or ()), *asked.leave]:
        if number not in range(1, len(result) + 1):
            there = f"they are numbered from 1 to {len(result)}" if result else "none was found"
            raise detection.NoSuchFace(f"there is no face {number} in this photograph: {there}.")
    for face in result:
        face.note = _reason(face, image, smallest)
        if face.number in asked.leave or (asked.only is not None and face.number not in asked.only):
            face.note = UNCHOSEN
    grey = float((image.amax(0) - image.amin(0)).max()) < 1.5 / 255
    canvas = enlarged(image, asked.background, scale, progress)
    if grey and scale > 1 and METHODS[asked.background].weights:  # a network draws colours where none are
        canvas = _grey(canvas)
    interrupted = False
    try:  # of faces that overlap, the larger is in front
        for face in result:
            face.before = view(canvas, face.transform, min(256, max(1, round(scale * face.size))))
        chosen = sorted((face for face in result if not face.note), key=lambda face: face.size)
        for face in tqdm(chosen, desc="faces", disable=not progress):
            big, small = _sides(how, face.size, scale, prior)
            operator = how.operator(big // small)
            lowres = operator(view(image, face.transform, big)[None].to(device)).clamp(0, 1)
            restored = how(lowres, operator, prior=prior, seed=[asked.seed], **options)
            if restored.interrupted:
                raise KeyboardInterrupt
            mask, masked_by = face_mask(restored.image[0].cpu())
            new = _with_colours_of(view(canvas, face.transform, big), restored.image[0].cpu(), mask, grey)
            length = max(1, round(scale * face.size))
            if big >= 0.75 * length:  # what is finer than the crop's pixels, such as noise, is replaced as well
                new, mask = _resized(new, min(big, length), 2 * length), _resized(mask[None], 2 * length)[0]
            residual = float(255 * restored.residual)
            within = reach(face.transform, *image.shape[1:])
            rows, columns = (slice(scale * part.start, scale * part.stop) for part in within)
            kept = canvas[:, rows, columns].clone()
            try:
                paste_(canvas, new, face.transform, asked.strength * mask)
                if asked.grain:
                    _add_grain(canvas, image, face.transform, asked.strength * mask, asked.seed)
                face.after = view(canvas, face.transform, face.before.shape[-1])
                face.residual, face.mask = residual, masked_by
                face.note, face.restored = _remark(face.size, small, big, length), True
            finally:
                if not face.restored:  # no face is left half pasted
                    canvas[:, rows, columns] = kept
    except KeyboardInterrupt:
        interrupted = True
    return RestoredPhoto(canvas, result, interrupted)


def least(how: Method, asked: PhotoChoices, prior: FacePrior | None) -> float:
    """Side of the smallest FFHQ crop that is restored; where nobody says so, the method has a say."""
    if asked.smallest is not None:
        return asked.smallest
    return SMALLEST if how.pictures else min(SMALLEST, _sides(how, SMALLEST, asked.scale, prior)[1])


def _of_any_picture(background: str) -> Method:
    how = check(background)
    if not how.pictures:
        able = ", ".join(name for name, each in METHODS.items() if each.pictures)
        raise ValueError(f"{background} restores faces and no backgrounds: choose one of {able}.")
    return how


def enlarged(image: Tensor, method: str, scale: int, progress: bool = False) -> Tensor:
    """Enlarge a photograph (3, H, W) by a method that takes any picture, tile by tile: (3, scale · H, scale · W)."""
    how = _of_any_picture(method)
    if scale == 1:
        return image.clone()
    tile, overlap = how.options.get("tile", 256), how.options.get("overlap", 16)
    uncut = {"tile": tile + 2 * overlap} if "tile" in how.options else {}  # what is a tile already

    def larger(part: Tensor) -> Tensor:
        return how(part, Downsample(scale), progress=False, **uncut).image

    return tiles.enlarge(larger, image[None], scale, tile=tile, overlap=overlap, progress=progress)[0]


def _face(number: int, found: detection.Found, image: Tensor) -> PhotoFace:
    _, transform = align(image, found.points, 1)
    return PhotoFace(number, found, side(transform, *image.shape[1:]), transform)


def _sides(how: Method, size: float, scale: int, prior: FacePrior | None) -> tuple[int, int]:
    """Sides of a method's result and of what it is given, for a face whose crop is so large."""
    factor = how.scale or scale
    if how.pictures:
        small = max(1, round(min(size * scale, LARGEST) / factor))
        return small * factor, small
    big = how.resolution or (prior or shipped_prior()).resolution
    if big % factor:
        drawn = f"the method draws faces of {big}×{big}"
        raise ValueError(f"{drawn}, which cannot be made {factor} times smaller: choose another scale.")
    return big, big // factor


def _reason(face: PhotoFace, image: Tensor, smallest: float) -> str:
    """Why a face is left as it is, or nothing."""
    if face.found.inside(*image.shape[1:]) < SHOWN:
        return "left as it is: the border cuts it"
    if face.size < smallest:
        return f"left as it is: its crop is {face.size:.0f} pixels wide, less than {smallest:g}"
    if face.found.turned > TURNED:
        return "left as it is: it is turned away"
    return ""


def _remark(size: float, small: int, big: int, length: int) -> str:
    """What is to be said of a result."""
    remarks = []
    if size > 2 * small:
        remarks.append(f"made {size / small:.1f} times smaller for the method, which invents as much")
    if big < 0.75 * length:
        remarks.append(f"drawn at {big}×{big} and shown at {length}×{length}")
    return "; ".join(remarks)


def _grey(image: Tensor) -> Tensor:
    luma = torch.einsum("chw,c->hw", image, torch.tensor([0.299, 0.587, 0.114]))
    return luma.expand(3, -1, -1).contiguous()


def _with_colours_of(before: Tensor, restored: Tensor, mask: Tensor, grey: bool) -> Tensor:
    """A restored face whose low frequencies, and with them its colours, are the photograph's.

    And so is its mean along the mask's border: there is no step.
    """
    restored = _grey(restored) if grey else restored
    size = restored.shape[-1]
    sigma = size / 12
    width = min(2 * round(3 * sigma) + 1, 2 * ((size - 1) // 2) + 1)
    change = restored + _blurred(before - restored, width, sigma) - before
    border = ((mask > 0.25) & (mask < 0.75)).float()
    return before + change - (change * border).sum((1, 2), keepdim=True) / border.sum().clamp_min(1)


def _blurred(x: Tensor, width: int, sigma: float) -> Tensor:
    from torchvision.transforms.functional import gaussian_blur  # takes seconds

    return gaussian_blur(x, [width, width], [sigma, sigma])


def _resized(x: Tensor, *sizes: int) -> Tensor:
    """A square (C, S, S), resized to one size after the other."""
    for size in sizes:
        weight = images.resize_matrix(x.shape[-1], size)
        x = weight @ x @ weight.T
    return x.clamp(0, 1)


@torch.no_grad()
def face_mask(face: Tensor) -> tuple[Tensor, str]:
    """Where a restored face (3, S, S) is pasted, softly: (S, S), and what said so."""
    size = face.shape[-1]
    try:
        network = detection.once(parsing.load, assets.checked(PARSER))
    except assets.AssetMissing:
        return ellipse(size), "ellipse"
    full = network.sizes["size"]
    logits, _ = network(images.resize(face[None], (full, full)).clamp(0, 1))
    inside = ~torch.isin(logits.argmax(1, keepdim=True), torch.tensor(OUTSIDE))  # (1, 1, 128, 128)
    if (inside[0, 0] & (ellipse(full) > 0.5)).sum() < 0.5 * (ellipse(full) > 0.5).sum():  # it saw hardly a face
        return ellipse(size), "ellipse"
    soft = _blurred(F.pad(inside.float(), (12,) * 4), 25, 4.0)[:, :, 12:-12, 12:-12]
    soft = _resized(soft[0], size)[0]
    edge = torch.minimum(torch.arange(size) + 0.5, size - torch.arange(size) - 0.5) / size
    fade = (torch.minimum(edge, edge[:, None]) / 0.1).clamp(0, 1)
    return soft * fade * fade * (3 - 2 * fade), "parsing"


def _add_grain(canvas: Tensor, image: Tensor, transform: Tensor, mask: Tensor, seed: int) -> None:
    """Give a restored face the noise that its place in the photograph had and now lacks; in place."""
    scale = canvas.shape[1] // image.shape[1]
    weight, rows, columns = spread(mask[None], transform, *image.shape[1:])
    at = slice(scale * rows.start, scale * rows.stop), slice(scale * columns.start, scale * columns.stop)
    old, new = image[:, rows, columns], canvas[:, at[0], at[1]]
    if min(old.shape[1:]) < 3:
        return
    lost = noise_level(old).square() - noise_level(images.resize(new[None], (old.shape[1], old.shape[2]))[0]).square()
    field = randomness.normal(randomness.generators([seed], 1), 1, *old.shape[1:])[0]
    grains = (lost.clamp_min(0).sqrt() * weight * field).expand(3, -1, -1)
    canvas[:, at[0], at[1]] = (new + Downsample(scale).upsample(grains[None])[0]).clamp(0, 1)


def noise_level(image: Tensor) -> Tensor:
    """Standard deviation of white noise in a picture (3, H, W), after Immerkær 1996."""
    kernel = image.new_tensor([[1.0, -2, 1], [-2, 4, -2], [1, -2, 1]])
    return F.conv2d(image.mean(0)[None, None], kernel[None, None]).abs().median() / (6 * 0.6745)
