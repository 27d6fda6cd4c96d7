"""Train progressive face super-resolution: three steps, each faded in, the later two attentive to landmarks.

Kim et al. 2019, with the weights of the authors' first release. Chapter 8 shows what each part does.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from facesr_lib import images
from facesr_lib.degrade import halvings
from facesr_lib.losses import attention_loss, feature_loss, gradient_penalty, heatmap_loss, wasserstein_critic_loss
from facesr_lib.losses.features import Maps
from facesr_lib.networks import checkpoints, landmarks
from facesr_lib.networks.progressive import ProgressiveDiscriminator, ProgressiveGenerator
from facesr_lib.training.adversarial import adam, follow, with_own_statistics
from facesr_lib.training.augment import UNALIGNED
from facesr_lib.training.base import Training
from facesr_lib.training.capture import Captured
from facesr_lib.training.config import Checked, within
from facesr_lib.training.faces import Faces

NETWORK = "progressive.safetensors"
MOMENTS = "moments.safetensors"
SIDE = 128  # of the restored faces

WEIGHTS = {  # of the losses at each step, as in the authors' first release; the paper does not give them
    1: {"pixel": 10.0, "adversarial": 1.0, "feature": 1e-2, "attention": 0.0, "heatmap": 0.0},
    2: {"pixel": 10.0, "adversarial": 1.0, "feature": 1e-2, "attention": 500.0, "heatmap": 50.0},
    3: {"pixel": 10.0, "adversarial": 0.1, "feature": 1e-3, "attention": 50.0, "heatmap": 50.0},
}
RECORDED = 32
"""Moments of a training at which the watched faces are kept."""


@dataclass(frozen=True)
class Config(Checked):
    """Every choice of a training; the defaults are the paper's."""

    width: float = within(1.0, at_least=1 / 64, at_most=8)
    """Factor on the networks' channels."""
    iterations: int = within(200_000, at_least=1)
    """Of the whole training: a quarter of them for each of the first two steps, half for the last; each new step is
    faded in over an eighth. It ends after them, whatever the budget."""
    lr: float = within(1e-3, at_least=0)
    """Adam's learning rate, with β = (0, 0.99)."""
    progressive: bool = within(True)
    """Grow in three steps; else all layers learn at 128² from the start, with the last step's losses."""
    adversarial: float = within(1.0, at_least=0)
    feature: float = within(1.0, at_least=0)
    heatmap: float = within(1.0, at_least=0)
    attention: float = within(1.0, at_least=0)
    """Factors on these losses' weights; 0 leaves one out."""
    unaligned: bool = within(False)
    """Turn, scale and shift each face at random, by as much as `UNALIGNED` says."""
    ema_images: int = within(0, at_least=0)
    """Half-life in images of the moving average that is kept; 0: the network itself, as in the paper."""
    batch: int = within(16, at_least=2)

    def stage(self, iteration: int) -> tuple[int, float]:
        """Which step an iteration trains, and α, how far it is faded in."""
        if not self.progressive:
            return 3, 1.0
        share = iteration / self.iterations
        step = 1 + (share >= 1 / 4) + (share >= 1 / 2)
        return step, min(1.0, 8 * (share - (step - 1) / 4))

    def weights(self, step: int) -> dict[str, float]:
        """What each loss counts at a step."""
        return {name: weight * getattr(self, name, 1.0) for name, weight in WEIGHTS[step].items()}


