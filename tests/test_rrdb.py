"""ESRGAN's networks and LSRGAN's encoder: parity with the official ones, files of every naming, what is refused."""

import json
import os
from math import log
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from facesr_lib import assets
from facesr_lib.losses import relativistic_discriminator_loss, relativistic_generator_loss
from facesr_lib.networks import rrdb
from facesr_lib.networks.rrdb import CompanionEncoder, PatchDiscriminator, RRDBNet

ORACLES = Path(__file__).parent / "oracles"
RRDB = load_file(ORACLES / "rrdbnet.safetensors")
RAGAN = load_file(ORACLES / "esrgan_d_ragan.safetensors")


def official():
    network = RRDBNet(blocks=2, channels=16, growth=8).eval()
    network.load_state_dict({name[4:]: value for name, value in RRDB.items() if name.startswith("net.")})
    return network


@pytest.fixture(scope="module")
def discriminator():
    """The official discriminator by the oracles' filling rule."""
    network = PatchDiscriminator()
    state = network.state_dict()
    shapes = json.loads((ORACLES / "esrgan_d_keys.json").read_text())["D128"]
    assert {name: list(value.shape) for name, value in state.items()} == shapes
    for j, name in enumerate(shapes):
        i, v = torch.arange(state[name].numel(), dtype=torch.float64), state[name]
        if name.endswith("running_mean"):
            filled = 0.1 * (i + j).sin()
        elif name.endswith("running_var"):
            filled = 1 + 0.5 * (i + j).sin()
        elif v.ndim == 1:
            filled = float(name.endswith("weight")) + 0.1 * (i + j).sin()
        elif v.ndim:
            noise = ((12.9898 * (i + 1) + 78.233 * j).sin() * 43758.5453).remainder(1) - 0.5
            filled = (2 / v[0].numel()) ** 0.5 * 12**0.5 * noise
        else:
            continue
        v.copy_(filled.view_as(v))
    network.load_state_dict(state)
    return network


def test_the_generator_equals_the_official():
    with torch.no_grad():
        assert_close(official()(RRDB["x"]), RRDB["y"], atol=1e-4, rtol=0)


def test_networks_have_the_official_sizes():
    assert sum(p.numel() for p in RRDBNet().parameters()) == 16_697_987
    assert sum(p.numel() for p in PatchDiscriminator().parameters()) == 14_499_401


def test_the_discriminator_equals_the_official(discriminator):
    with torch.no_grad():
        assert_close(discriminator.eval()(RAGAN["x"]), RAGAN["logits_eval"], atol=1e-4, rtol=1e-5)
        assert_close(discriminator.train()(RAGAN["x"]), RAGAN["logits_train"], atol=1e-4, rtol=1e-5)


def test_relativistic_losses_equal_the_official():
    real, fake = RAGAN["real_logits"], RAGAN["fake_logits"].clone().requires_grad_()
    d_loss = relativistic_discriminator_loss(real, fake)
    assert d_loss.shape == (6,)
    assert_close(d_loss.mean().double(), (RAGAN["l_d_real"] + RAGAN["l_d_fake"])[0], atol=1e-6, rtol=0)
    g_loss = relativistic_generator_loss(real, fake).mean()
    g_loss.backward()
    assert_close(g_loss.double(), RAGAN["l_g_gan_w1"][0], atol=1e-6, rtol=0)
    assert_close(fake.grad, RAGAN["grad_fake_of_l_g_gan"], atol=1e-7, rtol=0)


def test_each_side_learns_from_its_own_logits():
    real, fake = torch.randn(2, 5, 1, generator=torch.Generator().manual_seed(0)).requires_grad_()
    even = torch.zeros(5, 1)
    assert_close(relativistic_discriminator_loss(even, even), torch.full((5,), log(2)))
    (for_real,) = torch.autograd.grad(relativistic_generator_loss(real, fake).sum(), real, allow_unused=True)
    assert for_real is None
    up, down = torch.autograd.grad(relativistic_discriminator_loss(real, fake).sum(), (real, fake))
    assert (up < 0).all()  # D raises the real ones' logits
    assert (down > 0).all()


def test_real_esrgan_runs_as_published():
    check = Path(os.environ.get("FACESR_ORACLES", "")) / "realesrgan_check.safetensors"
    release = assets.home() / "models" / "realesrgan-x4plus.safetensors"
    if not (check.is_file() and release.is_file()):
        pytest.skip("realesrgan_check.safetensors or realesrgan-x4plus.safetensors is not on this machine")
    network, oracle = rrdb.load(release), load_file(check)
    assert (network.blocks, network.channels, network.growth, network.scale) == (23, 64, 32, 4)
    with torch.no_grad():
        assert_close(network(oracle["x"]), oracle["y"], atol=1e-3, rtol=0)  # biases were rounded to half precision


