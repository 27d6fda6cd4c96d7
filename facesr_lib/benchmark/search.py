"""How fast is a search on this machine: against a plain loop, and against the machine's own convolutions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from types import MethodType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from facesr_lib import search
from facesr_lib.benchmark import clock
from facesr_lib.degrade import Downsample
from facesr_lib.losses import SemanticLoss, geocross
from facesr_lib.networks.stylegan2 import SynthesisLayer, blur, leaky_relu, upsample
from facesr_lib.networks.stylegan2.generator import convolve
from facesr_lib.prior import FacePrior
from facesr_lib.restoration import METHODS, Method
from facesr_lib.search.optimizers import SphericalOptimizer
from facesr_lib.search.starts import entrance_to
from facesr_lib.search.terms import density_and_shell


def run(device: str = "auto", quick: bool = False, prior: str = "faces-64") -> list[dict[str, Any]]:
    """Measure PULSE steps: a row per variant and batch size; ``quick``: neither compiled nor in bfloat16.

    How many times faster per image than `plain_steps`, the convolutions' share, and peak memory. ``prior`` is a
    registry name or a checkpoint.
    """
    repeat, steps = 3 if quick else 7, 20
    plain = FacePrior.load(prior, device)
    plain.synthesis = plain.generator.synthesis  # type: ignore[assignment]
    for layer in plain.generator.synthesis.layers:
        layer.forward = MethodType(textbook_layer, layer)  # type: ignore[method-assign]
    target = _lowres(plain, 1)
    baseline = clock.medians([partial(plain_steps, plain, target, steps)], plain.device, repeat)[0] / steps
    memory = clock.peak_megabytes(partial(plain_steps, plain, target, 3), plain.device)
    measured: list[tuple[str, int, float, str, float]] = [("plain loop", 1, baseline, "", memory)]

    variants: dict[str, dict[str, Any]] = {"facesr_lib": {}}
    if not quick:
        variants |= {"facesr_lib, bfloat16": {"precision": torch.bfloat16}, "facesr_lib, compiled": {}}
    for name, options in variants.items():
        ours = FacePrior.load(prior, device, **options)
        if name.endswith("compiled"):
            ours.generator.synthesis.compile()
            ours.synthesis = ours.generator.synthesis  # type: ignore[assignment]
        for batch in (1, 16):
            target = _lowres(ours, batch)
            pulse = partial(search.pulse, ours, target, Downsample(8), progress=False)
            works = partial(pulse, steps=steps), _convolutions(ours, batch, steps)
            turns = [(s / (steps - HALF), alone / steps) for s, alone in clock.turns(works, ours.device, repeat)]
            rate = clock.share([alone / step for step, alone in turns])
            memory = clock.peak_megabytes(partial(pulse, steps=3), ours.device)
            measured.append((name, batch, median(step for step, _ in turns), rate, memory))
    return [
        {
            "PULSE step": name,
            "batch": batch,
            "ms per step": f"{1e3 * seconds:.1f}",
            "ms per step and image": f"{1e3 * seconds / batch:.1f}",
            "times faster than the plain loop": f"{baseline * batch / seconds:.2f}",
            "of the convolution rate": rate,
            "peak MB": f"{memory:.0f}",
        }
        for name, batch, seconds, rate, memory in measured
    ]


def methods(device: str = "auto", quick: bool = False, prior: str = "faces-64") -> list[dict[str, Any]]:
    """Measure a step of every search, and what the networks take of it when each is run alone, forwards and backwards.

    What an option can spare a method is spared (`Method.unless`): RLS+ is its second
    stage, BRGM and mGANprior are without their perceptual terms.
    """
    repeat, steps = (1, 3) if quick else (3, 20)
    ours = FacePrior.load(prior, device)
    rows = []
    for name, method in METHODS.items():
        if "steps" not in method.options:
            continue
        for batch in (1, 8) if quick else (1, 8, 16):
            target = _lowres(ours, batch)
            spared = {"perceptual": None, "anchor": ours.mean_w(batch)}
            options: dict[str, Any] = {option: spared[option] for option in method.unless.values()}
            once = partial(method, target, Downsample(8), prior=ours, steps=steps, progress=False, **options)
            alone = dict(_networks(ours, method, target))
            whole, *times = clock.medians([once, *alone.values()], ours.device, repeat)
            seconds = whole / (steps - HALF)
            shares = {part: each / seconds for part, each in zip(alone, times, strict=True)}
            shares |= {"the rest": 1 - sum(shares.values())} if shares else {}
            row = {"method": name, "batch": batch, "steps per second": f"{1 / seconds:.1f}"}
            row |= {"ms per step and image": f"{1e3 * seconds / batch:.1f}"}
            rows.append(row | {part: f"{100 * shares[part]:.0f} %" if part in shares else "" for part in PARTS})
    return rows


HALF = 0.5
"""A search ends when it has seen the last image, which needs no gradient: it takes about half a step less."""

PARTS = ("generator", "discriminator", "flow", "the rest")


def _networks(prior: FacePrior, method: Method, lowres: Tensor) -> Iterator[tuple[str, Callable[[], None]]]:
    """What a method's step asks of each network, forwards and backwards."""
    asked, options = method.needs - method.unless.keys(), method.options
    w = prior.mean_w(len(lowres)).clone().requires_grad_()
    small = lowres.clone().requires_grad_()
    tunes = "lr_theta" in options or "theta" in options.get("optimise", ())  # each image a network of its own
    theta = {name: value.clone().requires_grad_() for name, value in prior.theta(len(lowres)).items() if tunes}

    def differentiate(make: Callable[[], Tensor], *inputs: Tensor) -> Callable[[], None]:
        return lambda: [*torch.autograd.grad(make().sum(), inputs)].clear()

    if "codes" not in options:  # several codes an image run through halves of the generator
        yield "generator", differentiate(lambda: prior.render(w, theta=theta or None), w, *theta.values())
    if "discriminator" in asked and prior.discriminator is not None:
        entrance = entrance_to(prior, Downsample(8), options["entrance"])
        semantic = SemanticLoss(prior.discriminator, lowres, options["blocks"], entrance)
        yield "discriminator", differentiate(lambda: semantic(small), small)
    if "flow" in asked and prior.flow is not None:
        flow = prior.flow
        yield "flow", differentiate(lambda: torch.stack(density_and_shell(flow, w)), w)