class ProgressiveTraining(Training[Config]):
    """A super-resolution network and its critic in training.

    A ``ValueError`` says that the faces are of another size, or a network is missing that a loss needs.

    Parameters
    ----------
    pixels : (M, S, S, 3)
        Faces, uint8 (`data.prepared`): S is 128, or 256 if they are moved.
    fan : LandmarkNetwork, optional
        The landmark network; needed unless both of its losses are left out.
    features : Maps, optional
        φ of the feature loss; needed unless it is left out.
    seen_by : str
        φ's name, as `losses.block_features` tells it.
    watched : (K, 3, 128, 128), optional
        Faces in [0, 1]; what becomes of them is kept at `RECORDED` moments.
    """

    def __init__(
        self,
        pixels: np.ndarray,
        config: Config,
        *,
        fan: landmarks.LandmarkNetwork | None = None,
        features: Maps | None = None,
        seen_by: str = "",
        watched: Tensor | None = None,
        device: str = "auto",
        bf16: bool = False,
    ):
        c = config
        super().__init__(c, device, bf16, faces=pixels, fan=fan, seen_by=seen_by, watched=watched)
        times, kind = (2, "unaligned faces") if c.unaligned else (1, "aligned faces")
        self._faces = Faces(pixels, SIDE, self.device, times, kind)
        if watched is not None and watched.shape[1:] != (3, SIDE, SIDE):
            raise ValueError(f"watched faces are (K, 3, {SIDE}, {SIDE}); got {tuple(watched.shape)}.")
        if (fan is None and (c.heatmap or c.attention)) or (features is None and c.feature):
            raise ValueError(
                "the losses need a landmark network and a feature network: give both, or leave the losses out "
                "(heatmap=0 and attention=0; feature=0)."
            )
        with c.seeded():
            generator, discriminator = ProgressiveGenerator(c.width), ProgressiveDiscriminator(c.width)
        place: Any = {"device": self.device, "memory_format": torch.channels_last}
        self._fan = None if fan is None else fan.to(**place).eval().requires_grad_(False)
        self._features = features
        self.generator, self.discriminator = generator.to(**place), discriminator.to(**place)
        self.average = deepcopy(self.generator).eval().requires_grad_(False)
        self.g_optimizer, self.d_optimizer = adam(self.generator, c.lr), adam(self.discriminator, c.lr)
        self._watched = torch.zeros(0, 3, SIDE, SIDE) if watched is None else watched.cpu().contiguous()
        self.moments = torch.zeros(RECORDED, *self._watched.shape, dtype=torch.uint8, device=self.device)
        parts = ("generator", "discriminator", "average", "g_optimizer", "d_optimizer", "moments")
        self.parts = {name: getattr(self, name) for name in parts}
        self._learn = {kind: Captured(partial(self.learn, *kind), self) for kind in product((1, 2, 3), (False, True))}

    def step(self) -> dict[str, Tensor]:
        """One turn of G and one of D, on the same faces."""
        c = self._c
        step, alpha = c.stage(min(self.images_seen // self.batch, c.iterations - 1))
        x, y = pair(self.faces(), step)
        losses = self._learn[step, alpha < 1](x, y, x.new_full((), alpha))
        self.images_seen += self.batch
        follow(self.average, self.generator, self.batch, c.ema_images, self.images_seen)
        self._record(step, alpha)
        return losses

    def learn(self, step: int, fading: bool, x: Tensor, y: Tensor, alpha: Tensor) -> dict[str, Tensor]:
        """Both turns on one batch, as `pair` makes it."""
        faded = alpha if fading else 1.0
        with self.turn(self.g_optimizer, frozen=self.discriminator):
            losses = self.restore(x, y, step, faded)
        with self.turn(self.d_optimizer):
            return losses | self.judge(x, y, step, faded)

    def restore(self, x: Tensor, y: Tensor, step: int, alpha: float | Tensor) -> dict[str, Tensor]:
        """G's gradients: eq. 6, the weighted sum of all losses at this step."""
        image = self.forward(self.generator, x, step, alpha)
        losses = {
            "pixel": (image - y).abs().mean((1, 2, 3)),  # as released; eq. 2 squares it
            "adversarial": -self.forward(self.discriminator, image, step, alpha),
        }
        weights = self._c.weights(step)
        if self._features is not None and weights["feature"]:
            losses["feature"] = self.forward(feature_loss, self._features, (image + 1) / 2, (y + 1) / 2)
        if self._fan is not None and (weights["attention"] or weights["heatmap"]):
            ours = self.forward(self._fan.heatmaps, (image + 1) / 2)  # (N, P, 64, 64)
            with torch.no_grad():
                target = self.forward(self._fan.heatmaps, (y + 1) / 2)
            losses["heatmap"] = heatmap_loss(ours, target)
            losses["attention"] = attention_loss(F.interpolate(target, image.shape[2:], mode="bilinear"), image, y)
        torch.stack([weights[name] * loss.mean() for name, loss in losses.items()]).sum().backward()
        none = image.new_zeros(())
        return {name: losses[name].detach().mean() if name in losses else none for name in weights}

    def judge(self, x: Tensor, y: Tensor, step: int, alpha: float | Tensor) -> dict[str, Tensor]:
        """D's gradients: eq. 4, on faces restored anew."""
        with torch.no_grad():
            image = self.forward(self.generator, x, step, alpha)
        epsilon = torch.rand(len(y), generator=self.noise, device=y.device)

        def critic(faces: Tensor) -> Tensor:
            return self.forward(self.discriminator, faces, step, alpha)

        loss = wasserstein_critic_loss(critic(y), critic(image)).mean()
        penalty = gradient_penalty(critic, y, image, epsilon).mean()
        (loss + penalty).backward()
        return {"D": loss.detach(), "penalty": penalty.detach()}

    def faces(self) -> Tensor:
        """A batch of training faces (N, 3, 128, 128) in [0, 1], each mirrored with probability one half."""
        if self._c.unaligned:
            return self._faces.draw(self.share, self.random, **UNALIGNED)[0]
        faces = self._faces[torch.randint(len(self._faces), (self.share,), generator=self.random)]
        mirrored = (torch.rand(self.share, generator=self.random) < 0.5).to(self.device)
        return torch.where(mirrored[:, None, None, None], faces.flip(3), faces)

    @torch.no_grad()
    def _record(self, step: int, alpha: float) -> None:
        """Keep what has become of the watched faces if it is time to."""
        done, each = self.images_seen // self.batch, max(1, self._c.iterations // RECORDED)
        if len(self._watched) and done % each == 0 and done <= RECORDED * each:
            x, _ = pair(self._watched.to(self.device), step)
            image = (self.average(x, step, alpha) + 1) / 2
            image = F.interpolate(image, (SIDE, SIDE), mode="nearest")
            self.moments[done // each - 1] = (image.clamp(0, 1) * 255).round().byte()

    def network(self) -> ProgressiveGenerator:
        """The moving average, with batch statistics of its own."""
        if not self._c.ema_images:
            return deepcopy(self.average).eval()
        faces = self._faces.first(256)
        return with_own_statistics(self.average, (pair(batch, 3)[0] for batch in faces.split(16)))

    def snapshot(self, folder: Path) -> None:
        """Write the network, in half precision, under the official names, and what became of the watched faces."""
        c = self._c
        step, alpha = c.stage(max(0, self.images_seen // self.batch - 1))
        about = self.about() | {"width": repr(c.width), "step": str(step), "alpha": repr(alpha)}
        network = self.network()
        checkpoints.save(network, folder / NETWORK, about)
        if not len(self._watched):
            return
        targets = (self._watched * 255).round().byte()
        checkpoints.write({"images": self.moments, "targets": targets}, folder / MOMENTS, about)
        with torch.no_grad():
            y = self._watched.to(self.device)
            x, _ = pair(y, step)
            small, large = (
                F.interpolate((i + 1) / 2, (SIDE, SIDE), mode="nearest") for i in (x, network(x, step, alpha))
            )
        rows = torch.cat([small, large.clamp(0, 1), y])
        images.write(images.grid(rows.cpu(), columns=len(y)), folder / f"samples-{self.images_seen:09d}.png")


def pair(faces: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """What a step learns from: faces made small one halving after the other, by bilinear interpolation.

    (N, 3, 128, 128) in [0, 1] → x (N, 3, 16, 16) and y (N, 3, S, S) in [−1, 1], S = 32, 64 or 128.
    """
    pyramid, half = [2 * faces - 1], halvings(1)  # 128², 64², 32², 16²
    for _ in range(3):
        pyramid.append(half(pyramid[-1]))
    place = torch.channels_last
    return pyramid[3].contiguous(memory_format=place), pyramid[3 - step].contiguous(memory_format=place)
