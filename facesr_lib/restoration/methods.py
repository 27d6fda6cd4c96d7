"""The seam between those who want large pictures and whatever makes them: searches, networks, interpolation alike.

What a method needs beyond the picture and the operator is written in `Method.needs`, and `check` tells what of it is
missing before anything runs. Nobody else knows one method from another.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, cached_property, partial, wraps
from pathlib import Path
from typing import Any, Protocol, get_type_hints

import torch
from torch import Tensor, nn

from facesr_lib import assets, files, images, search
from facesr_lib.degrade import Downsample, check_pixels, halved
from facesr_lib.devices import undisturbed
from facesr_lib.messages import choose
from facesr_lib.networks import parsing, progressive, rrdb, supervised
from facesr_lib.networks.folding import fold_norms
from facesr_lib.networks.supervised import SCALE
from facesr_lib.prior import FacePrior
from facesr_lib.randomness import Seed
from facesr_lib.restoration import tiles
from facesr_lib.search.engine import Operator

Load = Callable[[Path], nn.Module]


class Restored(Protocol):
    """What a method gives back: image (N, 3, H, W) in [0, 1], residual (N,), and whether Ctrl-C ended it early.

    The residual is the root mean squared difference between the image, made small, and the picture that was given; a
    search says more (`search.SearchResult`).
    """

    image: Tensor
    residual: Tensor
    interrupted: bool


@cache
def shipped_prior(device: str = "cpu") -> FacePrior:
    """Load the prior that comes with the library, once."""
    return FacePrior.load("faces-64", device)


@dataclass(frozen=True)
class Method:
    """Whatever makes large pictures of small ones.

    Attributes
    ----------
    restore : callable
        ``restore(prior, lowres, operator, *, seed, progress, **options)`` → `Restored`; its signature says the options,
        its docstring's first line what it does.
    needs : frozenset of {"prior", "flow", "discriminator", "vgg16", "weights"}
        With its options at their defaults; "weights": of one of its ``weights``.
    unless : mapping
        Need → the option that takes its place when it is given.
    weights : tuple of str
        Registry entries of its network; the first that is on this machine serves.
    load : callable, optional
        Path → its network, for other weights.
    scale : int, optional
        What it enlarges by where nobody says; a network for faces knows no other.
    pictures : bool
        Whether it enlarges any picture of any size, and not faces of the prior's alone.
    resolution : int, optional
        Of the faces that it makes; default: the prior's.
    operator : callable
        Scale → how pictures are made small where nobody says how.
    """

    restore: Callable[..., Restored]
    needs: frozenset[str] = frozenset()
    unless: Mapping[str, str] = field(default_factory=dict)
    weights: tuple[str, ...] = ()
    load: Load | None = None
    scale: int | None = None
    pictures: bool = False
    resolution: int | None = None
    operator: Callable[[int], Operator] = Downsample

    def __call__(
        self, lowres: Tensor, operator: Operator, *, prior: FacePrior | None = None, seed: Seed = 0, **options: Any
    ) -> Restored:
        """Pictures (N, 3, h, w) in [0, 1] → pictures (N, 3, H, W) that ``operator`` makes small like these.

        ``prior`` is the shipped one by default. Errors are the method's own; `check` foresees what it lacks.
        """
        for option in options:
            choose(option, self.options, "option of this method")
        with undisturbed():
            if prior is None and "prior" in self.needs:
                prior = shipped_prior(str(getattr(lowres, "device", "cpu")))
            return self.restore(prior, lowres, operator, seed=seed, **options)

    @property
    def about(self) -> str:
        """What it does, in a line."""
        return (inspect.getdoc(self.restore) or "").partition("\n")[0]

    @cached_property
    def options(self) -> dict[str, Any]:
        """Option → default; those of every search's loop count as a search's own."""
        own, loop = (inspect.signature(function).parameters for function in (self.restore, search.run_search))
        found = {each.name: each.default for each in own.values() if each.kind is each.KEYWORD_ONLY}
        if any(each.kind is each.VAR_KEYWORD for each in own.values()):  # handed on to the loop
            found |= {name: loop[name].default for name in ("record_every", "callback", "progress")}
        return {name: default for name, default in found.items() if name != "seed"}

    @cached_property
    def types(self) -> dict[str, Any]:
        """Option → type hint."""
        hints = get_type_hints(search.run_search) | get_type_hints(self.restore)
        return {name: hints[name] for name in self.options}


@dataclass
class _Enlarged:
    image: Tensor
    residual: Tensor
    interrupted: bool = False


def _at_once(enlarge: Callable[..., Tensor]) -> Callable[..., Restored]:
    """Frame what needs no search: float pictures come in, no gradient passes, nothing is random, the result is judged.

    A ``ValueError`` says that the operator makes it other than the picture that was given.
    """

    @wraps(enlarge)
    @torch.no_grad()
    def restore(prior: object, lowres: Tensor, operator: Operator, *, seed: object = 0, **options: Any) -> Restored:
        lowres = check_pixels(lowres).float()
        image = enlarge(lowres, operator, **options)
        image = image.clamp(0, 1) if image is lowres else image.clamp_(0, 1)  # no copy of a large one
        small: Any = operator(image) if callable(operator) else operator
        came = tuple(small.shape) if isinstance(small, Tensor) else type(small).__name__
        if came != (given := tuple(lowres.shape)):
            made = f"{given} was enlarged to {tuple(image.shape)}, of which the operator makes {came}"
            raise ValueError(f"{made}: its scale is another, or it is none.")
        return _Enlarged(image, (small - lowres).square().mean((1, 2, 3)).sqrt())

    return restore


def _interpolation(kernel: str) -> Method:
    @_at_once
    def enlarge(lowres: Tensor, operator: Operator, *, progress: bool = True) -> Tensor:
        """Enlarge by the kernel of this name: the baseline, which looks for no face."""
        return Downsample(_scale(kernel, operator), kernel).upsample(lowres)

    return Method(enlarge, pictures=True)


def _scale(name: str, operator: Operator) -> int:
    scale: int | None = getattr(operator, "scale", None)
    if scale is None:
        raise ValueError(f"{name} enlarges by operator.scale, which {operator!r} lacks: give a Downsample.")
    return scale


def _esrgan(about: str, *names: str, looks: int = 16) -> Method:
    """Make a method of ESRGAN's generator with the first of these weights that is here, or with others.

    It enlarges as often as it takes, 4× each time; what is larger than asked for then is made small again.
    ``looks`` is how many pixels more a tile sees, for what is cut off to count for less than a grey level. At 4, 8 and
    12 pixels from a cut the small networks are off by up to 4.5, 0.12 and 0.01 levels; Real-ESRGAN, which chooses its
    textures by what it sees far away, by 29, 24, 13, 3.2 and 0.7 at 8, 16, 32, 48 and 64.
    """

    @_at_once
    def enlarge(
        lowres: Tensor,
        operator: Operator,
        *,
        weights: str = names[0],
        tile: int = 192,
        overlap: int = looks,
        progress: bool = True,
    ) -> Tensor:
        network = _network(rrdb.load, _here(names) if weights == names[0] else weights, str(lowres.device))
        own, scale = network.scale, _scale(names[0], operator)

        def larger(part: Tensor) -> Tensor:
            return tiles.enlarge(network.draw, network.features(part), own, tile=64, overlap=8)

        image, size = lowres, (scale * lowres.shape[2], scale * lowres.shape[3])
        while image.shape[2] < size[0]:
            image = tiles.enlarge(larger, image, own, tile=tile, overlap=overlap, progress=progress)
        return image if image.shape[2:] == size else images.resize(image, size)

    enlarge.__doc__ = about
    return Method(enlarge, OWN, INSTEAD, weights=names, load=rrdb.load, scale=4, pictures=True)


OWN, INSTEAD = frozenset({"weights"}), {"weights": "weights"}
"""What a network with weights of its own needs, and the option that gives it others."""


def _network(load: Load, weights: str, device: str) -> Any:
    """A network by its registry entry or path; errors as ``load``'s."""
    path = assets.checked(weights) if weights in assets.names() else files.expanded(weights)
    return _loaded(load, path, path.stat().st_mtime_ns if path.is_file() else 0, device)