def plain_steps(prior: FacePrior, lowres: Tensor, steps: int) -> Tensor:
    """PULSE as one would write it first: one image, one loss read back to Python each step, the last image returned."""
    operator, generator = Downsample(8), torch.Generator().manual_seed(0)
    v = torch.randn(1, prior.num_ws, prior.w_dim, generator=generator).to(prior.device).requires_grad_()
    noise = [m.requires_grad_(i < 5) for i, m in enumerate(prior.noise_maps("random", [generator]))]
    optimizer = SphericalOptimizer(torch.optim.Adam, [v, *noise[:5]], lr=0.4)
    best = float("inf")
    for _ in range(steps):
        optimizer.zero_grad()
        w = prior.pulse_gaussian.inverse(v)
        image = prior.render(w, noise)
        loss = 100 * (operator(image) - lowres).square().mean() + 0.05 * geocross(w).sum()
        loss.backward()
        optimizer.step()
        if loss.item() < best:
            best, kept = loss.item(), image.detach().clone()
    return kept


def textbook_layer(self: SynthesisLayer, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
    """A synthesis layer for one image, with kernels of its own: the paper's equations 1 to 3 to the letter."""
    weight = self.weight * self.affine(w)[0, :, None, None]  # (C_out, C_in, 3, 3)
    weight = weight * (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).rsqrt()
    x = convolve(x, weight, up=self.up)
    return leaky_relu(x + noise * self.noise_strength + self.bias[:, None, None])


def _lowres(prior: FacePrior, batch: int) -> Tensor:
    return Downsample(8)(prior.sample(batch, seed=1)[0]).clamp(0, 1)


def _convolutions(prior: FacePrior, batch: int, steps: int) -> Callable[[], None]:
    """Forward and input-gradient passes of the generator's convolutions, and no more.

    All that a picture needs: filters and 1×1 included, and the constant's, of which a batch is spared all but one.
    """
    todo: list[tuple[Callable[[Tensor], Tensor], Tensor, Tensor]] = []

    def add(function: Callable[[Tensor], Tensor], channels: int, side: int) -> None:
        x = torch.randn(batch, channels, side, side, device=prior.device, dtype=prior.precision)
        x = x.to(memory_format=torch.channels_last).requires_grad_()
        todo.append((function, x, torch.randn_like(function(x))))

    for layer in prior.generator.synthesis.layers:
        weight, side = layer.weight.detach().to(prior.precision), layer.noise_const.shape[0]
        n_out, n_in = weight.shape[:2]
        if layer.up:
            add(partial(F.conv_transpose2d, weight=weight.transpose(0, 1), stride=2), n_in, side // 2)
            add(partial(blur, padding=1), n_out, side + 1)
        else:
            add(partial(F.conv2d, weight=weight, padding=1), n_in, side)
    for block, side in zip(prior.generator.synthesis.blocks, prior.generator.synthesis.resolutions, strict=True):
        weight = block.torgb.weight.detach().to(prior.precision)
        add(partial(F.conv2d, weight=weight), weight.shape[1], side)
        if side > 4:
            add(upsample, 3, side // 2)

    def passes() -> None:
        for function, x, gradient in todo * steps:
            torch.autograd.grad(function(x), x, gradient)

    return passes
