"""The parsing network: parity with the official one, its training, and how its maps are judged."""

import json

import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file
from torch.testing import assert_close

from facesr_lib.networks.parsing import CLASSES, ParsingNetwork

ORACLES = ROOT / "tests" / "oracles"
SMALL = {"size": 64, "bottleneck": 4, "width": 8, "max_width": 32, "depth": 2}


@pytest.fixture(scope="module")
def oracle():
    return load_file(ORACLES / "fpn_parsenet.safetensors")


def filled(names, template):
    """Fill every tensor by the rule of the oracles' README, j counting through the names."""
    state = {}
    for j, name in enumerate(names):
        value = template[name]
        i = torch.arange(value.numel(), dtype=torch.float64).reshape(value.shape)
        wave = torch.sin(i + j)
        if not value.is_floating_point():
            state[name] = value
        elif name.endswith("running_mean"):
            state[name] = 0.1 * wave
        elif name.endswith("running_var"):
            state[name] = 1 + 0.5 * wave
        elif value.ndim == 1:
            state[name] = name.endswith("weight") + 0.1 * wave
        else:
            noise = torch.sin(12.9898 * (i + 1) + 78.233 * j) * 43758.5453
            state[name] = (2 / value[0].numel()) ** 0.5 * 12**0.5 * (noise - noise.floor() - 0.5)
    return state


@pytest.mark.parametrize(("kind", "sizes"), [("small", SMALL), ("full", {})])
def test_the_network_equals_the_official(kind, sizes, oracle):
    network = ParsingNetwork(**sizes).eval()
    names = json.loads((ORACLES / "fpn_parsenet_keys.json").read_text())[kind]
    assert {name: list(value.shape) for name, value in network.state_dict().items()} == names
    network.load_state_dict(filled(names, network.state_dict()))
    cases = {f"{kind}": oracle["x"]} | ({"small_rect": oracle["x_rect"]} if kind == "small" else {})
    for case, x in cases.items():
        with torch.no_grad():
            logits, image = network((x + 1) / 2)
        for ours, theirs in ((logits, oracle[f"{case}_mask"]), (2 * image - 1, oracle[f"{case}_image"])):
            assert_close(ours / theirs.std(), theirs / theirs.std(), atol=1e-4, rtol=0)


def test_the_network_has_the_papers_number_of_parameters():
    assert sum(p.numel() for p in ParsingNetwork().parameters()) == 21_303_254
    assert len(CLASSES) == 19
