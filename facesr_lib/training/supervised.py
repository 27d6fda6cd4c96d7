"""Train the networks that progressive super-resolution is compared with, by one loop: VDSR, URDGN, FSRNet, FSRGAN.

`RECIPES` says what sets them apart. All see the same faces: 128² the progressive paper's way to 16².
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import ceil, inf
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_
from torch.optim import SGD, Optimizer, RMSprop

from facesr_lib import degrade, images, messages
from facesr_lib.losses import block_features
from facesr_lib.networks import checkpoints
from facesr_lib.networks import supervised as networks
from facesr_lib.training.base import Training
from facesr_lib.training.capture import Captured, Losses
from facesr_lib.training.config import Checked, within
from facesr_lib.training.faces import Faces
from facesr_lib.training.priors import Priors

SIDE = 128  # of the pictures that the networks make


@dataclass(frozen=True)
class Config(Checked):
    """Every choice that is not the paper's; what is stands in `RECIPES`."""

    width: float = within(1.0, at_least=1 / 64, at_most=8)
    """Of the network, as a share of the paper's."""
    images: int = within(90_000, at_least=1)
    """How many the training sees in all; schedules refer to it."""
    rate: float = within(1.0, at_least=0)
    """Learning rate, as a multiple of the paper's."""
    rotation: float = within(0.0, at_least=0, at_most=180)
    scale: float = within(0.0, at_least=0, at_most=0.9)
    shift: float = within(0.0, at_least=0, at_most=0.5)
    """Each face is turned by up to so many degrees, made larger or smaller by up to this share, and moved by up to this
    share of its side: "unaligned" faces. All are mirrored with probability one half."""
    sigma: float = within(2.0, above=0)
    """Width of the drawn heatmaps, in pixels of 64²."""


@dataclass
class Batch:
    """A batch: small, (N, 3, 16, 16), and true, (N, 3, 128, 128), in [0, 1]; maps, (N, 79, 64, 64), and how known."""

    small: Tensor
    true: Tensor
    maps: Tensor
    known: Tensor


Run = Callable[[Tensor], Any]
"""A network's answer, a tensor or several, in float32."""


def _vdsr(run: Run, faces: Batch) -> tuple[Losses, Tensor]:
    """Kim, Lee & Lee 2016: the squared error of the luminance, Σ (y − ŷ)²."""
    y = run(images.luma(networks.upsample(faces.small)))
    return {"pixel": (images.luma(faces.true) - y).square().sum()}, y


def _urdgn(run: Run, faces: Batch) -> tuple[Losses, Tensor]:
    """Yu & Porikli 2016: the mean squared error."""
    made = run(2 * faces.small - 1)
    return {"pixel": F.mse_loss(made, 2 * faces.true - 1)}, made


def _fsrnet(run: Run, faces: Batch) -> tuple[Losses, Tensor]:
    """Chen et al. 2018: squared errors of the coarse picture, the fine one and the priors, weights 1."""
    coarse, priors, fine = run(2 * networks.upsample(faces.small) - 1)
    true = 2 * faces.true - 1
    unlike = (priors - (2 * faces.maps - 1)).square() * faces.known
    return {"coarse": F.mse_loss(coarse, true), "fine": F.mse_loss(fine, true), "priors": unlike.mean()}, fine


@dataclass(frozen=True)
class Recipe:
    """How a paper trains its network."""

    losses: Callable[[Run, Batch], tuple[Losses, Tensor]]
    """Of the network on a batch, weighted; and the pictures that its discriminator judges."""
    optimizer: Callable[[Iterator[nn.Parameter]], Optimizer]
    lr: float
    schedule: Callable[[int, float, float], float] = lambda step, epoch, done: 1.0
    """What the learning rate is multiplied by: of the step, of the times that all faces were seen, and of the share of
    the training that is done."""
    clip: float = inf  # the gradient's largest norm
    priors: bool = False  # whether landmarks and parsing labels are asked for
    discriminator: Callable[[float], nn.Module] | None = None  # of a width
    adversarial: float = 0.0  # weight of the loss that comes with it, −log D
    balanced: bool = False  # whether it waits where it is too good, and the network where it is not good enough
    perceptual: float = 0.0
    """Weight of the squared difference of what an ImageNet network sees: `losses.block_features`' deepest maps."""
    replayed: bool = False
    """Whether a GPU may replay a step: its learning rate stays, and nothing in it depends on a value or is drawn."""


