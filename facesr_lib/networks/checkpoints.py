"""Trained networks as files: half precision, under the networks' own names, and others' files as people have them."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from facesr_lib import files
from facesr_lib.assets import unpickling
from facesr_lib.devices import undisturbed

Network = TypeVar("Network", bound=nn.Module)
State = dict[str, Tensor]
About = dict[str, str]


def save(network: nn.Module, path: str | Path, about: Mapping[str, str]) -> None:
    """Write a network: vectors in single precision, all else in half; counters are left out. Errors as `write`'s."""
    floating = {name: value for name, value in network.state_dict().items() if value.is_floating_point()}
    write({name: value.half() if value.ndim > 1 else value.float() for name, value in floating.items()}, path, about)


def write(tensors: Mapping[str, Tensor], path: str | Path, about: Mapping[str, str]) -> None:
    """Write tensors to a ``.safetensors`` file, whole or not at all.

    Raises
    ------
    ValueError
        Half precision cannot hold a weight.
    OSError
        It cannot be written; what was there stays.
    """
    check_finite(tensors)
    with files.replacing(files.expanded(path)) as temporary:
        save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, temporary, dict(about))


def check_finite(state: Mapping[str, Tensor]) -> None:
    """Raise a ``ValueError`` that names what half precision could not hold."""
    if bad := [name for name, value in state.items() if not value.isfinite().all()]:
        raise ValueError(
            f"{', '.join(bad[:3])} cannot be kept in half precision (at most 65,504), or is no number: the training "
            "diverged."
        )


@torch.inference_mode(False)
def read(path: str | Path) -> tuple[State, About]:
    """Read safetensors or a checkpoint of torch's, whatever its name: tensors on the CPU, and what is said of them.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        It is damaged, or refuses to be read safely, or is something else; the message says what.
    """
    path = files.expanded(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give the checkpoint in it.")
    if not path.is_file():
        raise FileNotFoundError(f"there is no network at {path}: check the path.")
    if what := _foreign(path):
        raise ValueError(f"{path} is {what}.")
    if not is_safetensors(path):
        contents = unpickling.load(path)
        try:
            return unpickling.state_dict(contents), {}
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path} holds no network: {error}") from error
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or cut short ({error}): download, copy or train it again.") from error


def is_safetensors(path: Path) -> bool:
    """Tell by a file's contents or, if they say nothing, by its name."""
    with path.open("rb") as file:
        head = file.read(9)
    named = path.suffix.casefold() == ".safetensors" and not head.startswith((b"PK", b"\x80"))
    return named or bool(_SAFETENSORS.match(head))


def _foreign(path: Path) -> str:
    """Say what a file is and what to do, if that is well known not to be a checkpoint."""
    with path.open("rb") as file:
        head = file.read(512)
    if _SAFETENSORS.match(head):
        return ""
    for pattern, what in _HEADS.items():
        if re.match(pattern, head, re.DOTALL | re.IGNORECASE):
            return what
    with suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
        if not any(name.endswith("/data.pkl") for name in archive.namelist()):
            return f"a zip archive without a checkpoint in it: {_UNPACK}"
    return ""


_SAFETENSORS = re.compile(rb".{4}\0{4}\{", re.DOTALL)  # the length of its JSON, and that
_UNPACK = "unpack it and give the .pkl, .pt or .safetensors"
_TEXT = rb"[\xef\xbb\xbf\xff\xfe\s]*\0?"  # a text's byte order mark, in UTF-8 and UTF-16
_HEADS = {  # how a file begins
    rb"version https://git-lfs": "a Git LFS pointer, not the file itself: run `git lfs pull` in its repository, or "
    "download it from the project's page",
    _TEXT + rb"<\0?[!?a-z]": "a web page saved as a file: open its address in a browser and download what it leads to",
    _TEXT + rb"[\[{]": "a text in JSON, settings or a server's answer: give the file with the weights",
    rb"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|Rar!|.{257}ustar": f"an archive, not the file in it: {_UNPACK}",
    rb"\x89HDF": "an HDF5 file, as Keras writes them: give a checkpoint of PyTorch's",
    rb".{0,40}(c|\x8c.)(dnnlib\.tflib|tfutil)": "a TensorFlow-era pickle, which only TensorFlow reads: take the .pkl "
    "of the PyTorch release (stylegan2-ada-pytorch), or convert this one with its legacy.py",
    rb"\x08.\x12": "an ONNX graph, which holds no network to search in: give the checkpoint that it was exported from",
}


def part(tensors: State, *markers: str) -> State:
    """A network's tensors, bare or under any prefix, by a name that it has; of several networks a moving average's."""
    prefixes = [name.removesuffix(end) for name in tensors for end in markers if f".{name}".endswith(f".{end}")]
    if not prefixes:
        names = ", ".join(list(tensors)[:3]) or "nothing"
        raise ValueError(f"no tensor is named like {' or '.join(markers)} (there is {names})")
    return below(tensors, max(prefixes, key=lambda prefix: "ema" in prefix.lower()))


def below(tensors: State, prefix: str) -> State:
    """What bears a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def singles(state: Mapping[str, Tensor]) -> State:
    """Weights that are read, in single precision; a ``ValueError`` names those that are complex or no finite number."""
    real = {name: value.float() for name, value in state.items() if not value.is_complex()}
    if bad := [name for name in state if name not in real or not real[name].isfinite().all()]:
        raise ValueError(
            f"{', '.join(bad[:3])} should hold real numbers, and holds complex or infinite ones or none (NaN): its "
            "training diverged, or it was damaged, so give another checkpoint"
        )
    return real


@torch.inference_mode(False)
def fill(network: Network, state: Mapping[str, Tensor], path: str | Path) -> Network:
    """Give a network its tensors, but for its counters, and return it in evaluation mode.

    Raises
    ------
    ValueError
        The tensors are another network's, or not finite; the message names the file.
    """
    own = network.state_dict()
    given = {name: value for name, value in own.items() if not value.is_floating_point()} | dict(state)  # counters
    differ = [f"it has no {name}" for name in own.keys() - given.keys()]
    differ += [f"{name} is in it" for name in given.keys() - own.keys()]
    differ += [
        f"{name} is {tuple(given[name].shape)} in it and {tuple(value.shape)} here"
        for name, value in own.items()
        if name in given and given[name].shape != value.shape
    ]
    if differ:
        more = f", and {len(differ) - 1} more differ" if len(differ) > 1 else ""
        raise ValueError(
            f"{path} is of another architecture or width than this {type(network).__name__}: {min(differ)}{more}."
        )
    try:
        network.load_state_dict(singles(given))
    except ValueError as error:
        raise ValueError(f"{path} cannot be used: {error}.") from error
    return network.eval()


@undisturbed()
def load(
    path: str | Path, what: str, make: Callable[[State, About], Network], own: Callable[[State], State] = dict
) -> Network:
    """Read a network in evaluation mode: what ``make`` builds of its tensors and of what is said of them, filled.

    ``own`` chooses and names the network's tensors. Errors as `read`'s and `fill`'s; where one of the two fails, a
    ``ValueError`` says that the file holds no ``what``, and why.
    """
    tensors, about = read(path)
    try:
        state = own(tensors)
        network = make(state, about)
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{path} holds no {what}: {str(error).rstrip('.')}.") from error
    return fill(network, state, path)
