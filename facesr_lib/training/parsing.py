"""Train a parsing network on faces that are made poor online (Chen et al. 2021, appendix A)."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Adam

from facesr_lib import assets, data, files
from facesr_lib.degrade import CameraPipeline
from facesr_lib.networks.parsing import CLASSES, UNDECIDED, ParsingNetwork, save
from facesr_lib.training import celebamask
from facesr_lib.training.adversarial import follow, with_own_statistics
from facesr_lib.training.base import Training
from facesr_lib.training.config import Checked, within
from facesr_lib.training.faces import Faces

NETWORK = "parsing.safetensors"

_MIRRORED = {
    name: f"{'r' if name[0] == 'l' else 'l'}{name[1:]}" for name in CLASSES if name.endswith(("eye", "brow", "ear"))
}
MIRRORED = torch.tensor([CLASSES.index(_MIRRORED.get(name, name)) for name in CLASSES])
"""Which class each becomes in the mirror: left and right are the person's own."""


@dataclass(frozen=True)
class Config(Checked):
    """Every choice of a training; of the paper's are the loss, Adam's rate, and the bottleneck (32²) and its depth.

    The paper's network sees 512² in batches of 8 and has ``width=64, max_width=256``.
    """

    size: int = within(128, at_least=2)
    bottleneck: int = within(32, at_least=2)
    width: int = within(32, at_least=1)
    max_width: int = within(96, at_least=1)
    depth: int = within(10, at_least=0)
    """Of the network, see `ParsingNetwork`."""
    lr: float = within(2e-4, at_least=0)
    """Adam's learning rate, with β = (0.9, 0.999)."""
    pixel: int = within(1, among=(0, 1, 2))
    """The pixel loss beside cross-entropy. 1: absolute differences, as in the official code; 2: squared ones, as in the
    text; 0: none, the network learns from labels alone."""
    rotation: float = within(10.0, at_least=0, at_most=180)
    scale: float = within(0.1, at_least=0, at_most=0.9)
    shift: float = within(0.05, at_least=0, at_most=0.5)
    """Each face is turned by up to so many degrees, made larger or smaller by up to this share, and moved by up to this
    share of its side; mirrored with probability one half. The official code does nothing of the kind, and has thirty
    times as many faces."""
    ema_images: int = within(10_000, at_least=0)
    """Half-life in images of the moving average that is written; 0: the network itself."""
    batch: int = within(32, at_least=1)

    def network(self) -> ParsingNetwork:
        """A new network of these sizes."""
        sizes = ("size", "bottleneck", "width", "max_width", "depth")
        return ParsingNetwork(**{name: getattr(self, name) for name in sizes})


def parsing_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of each image's decided pixels, 0 where none is: L_parse of eq. 11.

    Logits (N, C, H, W) and labels (N, H, W), 0 to C − 1 or 255, which is undecided → (N,).
    """
    labels = labels.long()
    surprise = F.cross_entropy(logits, labels, ignore_index=UNDECIDED, reduction="none")  # (N, H, W), 0 if undecided
    return surprise.sum((1, 2)) / (labels != UNDECIDED).sum((1, 2)).clamp_min(1)


def pixel_loss(image: Tensor, target: Tensor, power: int = 1) -> Tensor:
    """Mean of |Î_H − I_H|^power on the paper's scale, pixels in [−1, 1]: L_pix of eq. 11, (N, 3, H, W) → (N,)."""
    return (2 * (image - target)).abs().pow(power).mean((1, 2, 3))