RECIPES = {
    "vdsr": Recipe(
        _vdsr,
        partial(SGD, momentum=0.9, weight_decay=1e-4),
        lr=3e-3,  # with the paper's 0.1, which was for scales 2 to 4, what it adds dies away
        schedule=lambda step, epoch, done: 0.1 ** int(3 * done),
        clip=0.4,
    ),
    "urdgn": Recipe(
        _urdgn,
        partial(RMSprop, alpha=0.9),
        lr=1e-3,
        schedule=lambda step, epoch, done: max(0.99**epoch, 1e-3) / (50 if step < 10 else 5 if step < 30 else 1),
        discriminator=networks.URDGNDiscriminator,
        adversarial=0.01,
        balanced=True,
    ),
    "fsrnet": Recipe(_fsrnet, RMSprop, lr=2.5e-4, priors=True, replayed=True),
    "fsrgan": Recipe(
        _fsrnet,
        RMSprop,
        lr=2.5e-4,
        priors=True,
        discriminator=networks.FSRGANDiscriminator,
        adversarial=1e-3,
        perceptual=0.1,  # the re-implementation's is on VGG16's fifth block
        replayed=True,
    ),
}


class SupervisedTraining(Training[Config]):
    """A network in training: a turn of its discriminator, if it has one, then its own.

    A ``ValueError`` says that there is no such network, the faces are of another size, the priors are missing or not
    theirs, or the training is to begin with another network or width; other errors are `losses.block_features`'.

    Parameters
    ----------
    name : str
        Of `RECIPES`.
    pixels : (M, S, S, 3)
        Faces, uint8, S a multiple of 128 (`data.prepared`).
    points : (M, 68, 2), optional
        Their landmarks, in pixels.
    labels : (M, S, S), optional
        Their parsing: CelebAMask-HQ's 19 classes, anything else is undecided, uint8.
    start : nn.Module, optional
        A network to begin with, such as FSRNet for FSRGAN (`networks.supervised.load`); default: a random one.

    Attributes
    ----------
    seen_by : str
        Whose features FSRGAN compares, as `losses.block_features` names it; "" for the others.
    """

    def __init__(
        self,
        name: str,
        pixels: np.ndarray,
        config: Config,
        *,
        points: Tensor | None = None,
        labels: np.ndarray | None = None,
        start: nn.Module | None = None,
        device: str = "cpu",
        bf16: bool = False,
    ):
        self._recipe = RECIPES[messages.choose(name, RECIPES, "supervised network")]
        self.seen_by = ""
        if self._recipe.perceptual:
            self.seen_by, self._maps = block_features()
        inputs: dict[str, Any] = {"network": name, "seen_by": self.seen_by, "start": start}
        super().__init__(config, device, bf16, **inputs, faces=pixels, landmarks=points, parsing=labels)
        self._faces, self._name = Faces(pixels, SIDE, self.device), name
        self.iterations = ceil(config.images / config.batch)
        self._smaller = degrade.halvings(3)
        if self._recipe.priors:
            if points is None or labels is None:
                need = f"give the faces' points, ({len(pixels)}, 68, 2), and labels, {pixels.shape[:3]}."
                raise ValueError(f"{name} learns priors as well: {need}")
            self._priors = Priors(points, labels, pixels, config.sigma, self.device)
        with config.seeded():
            self.network = networks.NETWORKS[name](config.width)
            self.discriminator = self._recipe.discriminator and self._recipe.discriminator(config.width)
        if start is not None:
            checkpoints.fill(self.network, start.state_dict(), "the network to begin with").train()
        judge = {} if self.discriminator is None else {"discriminator": self.discriminator}
        self.enlist(self._recipe.optimizer, "{}_optimizer", network=self.network, **judge)
        for group in self._groups():
            group["capturable"] = self._recipe.replayed and self.device.type == "cuda"
        self._learn = Captured(self.learn, self) if self._recipe.replayed else self._drawing

    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.optimizers.values() for group in optimizer.param_groups]

    def step(self) -> dict[str, Tensor]:
        """Let the discriminator learn, where there is one, then the network."""
        c, recipe, faces = self._c, self._recipe, self.faces()
        epoch, done = self.images_seen / len(self._faces), self.images_seen / c.images
        for group in self._groups():
            group["lr"] = c.rate * recipe.lr * recipe.schedule(self.images_seen // c.batch, epoch, done)
        losses = self._learn(faces.small, faces.true, faces.maps, faces.known)
        self.images_seen += c.batch
        return losses

    def _drawing(self, *faces: Tensor) -> Losses:
        """`learn`; dropout, which knows torch's numbers only, draws from this training's."""
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(int(torch.randint(2**31, (), generator=self.random)))
            return self.learn(*faces)

    def learn(self, *batch: Tensor) -> Losses:
        """All turns on one batch, the parts of `Batch`."""
        recipe, faces, learns = self._recipe, Batch(*batch), True
        judged: Losses = {}
        losses, made = recipe.losses(partial(self._run, self.network), faces)
        if self.discriminator is not None:
            judged, learns = self._discriminate(self.discriminator, 2 * faces.true - 1, made.detach())
        if learns:
            with self.turn(self.optimizers["network"], frozen=self.discriminator):
                if recipe.perceptual:
                    losses["perceptual"] = recipe.perceptual * self._unlike((made + 1) / 2, faces.true)
                total = torch.stack([*losses.values()]).sum()
                if self.discriminator is not None:
                    judgement = F.softplus(-self._run(self.discriminator, made)).mean()  # −log D(G(x))
                    total = total + recipe.adversarial * judgement
                total.backward()
                if recipe.clip < inf:
                    clip_grad_norm_(self.network.parameters(), recipe.clip)
        return {name: loss.detach() for name, loss in (losses | judged).items()}

    def _unlike(self, made: Tensor, true: Tensor) -> Tensor:
        """Mean squared difference of what an ImageNet network sees."""
        with torch.no_grad():
            target = self.forward(self._maps, true)[-1]
        return F.mse_loss(self.forward(self._maps, made)[-1], target)

    def _discriminate(self, discriminator: nn.Module, true: Tensor, made: Tensor) -> tuple[Losses, bool]:
        """D's turn on −log D(y) − log(1 − D(G(x))), and whether the network is to learn on this batch."""
        real, fake = self._run(discriminator, true), self._run(discriminator, made)
        losses = F.softplus(-real).mean(), F.softplus(fake).mean()
        judges = learns = True
        if self._recipe.balanced:
            lower, higher = sorted(torch.stack(losses).tolist())
            judges, learns = lower >= 0.3, higher <= 0.7
            judges, learns = judges or not learns, learns or not judges  # one of them has to
        if judges:
            with self.turn(self.optimizers["discriminator"]):
                torch.stack(losses).sum().backward()
        return dict(zip(("D real", "D fake"), losses, strict=True)), learns

    def _run(self, network: nn.Module, x: Tensor) -> Any:
        return self.forward(network, x.contiguous(memory_format=torch.channels_last))

    def faces(self) -> Batch:
        """Draw a batch."""
        c = self._c
        true, index, placement, mirrored = self._faces.draw(self.share, self.random, c.rotation, c.scale, c.shift)
        maps = known = true.new_zeros(0)
        if self._recipe.priors:
            maps, known = self._priors.maps(index, placement, mirrored)
        return Batch(self._smaller(true), true, maps, known)

    def snapshot(self, folder: Path) -> None:
        """Write the network, in half precision, and what it makes of eight faces: ``samples-<images>.png``."""
        about = {"network": self._name, "width": str(self._c.width)} | self.about()
        checkpoints.save(self.network, folder / f"{self._name}.safetensors", about)
        true = self._faces.first(8)
        small = self._smaller(true)
        with torch.no_grad():
            made = self.network.eval().enlarge(small)
        self.network.train()
        rows = torch.cat([F.interpolate(small, scale_factor=networks.SCALE), made, true])
        images.write(images.grid(rows, columns=len(true)), folder / f"samples-{self.images_seen:09d}.png")
