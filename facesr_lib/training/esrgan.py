"""Train ESRGAN, and LSRGAN which has one term more: a companion encoder that the generator is to disagree with.

Two stages (Wang et al. 2018; Zhong & Zhou 2020, section 4.1). In the first, G learns to enlarge and L to make small,
apart, by absolute differences. In the second, D, G and L learn in turn. Its four models differ by two switches and
agree in everything else, the patches drawn and the start included::

                     perceptual loss    contextual loss
    without L        ESR (eq. 1)        CESR (eq. 12)
    with L           LSR (eq. 10)       CLSR (eq. 13)
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Adam

from facesr_lib import assets, files
from facesr_lib.degrade import Downsample
from facesr_lib.losses import (
    contextual_loss,
    feature_l1,
    imagenet_features,
    relativistic_discriminator_loss,
    relativistic_generator_loss,
)
from facesr_lib.networks import checkpoints, rrdb
from facesr_lib.networks.rrdb import CompanionEncoder, PatchDiscriminator, RRDBNet
from facesr_lib.training.adversarial import follow
from facesr_lib.training.base import Training
from facesr_lib.training.capture import Captured
from facesr_lib.training.config import Checked, within
from facesr_lib.training.patches import Patches

GENERATOR = "generator.safetensors"
ENCODER = "encoder.safetensors"
SCALE = 4


@dataclass(frozen=True)
class Shared(Checked):
    """What a choice is in either stage. The paper's are in brackets, here and below; its batches are of 16 patches."""

    patch: int = within(128, at_least=32, multiple_of=32)
    """Side of the patches that it sees, a multiple of 32 (128)."""
    turns: bool = within(True)
    """Whether patches are turned and upside down, too, and not only mirrored (true); faces are not."""
    iterations: int = within(20_000, at_least=1)
    """How many the learning rate's schedule is made for (500,000)."""
    ema: float = within(0.999, at_least=0, at_most=0.999999)
    """Share of G's moving average that stays in a step, once it has seen enough (`adversarial.follow`); 0: no average.
    The paper says nothing, ESRGAN's code 0.999 from the first step on."""


@dataclass(frozen=True)
class Start(Shared):
    """Every choice of the first stage; networks that a CPU trains in hours."""

    blocks: int = within(3, at_least=1)
    channels: int = within(32, at_least=1)
    growth: int = within(16, at_least=1)
    """G's size, as in `networks.rrdb.RRDBNet` (23, 64, 32)."""
    encoder_width: int = within(16, at_least=1)
    """L's, as in `networks.rrdb.CompanionEncoder`; 64 takes VGG16's weights where they are (64)."""
    lr: float = within(2e-4, at_least=0)
    """Adam's learning rate, halved after two and after four fifths of the iterations (2e-4)."""


@dataclass(frozen=True)
class Config(Shared):
    """Every choice of the second stage; weights are the paper's."""

    latent: bool = within(False)
    """Whether L takes part: LSR and CLSR."""
    contextual: bool = within(False)
    """Whether the contextual loss stands in the perceptual one's place: CESR and CLSR."""
    content: float = within(1.0, at_least=0)
    """Weight of the perceptual or the contextual loss."""
    lambda_ra: float = within(5e-3, at_least=0)
    """λ, of the relativistic average loss."""
    eta: float = within(1e-2, at_least=0)
    """η, of the absolute difference."""
    mu: float = within(1e-3, at_least=0)
    """μ, of the latent distance, which G enlarges and L makes smaller."""
    anchor: float = within(0.0, at_least=0)
    """A guard that the paper does not have: how much L still has to make pictures small, ‖L(y) − z‖₁ in its loss."""
    discriminator_width: int = within(16, at_least=1)
    """D's, as in `networks.rrdb.PatchDiscriminator` (64)."""
    lr: float = within(1e-4, at_least=0)
    """Adam's learning rate, halved after 1, 2, 4 and 6 tenths of the iterations (1e-4)."""
    batch: int = within(16, at_least=2)  # its losses compare with averages


