"""Networks that enlarge in one pass, and the loop that trains them: parity, sizes, priors, losses, resume."""

import json
from math import sqrt
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from facesr_lib import images
from facesr_lib.networks import supervised as networks

ORACLES = Path(__file__).parent / "oracles"
ORACLE = load_file(ORACLES / "baselines.safetensors")
KEYS = json.loads((ORACLES / "baselines_keys.json").read_text())


def filled(network, keys):
    """Fill a network by the oracles' rule: the j-th tensor from its name, its shape and j."""
    state = network.state_dict()
    for j, (name, shape) in enumerate(keys.items()):
        i = torch.arange(state[name].numel(), dtype=torch.float64)
        if name.endswith("num_batches_tracked"):
            continue
        if name.endswith("running_mean"):
            values = 0.1 * (i + j).sin()
        elif name.endswith("running_var"):
            values = 1 + 0.5 * (i + j).sin()
        elif len(shape) == 1:
            values = name.endswith("weight") + 0.1 * (i + j).sin()
        else:
            noise = (12.9898 * (i + 1) + 78.233 * j).sin() * 43758.5453
            values = sqrt(2 / state[name][0].numel()) * sqrt(12) * (noise - noise.floor() - 0.5)
        assert list(state[name].shape) == shape
        state[name] = values.float().view(state[name].shape)
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


def count(network, prefix=""):
    return sum(p.numel() for name, p in network.named_parameters() if name.startswith(prefix))


def test_vdsr_equals_the_reimplementation():
    network = networks.VDSR()
    assert network.state_dict().keys() == KEYS["vdsr"].keys()
    assert_close(filled(network, KEYS["vdsr"])(ORACLE["vdsr_x"]), ORACLE["vdsr_y"], atol=1e-4, rtol=0)


def test_fsrnet_equals_the_reimplementation():
    network = networks.FSRNet()
    assert network.state_dict().keys() - KEYS["fsrnet"].keys() == {
        f"prior_conv{i}.{part}" for i in (1, 2) for part in ("weight", "bias")
    }
    coarse, priors, fine = filled(network, KEYS["fsrnet"])(ORACLE["fsrnet_x"])
    assert priors.shape == (1, 79, 16, 16)
    assert_close(coarse, ORACLE["fsrnet_coarse"], atol=1e-4, rtol=0)
    assert_close(fine, ORACLE["fsrnet_y"], atol=1e-4, rtol=0)
    # tanh of numbers in the thousands: where one of them passes zero, rounding shows
    assert (network.fine_SR_Encoder(coarse) - ORACLE["fsrnet_encoder"]).abs().mean() < 1e-5
    prior = network.prior_Estimation_Network(ORACLE["fsrnet_coarse"])
    assert (prior - ORACLE["fsrnet_prior"]).abs().max() < 1e-4 * ORACLE["fsrnet_prior"].std()


@pytest.mark.parametrize(
    ("network", "parameters"),
    [
        (networks.VDSR, 664_704),
        (networks.URDGN, 1_054_243),
        (networks.URDGNDiscriminator, 6_859_425),
        (networks.FSRNet, 3_262_272 + 8_772 + 1_419),
        (networks.FSRGANDiscriminator, 4_693_697),
    ],
)
def test_networks_have_their_papers_numbers_of_parameters(network, parameters):
    assert count(network()) == parameters
    assert count(network(0.5)) < 0.3 * parameters


def test_the_parts_of_fsrnet_have_their_numbers_of_parameters():
    network = networks.FSRNet()
    parts = {"coarse": 225_536, "fine_SR_Encoder": 926_528, "prior_Est": 1_738_816, "fine_SR_Decoder": 371_392}
    assert {part: count(network, part) for part in parts} == parts


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_a_face_becomes_eight_times_larger(name):
    network = networks.NETWORKS[name](0.1).eval()
    lowres = torch.rand(2, 3, 16, 16)
    large = network.enlarge(lowres)
    assert large.shape == (2, 3, 128, 128)
    assert_close(network.enlarge(lowres[1:]), large[1:], atol=1e-5, rtol=0)


def test_vdsr_sharpens_luminance_and_leaves_colour():
    network, lowres = networks.VDSR(0.1), torch.rand(1, 3, 8, 8)
    before, after = networks.upsample(lowres), network.enlarge(lowres).detach()
    assert_close(images.luma(after), network(images.luma(before)).detach(), atol=1e-5, rtol=0)
    assert_close(after[:, 0] - after[:, 2], before[:, 0] - before[:, 2], atol=1e-5, rtol=0)
    assert (after - before).abs().max() > 1e-3


@pytest.mark.parametrize("critic", [networks.URDGNDiscriminator(0.1), networks.FSRGANDiscriminator(0.1)])
def test_critics_judge_each_picture(critic):
    logits = critic.eval()(torch.rand(2, 3, 128, 128))
    assert logits.shape in {(2, 1), (2, 1, 8, 8)}
    assert (logits[0] - logits[1]).abs().max() > 0
