"""`FacePrior`: a generator, its discriminator and what is known of its latent space, under one name."""

from __future__ import annotations

from copy import copy, deepcopy
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.func import functional_call, vmap

from facesr_lib import assets, files, messages, randomness
from facesr_lib.devices import in_full, pick_device, undisturbed
from facesr_lib.networks import checkpoints, stylegan2
from facesr_lib.networks.flow import Flow
from facesr_lib.prior.pulse_gaussian import PulseGaussian

Network = TypeVar("Network", bound=nn.Module)


class FacePrior:
    """A face generator and what belongs to it; its parameters are frozen.

    ``name`` is its registry name or file; ``discriminator`` and ``flow``, which Gaussianises w, may be ``None``;
    ``resolution``, ``num_ws``, ``z_dim`` and ``w_dim`` are R, L, and the two latent dimensions.
    """

    flow: Flow | None = None
    _viewed: FacePrior | None = None

    def __init__(
        self,
        name: str,
        generator: stylegan2.Generator,
        discriminator: stylegan2.Discriminator | None,
        *,
        device: str | torch.device = "cpu",
        precision: torch.dtype = torch.float32,
    ):
        self.name = name
        self.device = torch.device(pick_device(device) if isinstance(device, str) else device)
        self.precision = generator.synthesis.precision = precision
        self.generator = generator.requires_grad_(False).eval().to(self.device)
        self.synthesis = stylegan2.FastSynthesis(self.generator.synthesis)
        self.discriminator = discriminator and discriminator.requires_grad_(False).eval().to(self.device)
        self.resolution, self.num_ws = generator.img_resolution, generator.num_ws
        self.z_dim, self.w_dim = generator.z_dim, generator.w_dim

    @classmethod
    @undisturbed()
    def load(cls, name: str | Path, device: str = "cpu", *, precision: torch.dtype = torch.float32) -> FacePrior:
        """Load a prior.

        Parameters
        ----------
        name : str or Path
            A registry name ("faces-64") or the path of a checkpoint (`stylegan2.load` says which formats). PULSE's fit
            and the flow are read from the file of the same name that ends in ``.safetensors``: the checkpoint itself,
            or one that ``facesr train flow`` made of it and that was put beside it.
        device : str
            "cpu", "cuda", ..., or "auto": a GPU if there is one.
        precision : torch.dtype
            Of the convolutions; ``torch.bfloat16`` is faster where the hardware has it.

        Errors as `assets.locate`'s, `devices.pick_device`'s and `stylegan2.load`'s.
        """
        path = assets.locate(name)
        prior = cls(str(name), *stylegan2.load(path), device=device, precision=precision)
        statistics = path if checkpoints.is_safetensors(path) else path.with_suffix(".safetensors")
        if statistics.is_file() and checkpoints.is_safetensors(statistics):
            prior._read_statistics(statistics)
        return prior

    def _read_statistics(self, path: Path) -> None:
        """PULSE's fit and the flow, where the file holds them."""
        try:
            with safe_open(path, "pt", device=str(self.device)) as file:
                names = file.keys()
                kept = [name for name in names if name.startswith(("F.", "pulse.", "G.mapping."))]
                held = checkpoints.singles({name: file.get_tensor(name) for name in kept})
        except SafetensorError as error:
            raise ValueError(f"{path} cannot be read: {error}.") from error
        except ValueError as error:
            raise ValueError(f"the statistics in {path} cannot be used: {error}.") from error
        own = {f"G.mapping.{name}": value for name, value in self.generator.mapping.state_dict().items()}
        told = {name for name in held if not name.startswith("G.")}
        fits = all(name in held and torch.equal(held[name].half(), own[name].half()) for name in own)
        fits &= all(held[name].shape == (self.w_dim,) for name in told & {"F.mean", "pulse.mean", "pulse.std"})
        if told and not fits:
            raise ValueError(
                f"the flow and the fit in {path} belong to another prior: its mapping network is another, or not "
                "there. Move that file away, or train a flow for this prior."
            )
        if "pulse.mean" in held:
            self.pulse_gaussian = PulseGaussian(held["pulse.mean"], held["pulse.std"])
        if weights := {name[2:]: value for name, value in held.items() if name.startswith("F.")}:
            self.flow = Flow.from_weights(weights).to(self.device).freeze()

    def save(self, path: str | Path, metadata: dict[str, str] | None = None) -> None:
        """Write everything to a ``.safetensors`` file that `load` reads: networks in half precision, statistics not.

        A ``ValueError`` says which weight half precision cannot hold. What was there stays unless all went well.
        """
        path = files.expanded(path)
        if path.suffix.casefold() != ".safetensors":
            raise ValueError(f"a prior is kept in a file that ends in .safetensors; got {path}.")
        weights = {f"G.{name}": value for name, value in self.generator.state_dict().items()}
        if self.discriminator is not None:
            weights |= {f"D.{name}": value for name, value in self.discriminator.state_dict().items()}
        if self.flow is not None:
            weights |= {f"F.{name}": value for name, value in self.flow.weights().items()}
        tensors = {name: value.half().cpu().contiguous() for name, value in weights.items()}
        tensors |= {"pulse.mean": self.pulse_gaussian.mean.cpu(), "pulse.std": self.pulse_gaussian.std.cpu()}
        checkpoints.check_finite(tensors)
        with files.replacing(path) as temporary:
            save_file(tensors, temporary, metadata)

    @cached_property
    def pulse_gaussian(self) -> PulseGaussian:
        """PULSE's Gaussianisation: stored with the prior, or fitted to its mapping network on first use."""
        return self._viewed.pulse_gaussian if self._viewed else PulseGaussian.fit(self.generator.mapping)

    def view(self) -> FacePrior:
        """The same weights in modules of its own, where none learns: what one search swaps there, no other sees."""
        own = copy(self)
        own._viewed, own.generator = self, _frozen_view(self.generator)
        own.synthesis = stylegan2.FastSynthesis(own.generator.synthesis)
        own.discriminator = self.discriminator and _frozen_view(self.discriminator)
        own.flow = self.flow and _frozen_view(self.flow)
        return own

    def require_flow(self, method: str) -> Flow:
        """Return the flow; a ``ValueError`` says that ``method`` needs one and how to get it."""
        if self.flow is None:
            way = "train one with `facesr train flow`"
            raise ValueError(f"{method} needs a flow, and the prior {self.name!r} has none: {way}.")
        return self.flow

    def require_discriminator(self, method: str) -> stylegan2.Discriminator:
        """Return the discriminator; a ``ValueError`` says that ``method`` needs one."""
        if self.discriminator is None:
            way = "load one with it, from a checkpoint that holds both networks, as the shipped 'faces-64' does"
            raise ValueError(f"{method} needs a discriminator, and the prior {self.name!r} has none: {way}.")
        return self.discriminator

    @undisturbed()
    @torch.no_grad()
    def sample_w(self, n: int, seed: int = 0, truncation_psi: float = 1.0) -> Tensor:
        """Codes of random faces, the same for all layers: (n, L, d)."""
        messages.check("n", n, int, at_least=1)
        messages.check("truncation_psi", truncation_psi)
        z = randomness.normal(randomness.generators(seed, n), self.z_dim).to(self.device)
        return self.generator.mapping(z, truncation_psi)[:, None].repeat(1, self.num_ws, 1)

    def sample(self, n: int, seed: int = 0, truncation_psi: float = 1.0) -> tuple[Tensor, Tensor]:
        """Random faces: images (n, 3, R, R) in [0, 1] and their codes (n, L, d)."""
        w = self.sample_w(n, seed, truncation_psi)
        return self.synthesise(w), w

    def mean_w(self, n: int = 1) -> Tensor:
        """The mean of W, n times: (n, L, d)."""
        return self.generator.mapping.w_avg.expand(n, self.num_ws, -1)

    @in_full()
    def render(self, w: Tensor, noise: list[Tensor] | None = None, theta: dict[str, Tensor] | None = None) -> Tensor:
        """Codes (N, L, d) → images (N, 3, R, R), differentiable and not clamped: what a search sees.

        ``noise`` holds one map per layer, (1 or N, 1, r, r); without it, the network's own. ``theta`` holds a copy of
        the synthesis network for each image, as `theta` gives them; meanwhile they stand in the network's place, so
        threads that share a prior take a `view` each.
        """
        if theta is None:
            return (self.synthesis(w, noise=noise) + 1) / 2
        maps = [m.expand(len(w), -1, -1, -1) for m in noise or self.noise_maps("const", [])]

        def one(theta: dict[str, Tensor], w: Tensor, maps: list[Tensor]) -> Tensor:
            return functional_call(self.generator.synthesis, theta, (w[None],), {"noise": [m[None] for m in maps]})[0]

        few = 8 if w.device.type == "cpu" else None  # copies at once: of more, a CPU's caches hold too little
        return (vmap(one, chunk_size=few)(theta, w, maps) + 1) / 2

    def theta(self, n: int) -> dict[str, Tensor]:
        """Copies of the synthesis network's parameters for n images: name → (n, ...)."""
        own = self.generator.synthesis.named_parameters()
        return {name: value.detach().expand(n, *value.shape) for name, value in own}

    @undisturbed()
    @torch.no_grad()
    def synthesise(self, w: Tensor, noise: list[Tensor] | None = None) -> Tensor:
        """Codes (N, L, d), of any floating-point type, → images (N, 3, R, R) in [0, 1]: what a reader sees."""
        messages.check_tensors("codes, one per layer,", f"(N, {self.num_ws}, {self.w_dim})", w)
        w = w.to(self.device, torch.float32)
        if noise is not None:
            return self.render(w, noise).clamp(0, 1)
        return torch.cat([self.render(part).clamp(0, 1) for part in w.split(32)])

    def noise_maps(self, kind: str, draws: list[torch.Generator]) -> list[Tensor]:
        """One map per layer, coarse to fine, (1 or N, 1, r, r): "random" (from ``draws``), "const" or "none"."""
        own = [layer.noise_const[None, None] for layer in self.generator.synthesis.layers]
        if messages.choose(kind, ("random", "const", "none"), "noise") == "random":
            return [randomness.normal(draws, *m.shape[1:]).to(self.device) for m in own]
        return own if kind == "const" else [torch.zeros_like(m) for m in own]


def _frozen_view(network: Network) -> Network:
    """A network of its own on the same memory, whose parameters do not learn."""
    shared = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in network.parameters()}
    return deepcopy(network, shared | {id(buffer): buffer for buffer in network.buffers()})
