"""Which device to compute on."""

from __future__ import annotations

import torch


def pick_device(name: str) -> str:
    """Resolve "auto" to "cuda" if there is a GPU, else to "cpu"; a ``ValueError`` if a device is not there."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"device {name!r} cannot be used here ({reason}): try 'cpu' or 'auto'.") from error
    return name