class ParsingTraining(Training[Config]):
    """A parsing network in training.

    A ``ValueError`` says that the faces are of another size, or the labels are not theirs.

    Parameters
    ----------
    pixels : (M, S, S, 3)
        Faces, uint8, S a multiple of the network's size.
    masks : (M, S, S)
        Their labels, uint8: 0 to 18, or 255 for undecided.
    camera : CameraPipeline, optional
        What befalls the faces; its seed does not count.

    Attributes
    ----------
    live, average : ParsingNetwork
        What learns, and its moving average.
    """

    def __init__(
        self,
        pixels: np.ndarray,
        masks: np.ndarray,
        config: Config,
        camera: CameraPipeline | None = None,
        device: str = "cpu",
        bf16: bool = False,
    ):
        self._camera = camera or CameraPipeline()
        settings = asdict(replace(self._camera, seed=0))
        super().__init__(config, device, bf16, faces=pixels, labels=masks, camera=settings)
        self._faces = Faces(pixels, config.size, self.device)
        if masks.shape != pixels.shape[:3]:
            raise ValueError(f"{len(pixels)} faces need labels {pixels.shape[:3]}; got {masks.shape}.")
        check_classes(masks, "the labels")
        self._masks = torch.tensor(np.asarray(masks), device=self.device)
        self._mirrored = MIRRORED.to(self.device)
        with config.seeded():
            self.live = config.network()
        self.enlist(partial(Adam, lr=config.lr), "optimizer", network=self.live)
        self.average = self.parts["average"] = deepcopy(self.live).requires_grad_(False).eval()

    def step(self) -> dict[str, Tensor]:
        """One step on eq. 11, L_parse(Î_P, I_P) + L_pix(Î_H, I_H)."""
        faces, labels = self.faces()
        poor, target = self.poor(faces)
        logits, image = self.forward(self.live, poor.to(memory_format=torch.channels_last))
        parsing = parsing_loss(logits, labels).mean()
        pixel = pixel_loss(image, target, self._c.pixel or 1).mean()
        with self.turn(self.optimizers["network"]):
            (parsing + pixel if self._c.pixel else parsing).backward()
        self.images_seen += self.batch
        follow(self.average, self.live, self.batch, self._c.ema_images, self.images_seen)
        return {"parsing": parsing.detach(), "pixel": pixel.detach()}

    def faces(self) -> tuple[Tensor, Tensor]:
        """Faces (N, 3, R, R) in [0, 1], each moved at random, and their labels (N, R, R)."""
        c = self._c
        image, *put = self._faces.draw(self.share, self.random, c.rotation, c.scale, c.shift)
        index, placement, mirrored = (x.to(self.device) for x in put)
        # labels are never averaged: the nearest is taken, and nothing is decided outside
        grid = F.affine_grid(placement, [self.share, 1, c.size, c.size], align_corners=False)
        labels = self._masks[index][:, None].float() - UNDECIDED
        labels = (F.grid_sample(labels, grid, "nearest", align_corners=False)[:, 0] + UNDECIDED).long()
        turned = torch.where(labels == UNDECIDED, UNDECIDED, self._mirrored[labels.clamp_max(len(CLASSES) - 1)])
        return image, torch.where(mirrored[:, None, None], turned, labels)

    def poor(self, faces: Tensor) -> tuple[Tensor, Tensor]:
        """What befalls a batch of faces: poor ones and targets, both (N, 3, R, R)."""
        seeds = torch.randint(2**40, (len(faces),), generator=self.random).tolist()
        return replace(self._camera, seed=seeds)(faces)

    def network(self) -> ParsingNetwork:
        """The moving average, with batch statistics of its own."""
        if not self._c.ema_images:
            return deepcopy(self.average)
        faces = self._faces.first(256)
        poor, _ = replace(self._camera, seed=[*range(len(faces))])(faces)
        return with_own_statistics(self.average, poor.split(self.batch))

    def snapshot(self, folder: Path) -> None:
        """Write `network`: ``parsing.safetensors``, for `networks.parsing.load`."""
        save(self.network(), folder / NETWORK, self.about())


_WAY = "Give maps of class numbers, as PNG, never made smaller or larger by anything but the nearest pixel."


