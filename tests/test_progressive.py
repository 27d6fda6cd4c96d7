"""Progressive super-resolution: parity with the official networks at every step, and its training."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from facesr_lib.networks import progressive
from facesr_lib.networks.progressive import ProgressiveDiscriminator, ProgressiveGenerator

ORACLES = Path(__file__).parent / "oracles"
SIDES = {1: 32, 2: 64, 3: 128}


@pytest.fixture(scope="module")
def oracle():
    return load_file(ORACLES / "progressive.safetensors")


@pytest.fixture(scope="module")
def official():
    """Both networks with the weights of the oracle, by the rule in its README."""
    names = json.loads((ORACLES / "progressive_keys.json").read_text())
    networks = {"G": ProgressiveGenerator().eval(), "D": ProgressiveDiscriminator().eval()}
    for key, network in networks.items():
        state = network.state_dict()
        assert [[name, list(v.shape)] for name, v in state.items()] == [list(entry) for entry in names[key].items()]
        for j, (name, v) in enumerate(state.items()):
            v.copy_(filled(name, v, j))
    return networks


def filled(name, v, j):
    i = torch.arange(v.numel(), dtype=torch.float64)
    if name.endswith("num_batches_tracked"):
        return v
    if name.endswith("running_mean"):
        values = 0.1 * torch.sin(i + j)
    elif name.endswith("running_var"):
        values = 1 + 0.5 * torch.sin(i + j)
    elif v.ndim == 1:
        values = name.endswith("weight") + 0.1 * torch.sin(i + j)
    else:
        noise = torch.sin(12.9898 * (i + 1) + 78.233 * j) * 43758.5453
        scale = 1 if name.endswith("weight_orig") else math.sqrt(2 / v[0].numel())
        values = scale * math.sqrt(12) * (noise - noise.floor() - 0.5)
    return values.reshape(v.shape).float()


FADES = [(1, -1.0), (2, -1.0), (2, 0.3), (3, -1.0), (3, 0.6)]


@pytest.mark.parametrize(("step", "alpha"), FADES)
def test_both_networks_equal_the_official_at_every_step(oracle, official, step, alpha):
    case = f"step{step}_alpha{alpha:g}"
    with torch.no_grad():
        image = official["G"](oracle["x16"], step, alpha)
        verdict = official["D"](oracle[f"D_in_{case}"], step, alpha)
    assert_close(image, oracle[f"G_{case}"], atol=1e-4, rtol=0)
    assert_close(verdict, oracle[f"D_{case}"], atol=1e-4, rtol=0)


def test_the_networks_have_the_papers_sizes():
    sizes = [
        sum(p.numel() for p in network().parameters()) for network in (ProgressiveGenerator, ProgressiveDiscriminator)
    ]
    assert sizes == [8_969_097, 8_065_537]


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return ProgressiveGenerator(1 / 16).eval(), ProgressiveDiscriminator(1 / 16)


@pytest.mark.parametrize("step", [2, 3])
def test_a_step_fades_in_from_the_one_before(small, step):
    generator, discriminator = small
    x, image = torch.randn(2, 3, 16, 16), torch.randn(2, 3, SIDES[step], SIDES[step])
    with torch.no_grad():
        before = generator(x, step - 1).repeat_interleave(2, 2).repeat_interleave(2, 3)
        assert_close(generator(x, step, 0.0), before)
        assert torch.equal(generator(x, step, 1.0), generator(x, step))
        assert torch.equal(discriminator(image, step, 1.0), discriminator(image, step))
        halfway = (generator(x, step, 0.0) + generator(x, step)) / 2
        assert_close(generator(x, step, 0.5), halfway, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("step", [1, 2, 3])
def test_one_face_alone_and_faces_that_agree_are_judged_by_numbers(small, step):
    alone = torch.randn(1, 3, SIDES[step], SIDES[step])
    for x in (alone, alone.expand(3, -1, -1, -1)):
        x = x.clone().requires_grad_(True)
        verdict = small[1](x, step, 0.5)
        (slope,) = torch.autograd.grad(verdict.sum(), x, create_graph=True)
        slope.square().sum().backward()
        assert verdict.isfinite().all()
        assert x.grad.isfinite().all()


def test_the_batch_counts_only_by_its_spread():
    x = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    assert_close(progressive.spread(x), x.float().std(0).mean())


@pytest.mark.parametrize("width", [0.25, 0.5])
def test_width_is_a_factor_on_the_channels(width):
    generator = ProgressiveGenerator(width)
    assert generator.step1[0].out_channels == 512 * width
    assert generator.to_rgb[2].in_channels == 64 * width


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g, d: g(torch.zeros(1, 3, 16, 16), 4), "step must be 1"),
        (lambda g, d: g(torch.zeros(1, 3, 16, 16), 0), "got 0"),
        (lambda g, d: g(torch.zeros(1, 3, 16, 16), 2, 1.5), "alpha must be at most 1"),
        (lambda g, d: d(torch.zeros(1, 3, 128, 128), 2, math.nan), "got nan"),
        (lambda g, d: d(torch.zeros(1, 3, 64, 64), 3), r"\(N, 3, 128, 128\); got \(1, 3, 64, 64\)"),
        (lambda g, d: ProgressiveGenerator(0.0), "width must be"),
    ],
)
def test_what_cannot_be_is_refused(small, call, message):
    with pytest.raises(ValueError, match=message):
        call(*small)