@cache
def _loaded(load: Load, path: Path, changed: int, device: str) -> nn.Module:
    with undisturbed():
        return fold_norms(load(path).requires_grad_(False)).to(device)


def _here(weights: tuple[str, ...]) -> str:
    """Return the first registry entry that is on this machine; ``AssetMissing``, the last one's, where none is."""
    for name in weights[:-1]:
        with suppress(assets.AssetMissing):
            assets.path(name)
            return name
    assets.path(weights[-1])
    return weights[-1]


FACE = 128
"""Side of the faces that the networks for faces make, of pictures of an eighth."""


def _of_faces(about: str, name: str, load: Load | None = None) -> Method:
    """Make a method of a network that enlarges faces 8×; ``load`` reads it, by default one of the supervised."""
    load = load or partial(supervised.load, name=name)

    @_at_once
    def enlarge(lowres: Tensor, operator: Operator, *, weights: str = name, progress: bool = True) -> Tensor:
        height, width = lowres.shape[2:]
        scale = getattr(operator, "scale", None)
        if scale != SCALE or (height, width) != (FACE // SCALE, FACE // SCALE):
            small = f"{FACE // SCALE}×{FACE // SCALE}"
            raise ValueError(
                f"{name} makes faces of {FACE}×{FACE} of pictures of {small}; got {width}×{height} and an operator of "
                f"scale {scale}: crop the picture square, resize it to {small} and choose scale {SCALE}, or choose "
                "another method."
            )
        return _network(load, weights, str(lowres.device)).enlarge(lowres)

    enlarge.__doc__ = about
    # small as in their training
    return Method(enlarge, OWN, INSTEAD, (name,), load, scale=SCALE, resolution=FACE, operator=halved)


@_at_once
def _fpn(lowres: Tensor, operator: Operator, *, progress: bool = True) -> Tensor:
    """Restore poor faces by the parsing network's own picture, whatever befell them; it sees and draws 128²."""
    scale, network = getattr(operator, "scale", 1), _network(parsing.load, "parsing-128", str(lowres.device))
    size, side = (scale * lowres.shape[2], scale * lowres.shape[3]), network.sizes["size"]
    _, image = network(images.resize(lowres, (side, side)).clamp(0, 1))
    return images.resize(image, size)


METHODS: dict[str, Method] = {
    "bicubic": _interpolation("bicubic"),
    "bilinear": _interpolation("bilinear"),
    "pulse": Method(search.pulse, frozenset({"prior"})),
    "dse": Method(search.dse, frozenset({"prior", "discriminator"})),
    "rls": Method(search.rls, frozenset({"prior", "flow"})),
    "rls_plus": Method(search.rls_plus, frozenset({"prior", "flow"}), {"flow": "anchor"}),
    "brgm": Method(search.brgm, frozenset({"prior", "vgg16"}), {"vgg16": "perceptual"}),
    "mganprior": Method(search.mganprior, frozenset({"prior", "vgg16"}), {"vgg16": "perceptual"}),
    "esrgan": _esrgan("Enlarge natural pictures 4×: perceptual and relativistic adversarial loss.", "esrgan"),
    "lsrgan": _esrgan("Enlarge natural pictures 4×: ESRGAN beside a companion encoder.", "lsrgan"),
    "cesrgan": _esrgan("Enlarge natural pictures 4×: ESRGAN with the contextual loss.", "cesrgan"),
    "clsrgan": _esrgan("Enlarge natural pictures 4×: the contextual loss and a companion encoder.", "clsrgan"),
    "realesrgan": _esrgan(
        "Enlarge poor photographs 4×: Real-ESRGAN's release, ESRGAN's full size.",
        "realesrgan",
        "realesrgan-release",
        looks=64,
    ),
    "progressive": _of_faces(
        "Enlarge a face, 16² → 128²: a network that grew in three steps, attentive to landmarks.",
        "progressive",
        progressive.load,
    ),
    "vdsr": _of_faces("Enlarge a face, 16² → 128²: twenty convolutions sharpen its luminance.", "vdsr"),
    "urdgn": _of_faces("Enlarge a face, 16² → 128²: a small network that learnt against a critic.", "urdgn"),
    "fsrnet": _of_faces("Enlarge a face, 16² → 128²: coarsely, then finely by its landmarks and parts.", "fsrnet"),
    "fsrgan": _of_faces("Enlarge a face, 16² → 128²: FSRNet that learnt against a critic as well.", "fsrgan"),
    "fpn": Method(_fpn, OWN, weights=("parsing-128",), scale=1, resolution=128),
}
"""Name → method, as the command line, the tables and the benchmark know them."""


def check(name: str, options: Mapping[str, Any] | None = None, prior: FacePrior | None = None) -> Method:
    """Return a method that can run with these options and this prior (default: the shipped one).

    Raises
    ------
    ValueError
        There is no such method or option (near ones are named), or the method needs something that is not here: the
        message says how to get it.
    """
    method = METHODS[choose(name, METHODS, "method")]
    if not isinstance(prior, FacePrior | None):
        raise TypeError(f"a prior is what FacePrior.load gives; got a {type(prior).__name__}.")
    given = {choose(option, method.options, f"option of {name}"): value for option, value in (options or {}).items()}
    for need in sorted(method.needs):
        instead = method.unless.get(need, "")
        if instead in given and given[instead] is not method.options[instead]:
            continue
        try:
            match need:
                case "flow":
                    (prior or shipped_prior()).require_flow(name)
                case "discriminator":
                    (prior or shipped_prior()).require_discriminator(name)
                case "weights" | "vgg16":
                    _here(method.weights if need == "weights" else (need,))
        except assets.AssetMissing as error:
            raise ValueError(f"{name} needs {need}: {error}") from error
    if method.load and "weights" in given:
        _network(method.load, given["weights"], "cpu")
    return method