class SuperResolution(Training[Any]):
    """What both stages share: pairs of patches, G with its moving average, a learning rate that halves.

    ``pictures`` are uint8, (H, W, 3) each, none smaller than a patch (`patches.read_pictures`).
    """

    halvings: tuple[float, ...]  # after which shares of the iterations

    def __init__(self, pictures: Sequence[np.ndarray], config: Start | Config, device: str, bf16: bool, **inputs: Any):
        super().__init__(config, device, bf16, **inputs, pictures=pictures)
        self._rate = torch.tensor(config.lr, device=self.device)
        self._small, self._patches = Downsample(SCALE), Patches(pictures, config.patch, self.device, config.turns)
        self._half_life = config.batch * log(0.5) / log(config.ema) if config.ema else 0.0
        self._learn = Captured(self.learn, self)

    def begin(self, generator: RRDBNet, **networks: nn.Module) -> None:
        """Say what learns, each by Adam, β = (0.9, 0.999), as the paper says."""
        adam = partial(Adam, lr=self._c.lr, capturable=self._rate.is_cuda)
        self.enlist(adam, "{} optimizer", generator=generator, **networks)
        self.generator = generator
        self.average = self.parts["average"] = deepcopy(generator).eval().requires_grad_(False)

    def pairs(self) -> tuple[Tensor, Tensor]:
        """Small patches z (N, 3, S / 4, S / 4) and large ones y (N, 3, S, S) in [0, 1].

        Each patch is made small by itself, by MATLAB's bicubic, and rounded to 8 bits as a file would be.
        """
        y = self._patches.draw(self.share, self.random)
        z = (self._small(y).clamp(0, 1) * 255).round() / 255
        return z.contiguous(memory_format=torch.channels_last), y

    def step(self) -> dict[str, Tensor]:
        """Learn from one batch, at the learning rate that is due."""
        done = self.images_seen / self.batch
        halved = sum(done >= share * self._c.iterations for share in self.halvings)
        self._rate.fill_(self._c.lr * 0.5**halved)
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = self._rate
        losses = self._learn(*self.pairs())
        self.images_seen += self.batch
        follow(self.average, self.generator, self.batch, self._half_life, self.images_seen)
        return losses

    @abstractmethod
    def learn(self, z: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Every network's turn on one batch; nothing here waits for the device, so that it can be replayed."""


class Pretraining(SuperResolution):
    """The first stage: G and L learn apart, by absolute differences."""

    halvings = 0.4, 0.8

    def __init__(self, pictures: Sequence[np.ndarray], config: Start, device: str = "cpu", bf16: bool = False):
        with config.seeded():
            generator = RRDBNet(config.blocks, config.channels, config.growth, SCALE)
            self.encoder = CompanionEncoder(config.encoder_width)
        origin = "random numbers"
        if config.encoder_width == 64:
            with suppress(assets.AssetMissing):
                self.encoder.start_from_vgg16()
                origin = "VGG16"
        super().__init__(pictures, config, device, bf16, encoder=origin)
        self.begin(generator, encoder=self.encoder)

    def learn(self, z: Tensor, y: Tensor) -> dict[str, Tensor]:
        """One step of G on ‖y − G(z)‖₁ and one of L on ‖z − L(y)‖₁, both means over pixels."""
        with self.turn(self.optimizers["generator"]):
            pixel = (y - self.forward(self.generator, z)).abs().mean()
            pixel.backward()
        with self.turn(self.optimizers["encoder"]):
            code = (z - self.forward(self.encoder, y)).abs().mean()
            code.backward()
        return {"G": pixel.detach(), "L": code.detach()}

    def snapshot(self, folder: Path) -> None:
        """Write what the second stage starts from: G's average and L."""
        checkpoints.save(self.average, folder / GENERATOR, self.about())
        checkpoints.save(self.encoder, folder / ENCODER, self.about())


class Refinement(SuperResolution):
    """The second stage: D, G and, if the latent space takes part, L in turn.

    It begins with what a first stage has left in the folder ``start``. ``seen_by`` says whose features the perceptual
    and the contextual loss compare. Errors as of `networks.rrdb.load`, `Patches` and `losses.imagenet_features`.
    """

    halvings = 0.1, 0.2, 0.4, 0.6

    def __init__(
        self, pictures: Sequence[np.ndarray], config: Config, start: str | Path, device: str = "cpu", bf16: bool = False
    ):
        start = files.expanded(start)
        generator, self.encoder = rrdb.load(start / GENERATOR), rrdb.load_encoder(start / ENCODER)
        if generator.scale != SCALE:
            raise ValueError(f"{start} enlarges {generator.scale} times: the second stage needs a start of {SCALE}.")
        with config.seeded():
            self.discriminator = PatchDiscriminator(config.discriminator_width, config.patch)
        self.seen_by, self._features = imagenet_features(4 if config.contextual else 16)
        self._content = contextual_loss if config.contextual else feature_l1
        begun = nn.ModuleList([generator, self.encoder])
        super().__init__(pictures, config, device, bf16, start=begun, seen_by=self.seen_by)
        self._judges = nn.ModuleDict({"discriminator": self.discriminator})
        if config.latent:
            self._judges["encoder"] = self.encoder
        self.begin(generator, **self._judges)

    def learn(self, z: Tensor, y: Tensor) -> dict[str, Tensor]:
        """D, G and L in turn; they all see the same G(z)."""
        fake = self.forward(self.generator, z)
        with self.turn(self.optimizers["discriminator"]):
            real, generated = (self.forward(self.discriminator, image) for image in (y, fake.detach()))
            loss = relativistic_discriminator_loss(real, generated).mean()
            loss.backward()
        losses = {"D": loss.detach()}
        with self.turn(self.optimizers["generator"], frozen=self._judges):
            losses |= self.generate(y, fake)
        if self._c.latent:
            with self.turn(self.optimizers["encoder"]):
                losses |= self.encode(z, y, fake.detach())
        return losses

    def generate(self, y: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """G's gradients.

        Loss_G = L_percep + λ L_G^Ra + η ‖y − G(z)‖₁ − μ ‖L(y) − L(G(z))‖₁ (eq. 10); without its last term eq. 1; the
        contextual loss for L_percep: eqs 13 and 12.
        """
        c = self._c
        with torch.no_grad():
            target, real = self._features(y), self.forward(self.discriminator, y)
        content = self._content(self._features(fake), target).mean()
        adversarial = relativistic_generator_loss(real, self.forward(self.discriminator, fake)).mean()
        pixel = (y - fake).abs().mean()
        loss = c.content * content + c.lambda_ra * adversarial + c.eta * pixel
        if c.latent:
            with torch.no_grad():
                code = self.forward(self.encoder, y)
            loss = loss - c.mu * (code - self.forward(self.encoder, fake)).abs().mean()
        loss.backward()
        return {"content": content.detach(), "adversarial": adversarial.detach(), "pixel": pixel.detach()}

    def encode(self, z: Tensor, y: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """L's gradients, Loss_L = ‖L(y) − L(G(z))‖₁ (eq. 9), and what has to be watched.

        Nothing in eq. 9 forbids L to answer every picture alike. "K" is what eq. 3's constant has to be at least, for
        this batch; "spread" is the deviation of L(y), "code" how far L(y) is from z: a collapse shows in all three.
        """
        code, theirs = self.forward(self.encoder, y), self.forward(self.encoder, fake)  # (N, 3, S / 4, S / 4)
        latent, away = (code - theirs).abs().mean(), (code - z).abs().mean()
        (latent + self._c.anchor * away).backward()
        with torch.no_grad():
            ratio = (y - fake).abs().mean() / latent.clamp_min(1e-12)
            spread = code.std((0, 2, 3)).mean()
        return {"latent": latent.detach(), "K": ratio, "spread": spread, "code": away.detach()}

    def snapshot(self, folder: Path) -> None:
        """Write G's average and, if it took part, L."""
        checkpoints.save(self.average, folder / GENERATOR, self.about())
        if self._c.latent:
            checkpoints.save(self.encoder, folder / ENCODER, self.about())
