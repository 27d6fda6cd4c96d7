"""Trained networks as files: half precision, under the networks' own names, with what is to be known of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from facesr_lib import files
from facesr_lib.assets import unpickling

Network = TypeVar("Network", bound=nn.Module)


def save(network: nn.Module, path: str | Path, about: Mapping[str, str]) -> None:
    """Write a network, whole or not at all: vectors in single precision, all else in half; counters are left out.

    Raises
    ------
    ValueError
        Half precision cannot hold a weight.
    OSError
        It cannot be written; what was there stays.
    """
    state = {
        name: (value.half() if value.ndim > 1 else value.float()).cpu().contiguous()
        for name, value in network.state_dict().items()
        if value.is_floating_point()
    }
    check_finite(state)
    with files.replacing(files.expanded(path)) as temporary:
        save_file(state, temporary, dict(about))


def check_finite(state: Mapping[str, Tensor]) -> None:
    """Raise a ``ValueError`` that names what half precision could not hold."""
    if bad := [name for name, value in state.items() if not value.isfinite().all()]:
        raise ValueError(
            f"{', '.join(bad[:3])} cannot be kept in half precision (at most 65,504), or is no number: the training "
            "diverged."
        )


@torch.inference_mode(False)
def read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read what `save` wrote, or a checkpoint of torch's: tensors, in float32 on the CPU, and what is said of them.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        It is damaged, or refuses to be read safely.
    """
    path = files.expanded(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no network at {path}: check the path.")
    if path.suffix.lower() != ".safetensors":
        return {k: value.float() for k, value in unpickling.state_dict(unpickling.load(path)).items()}, {}
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name).float() for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or cut short ({error}): download, copy or train it again.") from error


@torch.inference_mode(False)
def fill(network: Network, state: Mapping[str, Tensor], path: str | Path) -> Network:
    """Give a network its tensors, but for its counters, and return it in evaluation mode.

    Raises
    ------
    ValueError
        The tensors are another network's; the message names the file.
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
    network.load_state_dict(given)
    return network.eval()
