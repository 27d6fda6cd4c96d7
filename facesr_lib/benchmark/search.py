"""How fast is a search on this machine: against a plain loop, and against the machine's own convolutions."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from types import MethodType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from facesr_lib import search
from facesr_lib.degrade import Downsample
from facesr_lib.losses import SemanticLoss, geocross
from facesr_lib.networks.stylegan2 import SynthesisLayer, blur, leaky_relu, upsample
from facesr_lib.networks.stylegan2.generator import convolve
from facesr_lib.prior import FacePrior
from facesr_lib.search.optimizers import SphericalOptimizer
from facesr_lib.search.starts import entrance_to
from facesr_lib.search.terms import density_and_shell
from facesr_lib.tables import markdown


def run(device: str = "auto", quick: bool = False, prior: str = "faces-64") -> list[dict[str, Any]]:
    """Measure PULSE steps.

    Parameters
    ----------
    device : str
        "cpu", "cuda" or "auto".
    quick : bool
        Fewer repetitions, and neither the compiled nor the bfloat16 generator.
    prior : str
        Registry name or checkpoint.

    Returns
    -------
    list of dict
        One row per variant and batch size: milliseconds per step and per step and image; how many times faster per
        image than `plain_steps`; the same convolutions' own time as a share of the step's, and the lowest and highest
        of the repetitions; peak memory.
    """
    repeat, steps = 3 if quick else 7, 20
    plain = FacePrior.load(prior, device)
    plain.synthesis = plain.generator.synthesis  # type: ignore[assignment]
    for layer in plain.generator.synthesis.layers:
        layer.forward = MethodType(textbook_layer, layer)  # type: ignore[method-assign]
    target = _lowres(plain, 1)
    baseline = _seconds([partial(plain_steps, plain, target, Downsample(8), steps)], plain, repeat)[0] / steps
    rows = [_row("plain loop", 1, baseline, baseline, [], _peak_megabytes(plain, target, plain_steps))]

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
            works = partial(_pulse_steps, ours, target, Downsample(8), steps), _convolutions(ours, batch, steps)
            turns = [(whole / (steps - HALF), alone / steps) for whole, alone in _turns(works, ours, repeat)]
            rates = sorted(alone / whole for whole, alone in turns)
            memory = _peak_megabytes(ours, target, _pulse_steps)
            rows.append(_row(name, batch, median(whole for whole, _ in turns), baseline, rates, memory))
    return rows


def methods(device: str = "auto", quick: bool = False, prior: str = "faces-64") -> list[dict[str, Any]]:
    """Measure a step of every method, and what the networks take of it when each is run alone, forwards and backwards.

    Parameters and rows as in `run`; RLS+ is its second stage, BRGM and mGANprior are without their perceptual terms.
    """
    repeat, steps = (1, 3) if quick else (3, 20)
    ours = FacePrior.load(prior, device)
    rows = []
    for name, find in search.METHODS.items():
        for batch in (1, 8) if quick else (1, 8, 16):
            target = _lowres(ours, batch)
            options: dict[str, Any] = {"perceptual": None} if name in ("brgm", "mganprior") else {}
            if name == "rls_plus":
                options["anchor"] = ours.mean_w(batch)
            once = partial(find, ours, target, Downsample(8), steps=steps, progress=False, **options)
            alone = dict(_networks(ours, name, target))
            whole, *times = _seconds([once, *alone.values()], ours, repeat)
            seconds = whole / (steps - HALF)
            parts = {part: each / seconds for part, each in zip(alone, times, strict=True)}
            shares = parts | {"the rest": 1 - sum(parts.values())} if parts else {}
            rows.append(
                {
                    "method": name,
                    "batch": batch,
                    "steps per second": f"{1 / seconds:.1f}",
                    "ms per step and image": f"{1e3 * seconds / batch:.1f}",
                }
                | {part: f"{100 * shares[part]:.0f} %" if part in shares else "" for part in PARTS}
            )
    return rows


HALF = 0.5
"""A search ends when it has seen the last image, which needs no gradient: it takes about half a step less."""

PARTS = ("generator", "discriminator", "flow", "the rest")


def _networks(prior: FacePrior, method: str, lowres: Tensor) -> Iterator[tuple[str, Callable[[], None]]]:
    """What a method's step asks of each network, forwards and backwards; mGANprior uses halves of the generator."""
    w = prior.mean_w(len(lowres)).clone().requires_grad_()
    small = lowres.clone().requires_grad_()
    tuned = prior.theta(len(lowres)) if method in ("dse", "rls_plus") else {}
    theta = {name: value.clone().requires_grad_() for name, value in tuned.items()}

    def differentiate(make: Callable[[], Tensor], *inputs: Tensor) -> Callable[[], None]:
        return lambda: [*torch.autograd.grad(make().sum(), inputs)].clear()

    if method != "mganprior":
        yield "generator", differentiate(lambda: prior.render(w, theta=theta or None), w, *theta.values())
    if method == "dse":
        assert prior.discriminator is not None
        semantic = SemanticLoss(prior.discriminator, lowres, 3, entrance_to(prior, Downsample(8), "upsample"))
        yield "discriminator", differentiate(lambda: semantic(small), small)
    if method == "rls":
        flow = prior.require_flow(method)
        yield "flow", differentiate(lambda: torch.stack(density_and_shell(flow, w)), w)


