"""The three kinds of StyleGAN2 checkpoints, read under the official parameter names."""

from __future__ import annotations

import re
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from facesr_lib import unpickling

State = dict[str, Tensor]


def read_stylegan2(path: Path) -> tuple[State, State]:
    """Generator's and discriminator's state dicts; the second is empty if the file holds none.

    ``.safetensors`` with keys ``G.*`` and ``D.*``; the official release's pickle (``G_ema``, ``D``); anything else is
    taken for a rosinality-style checkpoint (``g_ema``, ``latent_avg``, perhaps ``d``).
    """
    if path.suffix == ".safetensors":
        tensors = load_file(path)
        g, d = ({key[2:]: value for key, value in tensors.items() if key.startswith(p)} for p in ("G.", "D."))
        return g, d
    contents = unpickling.load(path)
    if "G_ema" in contents:
        g, d = (unpickling.state_dict(contents[key]) if key in contents else {} for key in ("G_ema", "D"))
        return g, d
    theirs, critic = contents["g_ema"], contents.get("d", {})
    g = {name: theirs[other] for name, other in _generator_names(theirs).items()}
    g["mapping.w_avg"] = contents["latent_avg"]
    return g, {name: critic[other] for name, other in _discriminator_names(critic).items()} if critic else {}


def _generator_names(theirs: State) -> dict[str, str]:
    """Official parameter name → rosinality's."""
    names: dict[str, str] = {}
    for i in range(sum(key.startswith("style.") for key in theirs) // 2):
        names |= {f"mapping.fc{i}.{p}": f"style.{i + 1}.{p}" for p in ("weight", "bias")}
    names["synthesis.b4.const"] = "input.input"

    def add(block: str, layer: str, theirs: str, bias: str) -> None:
        parts = {"weight": "conv.weight", "bias": bias}
        parts |= {f"affine.{p}": f"conv.modulation.{p}" for p in ("weight", "bias")}
        if layer != "torgb":
            parts["noise_strength"] = "noise.weight"
        names.update({f"synthesis.{block}.{layer}.{ours}": f"{theirs}.{name}" for ours, name in parts.items()})

    add("b4", "conv1", "conv1", "activate.bias")
    add("b4", "torgb", "to_rgb1", "bias")
    names["synthesis.b4.conv1.noise_const"] = "noises.noise_0"
    for k in range(sum(bool(re.fullmatch(r"to_rgbs\.\d+\.bias", key)) for key in theirs)):
        block = f"b{8 << k}"
        add(block, "torgb", f"to_rgbs.{k}", "bias")
        for j in (0, 1):
            add(block, f"conv{j}", f"convs.{2 * k + j}", "activate.bias")
            names[f"synthesis.{block}.conv{j}.noise_const"] = f"noises.noise_{2 * k + j + 1}"
    return names


def _discriminator_names(theirs: State) -> dict[str, str]:
    blocks = sum(bool(re.fullmatch(r"convs\.\d+\.skip\.1\.weight", key)) for key in theirs)
    names = {f"b{4 << blocks}.fromrgb.weight": "convs.0.0.weight", f"b{4 << blocks}.fromrgb.bias": "convs.0.1.bias"}
    for k in range(1, blocks + 1):
        block = f"b{4 << (blocks + 1 - k)}"
        names |= {
            f"{block}.conv0.weight": f"convs.{k}.conv1.0.weight",
            f"{block}.conv0.bias": f"convs.{k}.conv1.1.bias",
        }
        names |= {
            f"{block}.conv1.weight": f"convs.{k}.conv2.1.weight",
            f"{block}.conv1.bias": f"convs.{k}.conv2.2.bias",
        }
        names[f"{block}.skip.weight"] = f"convs.{k}.skip.1.weight"
    names |= {"b4.conv.weight": "final_conv.0.weight", "b4.conv.bias": "final_conv.1.bias"}
    for i, layer in enumerate(("fc", "out")):
        names |= {f"b4.{layer}.{p}": f"final_linear.{i}.{p}" for p in ("weight", "bias")}
    return names