def check_classes(masks: np.ndarray, what: str) -> None:
    """Make sure that masks (…, H, W) hold classes, or 255 for undecided, and no means of classes.

    Else a ``ValueError`` names ``what`` and what is wrong. A mean of two classes can be the number of a third; it then
    lies, one pixel wide, between the two in the picture as in number. In the project's own maps at most one in twenty
    borders between classes more than 1 apart looks so, down to 16²; of means by whole factors and of interpolations at
    least one in five. What cannot be told: means of classes 1 apart, of maps with less than 200 such borders, and of
    boxes by a factor near 1, most of which hold a single pixel.
    """
    known = [*range(len(CLASSES)), UNDECIDED]
    foreign = [number for number in np.flatnonzero(np.bincount(masks.ravel(), minlength=256)) if number not in known]
    if foreign:
        raise ValueError(
            f"{what} hold {', '.join(map(str, foreign[:5]))}: classes are 0 to {len(CLASSES) - 1}, and {UNDECIDED} is "
            f"undecided. {_WAY}"
        )
    sample = masks[:: max(1, len(masks) // 64)] if masks.ndim > 2 else masks
    borders = between = 0
    for axis in (-2, -1):
        first, middle, last = (sample.take(range(k, sample.shape[axis] - 2 + k), axis) for k in range(3))
        low, high = np.minimum(first, last), np.maximum(first, last)
        border = (high < len(CLASSES)) & (high - low > 1)
        borders, between = borders + border.sum(), between + (border & (low < middle) & (middle < high)).sum()
    if borders >= 200 and between > 0.1 * borders:
        raise ValueError(
            f"{what} hold means of classes: at {between} of {borders} borders between two classes lies a pixel of a "
            f"class between them in number. {_WAY}"
        )


def labelled_faces(faces: str | Path, masks: str | Path, resolution: int) -> tuple[np.ndarray, np.ndarray]:
    """Read a folder of faces and one of label maps (PNG) of the same names, in the order of `data.pictures`.

    Pixels (M, R, R, 3), shrunk by means, and masks (M, R, R), shrunk to the nearest pixel; both uint8. Errors name a
    folder or a face's map that is missing, and a map that is not square, of a side that is no multiple of
    ``resolution``, or none of classes (`check_classes`).
    """
    faces, masks = files.expanded(faces), files.expanded(masks)
    paths = [masks / path.relative_to(faces).with_suffix(".png") for path in data.pictures(faces)]
    missing = [str(path.relative_to(masks)) for path in paths if not path.is_file()]
    if missing:
        raise FileNotFoundError(f"{len(missing)} faces have no label map in {masks}: {', '.join(missing[:3])}, ….")
    maps = np.empty((len(paths), resolution, resolution), np.uint8)
    for i, path in enumerate(paths):
        try:
            picture = Image.open(path)
            picture.load()
        except Exception as error:  # a decoder raises nearly anything on foreign bytes
            raise ValueError(f"{path} is no label map that can be read ({error}): copy or make it again.") from error
        width, height = picture.size
        if width != height or width % resolution or picture.mode not in ("P", "L"):
            raise ValueError(
                f"{path} is {width}×{height} ({picture.mode}); label maps are squares of one channel whose side is a "
                f"multiple of {resolution}."
            )
        whole, step = np.asarray(picture), width // resolution
        check_classes(whole, str(path))
        maps[i] = whole[step // 2 :: step, step // 2 :: step]
    return data.prepared(faces, resolution, skip_damaged=False), maps


def faces_and_labels(
    faces: str | Path = "faces-train", labels: str | Path | None = None, size: int = 128
) -> tuple[np.ndarray, np.ndarray]:
    """Read faces and their label maps for networks of this size.

    Parameters
    ----------
    faces : str or Path
        Registry name or folder; of CelebAMask-HQ, as it is released, the training split is read with its masks.
    labels : str or Path, optional
        A folder of label maps (`labelled_faces`), or what `data.parsing` reads. Default: the shipped ones.

    Returns
    -------
    pixels, masks : (M, S, S, 3), (M, S, S)
        uint8, S at least ``size``. Errors as of the functions that are named here.
    """
    place = assets.locate(faces)
    if labels is None and (place / celebamask.MASKS).is_dir():
        return celebamask.read(place, size)
    if labels is not None and files.expanded(labels).is_dir():
        return labelled_faces(place, labels, size)
    whole = data.FACE_SIDE if data.FACE_SIDE % size == 0 else size
    return data.prepared(place, whole, skip_damaged=False), data.parsing(faces, whole, labels)