def table(rows: list[dict[str, Any]]) -> str:
    """Lay rows out as a Markdown table."""
    return markdown(list(rows[0]), (list(row.values()) for row in rows))


def plain_steps(prior: FacePrior, lowres: Tensor, operator: Callable[[Tensor], Tensor], steps: int) -> Tensor:
    """PULSE as one would write it first: one image, one loss read back to Python each step, the last image returned."""
    generator = torch.Generator().manual_seed(0)
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


def _pulse_steps(prior: FacePrior, lowres: Tensor, operator: Callable[[Tensor], Tensor], steps: int) -> None:
    search.pulse(prior, lowres, operator, steps=steps, progress=False)


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


def _turns(works: Sequence[Callable[[], Any]], prior: FacePrior, repeat: int) -> list[list[float]]:
    """Wall-clock times, a row per turn and a column per work, after a turn to warm up: a machine's speed changes."""
    times: list[list[float]] = []
    for _ in range(repeat + 1):
        times.append([])
        for work in works:
            _synchronise(prior)
            start = time.perf_counter()
            work()
            _synchronise(prior)
            times[-1].append(time.perf_counter() - start)
    return times[1:]


def _seconds(works: Sequence[Callable[[], Any]], prior: FacePrior, repeat: int) -> list[float]:
    """Median time of each work."""
    return [median(times) for times in zip(*_turns(works, prior, repeat), strict=True)]


def _synchronise(prior: FacePrior) -> None:
    if prior.device.type == "cuda":
        torch.cuda.synchronize()


def _peak_megabytes(prior: FacePrior, lowres: Tensor, steps: Callable[..., Any]) -> float:
    """Peak memory of three steps beyond what is held before: the GPU's allocator, or Linux's count for the process."""
    if prior.device.type == "cuda":
        before: float = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        steps(prior, lowres, Downsample(8), 3)
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what an earlier search left for the next does not count as held
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        before = _resident("VmRSS")
        steps(prior, lowres, Downsample(8), 3)
        return (_resident("VmHWM") - before) / 1e3
    except (OSError, AttributeError):  # no Linux, or no glibc
        return float("nan")


def _resident(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(field)))


def _row(
    name: str, batch: int, seconds: float, baseline: float, rates: Sequence[float], memory: float
) -> dict[str, Any]:
    return {
        "PULSE step": name,
        "batch": batch,
        "ms per step": f"{1e3 * seconds:.1f}",
        "ms per step and image": f"{1e3 * seconds / batch:.1f}",
        "times faster than the plain loop": f"{baseline * batch / seconds:.2f}",
        "of the convolution rate": f"{median(rates):.2f} ({rates[0]:.2f} to {rates[-1]:.2f})" if rates else "",
        "peak MB": f"{memory:.0f}",
    }