def basicsr(name):
    """ESRGAN's name of a parameter → Real-ESRGAN's."""
    if name.startswith("RRDB_trunk."):
        return name.replace("RRDB_trunk", "body").replace("RDB", "rdb")
    names = {"trunk_conv": "conv_body", "upconv1": "conv_up1", "upconv2": "conv_up2", "HRconv": "conv_hr"}
    head, _, tail = name.partition(".")
    return f"{names.get(head, head)}.{tail}"


@pytest.mark.parametrize("naming", [str, basicsr])
@pytest.mark.parametrize("under", [None, "params_ema"])
def test_both_namings_load_from_a_pickle(tmp_path, naming, under):
    network = official()
    state = {naming(name): value for name, value in network.state_dict().items()}
    other = {name: value + 1 for name, value in state.items()}
    torch.save({"params": other, under: state} if under else state, tmp_path / "release.pth")
    loaded = rrdb.load(tmp_path / "release.pth")
    assert not loaded.training
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, network.state_dict()[name])


def test_a_generator_of_any_scale_survives_its_file(tmp_path):
    network = RRDBNet(1, 8, 4, scale=8).eval()
    save_file(network.state_dict(), tmp_path / "g.safetensors")
    loaded = rrdb.load(tmp_path / "g.safetensors")
    x = torch.rand(2, 3, 5, 7)
    with torch.no_grad():
        assert_close(loaded(x), network(x), atol=1e-5, rtol=0)
    assert loaded(x).shape == (2, 3, 40, 56)


def test_an_encoder_survives_its_file_and_gives_small_pictures(tmp_path):
    encoder = CompanionEncoder(8).eval()
    save_file(encoder.state_dict(), tmp_path / "l.safetensors")
    x = torch.rand(2, 3, 32, 48)
    with torch.no_grad():
        small = rrdb.load_encoder(tmp_path / "l.safetensors")(x)
        assert torch.equal(small, encoder(x))
    assert small.shape == (2, 3, 8, 12)


@pytest.fixture
def vgg16(tmp_path, monkeypatch):
    """Stand-ins for VGG16's first layers, where its weights are found."""
    sizes = {0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128), 10: (256, 128), 12: (256, 256), 14: (256, 256)}
    weights = {f"features.{i}.weight": torch.full((*size, 3, 3), i / 100) for i, size in sizes.items()}
    weights |= {f"features.{i}.bias": torch.full((size[0],), -i / 100) for i, size in sizes.items()}
    torch.save(weights | {"classifier.0.weight": torch.zeros(2)}, tmp_path / "vgg16.pth")
    monkeypatch.setattr(assets, "checked", {"vgg16": tmp_path / "vgg16.pth"}.__getitem__)


def test_the_encoder_begins_with_vgg16(vgg16):
    encoder = CompanionEncoder()
    encoder.start_from_vgg16()
    assert encoder.state_dict()["features.14.bias"].eq(-0.14).all()
    with pytest.raises(ValueError, match="this encoder is 16"):
        CompanionEncoder(16).start_from_vgg16()


def test_what_does_not_fit_is_refused(tmp_path):
    def file(**tensors):
        save_file(tensors, tmp_path / "other.safetensors")
        return tmp_path / "other.safetensors"

    with pytest.raises(FileNotFoundError, match="no network at"):
        rrdb.load(tmp_path / "nothing.safetensors")
    with pytest.raises(ValueError, match=r"holds no RRDBNet: .* \(there is fc\.weight\)"):
        rrdb.load(file(**{"fc.weight": torch.zeros(2, 2)}))
    with pytest.raises(ValueError, match="reads 12 channels"):
        rrdb.load(file(**{"conv_first.weight": torch.zeros(8, 12, 3, 3)}))
    state = official().state_dict()
    with pytest.raises(ValueError, match="another architecture or width than this RRDBNet"):
        rrdb.load(file(**{name: value for name, value in state.items() if "conv3" not in name}))
    with pytest.raises(ValueError, match="holds no companion encoder"):
        rrdb.load_encoder(file(**state))
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "other.safetensors").read_bytes()[:1000])
    with pytest.raises(ValueError, match="damaged or cut short"):
        rrdb.load(tmp_path / "cut.safetensors")
    with pytest.raises(ValueError, match="scale is 2, 4, 8 or 16; got 3"):
        RRDBNet(scale=3)
    with pytest.raises(ValueError, match="multiple of 32; got 100"):
        PatchDiscriminator(size=100)
    with pytest.raises(ValueError, match="patches of 32×32; got 32×64"):
        PatchDiscriminator(4, 32)(torch.zeros(1, 3, 64, 32))
    with pytest.raises(ValueError, match="multiples of 8; got 32×20"):
        CompanionEncoder(4)(torch.zeros(1, 3, 20, 32))
