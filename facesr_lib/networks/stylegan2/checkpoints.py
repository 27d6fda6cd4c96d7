"""StyleGAN2 checkpoints as people have them, read under the official parameter names without executing anything."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import torch

from facesr_lib import randomness
from facesr_lib.networks import checkpoints
from facesr_lib.networks.checkpoints import Network, State
from facesr_lib.networks.stylegan2.discriminator import Discriminator
from facesr_lib.networks.stylegan2.generator import Generator


@torch.inference_mode(False)
def load(path: str | Path) -> tuple[Generator, Discriminator | None]:
    """Read a StyleGAN2 checkpoint without executing anything in it.

    Parameters
    ----------
    path
        ``.safetensors``, torch's ``.pt`` or a pickle, whatever its name. Parameters bear the official PyTorch
        release's names or rosinality's, in state dicts or pickled modules, bare or under any prefix (``G_ema``,
        ``g_ema``, ``module.``, an encoder's ``decoder.``); of several generators a moving average is taken. What
        rosinality-style files may lack is made up: noise maps are drawn (N(0, 1), the same in every load), the mean of
        W is estimated from 10,000 codes (with a warning where there is one that cannot be read). A mean code per layer
        is averaged.

    Returns
    -------
    generator, discriminator
        In eval mode on the CPU, float32; sizes follow from the weights. ``None`` if the file holds no discriminator, or
        (with a warning) one of another architecture.

    Raises
    ------
    ValueError
        If the file is corrupt, refuses to be read safely, or holds no StyleGAN2 generator; the message says what it is.
    """
    state, _ = checkpoints.read(path)
    try:
        generator = _generator(state, path).eval()
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} holds no StyleGAN2 checkpoint that can be read: {_words(error)}.") from error
    try:
        return generator, _discriminator(state)
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        without = "is of another architecture, or broken, and left out; methods that need one cannot use this prior"
        warnings.warn(f"{path}: its discriminator {without} ({_words(error)}).", stacklevel=2)
        return generator, None


def _generator(tensors: State, path: str | Path) -> Generator:
    if any(re.search(r"(^|\.)synthesis\.(L\d+_\d+_\d+|input)\.", name) for name in tensors):
        raise ValueError("it is a StyleGAN3 generator, which has no octaves: give one of StyleGAN2")
    state = checkpoints.part(tensors, "synthesis.b4.const", "input.input")
    if "mapping.embed.weight" in state:
        raise ValueError("it is class-conditional, and faces have no classes: give an unconditional generator")
    if "input.input" in state:
        state = {ours: state[name] for name in state if (ours := _generator_name(name))}
    state = {name: value for name, value in state.items() if name.startswith(("mapping.", "synthesis."))}
    sizes = _sizes(state, r"synthesis\.b(\d+)\.conv1\.bias")
    w_dim, z_dim = state["mapping.fc0.weight"].shape
    depth = sum(bool(re.fullmatch(r"mapping\.fc\d+\.bias", name)) for name in state)
    means = [value for name, value in tensors.items() if name.split(".")[-1] == "latent_avg"]
    estimated = "mapping.w_avg" not in state and not means  # rosinality's training script does not store it
    if "mapping.w_avg" not in state:
        state["mapping.w_avg"] = means[0].double().reshape(-1, w_dim).mean(0) if means else torch.zeros(w_dim)
    with torch.device("meta"):  # nothing is reserved before the file has shown that it holds it
        generator = Generator(z_dim, w_dim, *sizes, depth)
    draws = randomness.generators(0, 1)
    for name, value in generator.state_dict().items():
        if name.endswith("noise_const") and name not in state:
            state[name] = randomness.normal(draws, *value.shape)[0]
    _filled(generator, state)
    if estimated:
        if unread := [name for name in tensors if re.search(r"(^|\.)latent_avg \(", name)]:
            warnings.warn(f"{path}: {unread[0]}; the mean of W is estimated from 10,000 codes.", stacklevel=3)
        with torch.no_grad():
            codes = generator.mapping(randomness.normal(randomness.generators(0, 10_000), z_dim))
            generator.mapping.w_avg.copy_(codes.mean(0))
    return generator


def _discriminator(tensors: State) -> Discriminator | None:
    if not any(re.match(r"(.*\.)?d(iscriminator)?(_ema)?\.", name, re.IGNORECASE) for name in tensors):
        return None
    state = checkpoints.part(tensors, "b4.out.weight", "final_linear.1.weight")
    if "final_linear.1.weight" in state:
        side = 4 << sum(bool(re.fullmatch(r"convs\.\d+\.skip\.1\.weight", name)) for name in state)
        state = {ours: state[name] for name in state if (ours := _discriminator_name(name, side))}
    resolution, base, _ = _sizes(state, r"b(\d+)\.conv0\.bias")
    with torch.device("meta"):
        discriminator = Discriminator(resolution, base, state["b4.fc.bias"].shape[0])
    return _filled(discriminator, state).eval()


def _sizes(state: State, pattern: str) -> tuple[int, int, int]:
    """Resolution, ``channel_base`` and ``channel_max``, by the parameters that say how many channels there are."""
    matches = {name: re.fullmatch(pattern, name) for name in state}
    found = {int(match[1]): len(state[name]) for name, match in matches.items() if match}
    if not 4 <= max(found, default=0) <= 4096:
        raise ValueError(f"no parameter, or one of more than 4096² pixels, is named like {pattern}")
    return max(found), max(found) * found[max(found)], max(found.values())


def _filled(network: Network, state: State) -> Network:
    wanted = network.state_dict()
    real = checkpoints.singles(state)
    kept = {name: value.clone(memory_format=torch.contiguous_format) for name, value in real.items()}
    for name in wanted.keys() & kept.keys():  # rosinality keeps singletons: (1, C, 1, 1) biases, (1,) strengths
        if kept[name].numel() == wanted[name].numel():
            kept[name] = kept[name].reshape(wanted[name].shape)
    network.load_state_dict(kept, strict=True, assign=True)
    return network


def _words(error: Exception) -> str:
    return " ".join(str(error.args[0] if error.args else error).split()).rstrip(".")


def _generator_name(name: str) -> str:
    """Return the official name of a parameter of rosinality's generator."""
    if re.search(r"\d{3}|kernel$", name):  # no network is so deep; low-pass filters are constants here
        return ""
    match name.split("."):
        case "style", i, part:
            return f"mapping.fc{int(i) - 1}.{part}"
        case "input", "input":
            return "synthesis.b4.const"
        case "noises", noise:
            return f"synthesis.{_layer(int(noise.removeprefix('noise_')))}.noise_const"
        case "conv1", *part:
            place = _layer(0)
        case "convs", n, *part:
            place = _layer(int(n) + 1)
        case "to_rgb1", *part:
            place = "b4.torgb"
        case "to_rgbs", k, *part:
            place = f"b{8 << int(k)}.torgb"
        case _:
            return name
    ours = {
        "conv.modulation": "affine",
        "conv.weight": "weight",
        "activate.bias": "bias",
        "noise.weight": "noise_strength",
    }
    return f"synthesis.{place}." + re.sub("|".join(ours), lambda match: ours[match[0]], ".".join(part))


def _layer(n: int) -> str:
    return f"b{4 << (n + 1) // 2}.conv{(n + 1) % 2}"  # b4.conv1, b8.conv0, b8.conv1, ...


def _discriminator_name(name: str, side: int) -> str:
    """Return the official name of a parameter of rosinality's discriminator of pictures of ``side``²."""
    match name.split("."):
        case *_, "kernel":
            return ""
        case "convs", "0", _, part:
            return f"b{side}.fromrgb.{part}"
        case "convs", k, layer, _, part:
            return f"b{side >> int(k) - 1}.{ {'conv1': 'conv0', 'conv2': 'conv1'}.get(layer, layer) }.{part}"
        case "final_conv", _, part:
            return f"b4.conv.{part}"
        case "final_linear", i, part:
            return f"b4.{('fc', 'out')[int(i)]}.{part}"
    return name
