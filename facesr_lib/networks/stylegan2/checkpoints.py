"""StyleGAN2 checkpoints of three kinds, read under the official parameter names without executing anything."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from facesr_lib import randomness
from facesr_lib.assets import unpickling
from facesr_lib.networks.stylegan2.discriminator import Discriminator
from facesr_lib.networks.stylegan2.generator import Generator, MappingNetwork

State = dict[str, Tensor]


def load(path: str | Path) -> tuple[Generator, Discriminator | None]:
    """Read a StyleGAN2 checkpoint without executing anything in it.

    Parameters
    ----------
    path
        ``.safetensors`` with keys ``G.*`` and optionally ``D.*``, the official PyTorch release's ``.pkl``
        (its moving average ``G_ema`` is taken), or a rosinality-style ``.pt``. Its training script stores no mean of W:
        it is estimated from 10,000 codes then.

    Returns
    -------
    generator, discriminator
        In eval mode on the CPU, float32; sizes follow from the weights. ``None`` if the file holds no discriminator.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is corrupt, refuses to be read safely, or holds no StyleGAN2 generator.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}.")
    try:
        g_state, d_state = _read_states(path)
        return _build_generator(g_state).eval(), _build_discriminator(d_state).eval() if d_state else None
    except (KeyError, IndexError, AttributeError, TypeError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{path} holds no StyleGAN2 checkpoint that can be read: {error}.") from error


def _build_generator(state: State) -> Generator:
    channels = _channels(state, r"synthesis\.b(\d+)\.conv1\.bias")
    generator = Generator(
        z_dim=state["mapping.fc0.weight"].shape[1],
        w_dim=state["mapping.fc0.weight"].shape[0],
        img_resolution=max(channels),
        channel_base=max(channels) * channels[max(channels)],
        channel_max=max(channels.values()),
        num_mapping_layers=sum(bool(re.fullmatch(r"mapping\.fc\d+\.bias", key)) for key in state),
    )
    return _load_strictly(generator, state)


def _build_discriminator(state: State) -> Discriminator:
    channels = _channels(state, r"b(\d+)\.conv0\.bias")
    base = max(channels) * channels[max(channels)]
    return _load_strictly(Discriminator(max(channels), base, state["b4.fc.bias"].shape[0]), state)


def _channels(state: State, pattern: str) -> dict[int, int]:
    matches = {key: re.fullmatch(pattern, key) for key in state}
    found = {int(match[1]): len(state[key]) for key, match in matches.items() if match}
    if not found:
        raise KeyError(f"no parameter is named like {pattern}")
    return found


def _load_strictly(network: nn.Module, state: State):  # type: ignore[no-untyped-def]
    wanted = network.state_dict()
    kept = {k: v.float() for k, v in state.items()}
    for key in wanted.keys() & kept.keys():  # rosinality keeps singletons: (1, C, 1, 1) biases, (1,) strengths
        if kept[key].numel() == wanted[key].numel():
            kept[key] = kept[key].reshape(wanted[key].shape)
    network.load_state_dict(kept, strict=True)
    return network


def _read_states(path: Path) -> tuple[State, State]:
    """Generator's and discriminator's state dicts; the second is empty if the file holds none.

    ``.safetensors`` with keys ``G.*`` and ``D.*``; the official release's pickle (``G_ema``, ``D``); anything else is
    taken for a rosinality-style checkpoint (``g_ema``, perhaps ``latent_avg``, perhaps ``d``).
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
    g["mapping.w_avg"] = contents["latent_avg"] if "latent_avg" in contents else _mean_code(g)
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


@torch.no_grad()
def _mean_code(g: State) -> Tensor:
    """Estimate the mean of W, which rosinality's training script does not store."""
    weights = {key.removeprefix("mapping."): value for key, value in g.items() if key.startswith("mapping.")}
    w_dim, z_dim = weights["fc0.weight"].shape
    mapping = MappingNetwork(z_dim, w_dim, len(weights) // 2)
    mapping.load_state_dict(weights | {"w_avg": torch.zeros(w_dim)})
    return mapping(randomness.normal(randomness.generators(0, 10_000), z_dim)).mean(0)


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
