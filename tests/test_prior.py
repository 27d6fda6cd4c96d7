"""The face prior: the shipped one, saving and loading, samples and what a batch may change."""

from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from facesr_lib import assets
from facesr_lib.networks import stylegan2
from facesr_lib.prior import FacePrior, PulseGaussian


@pytest.fixture(scope="module")
def prior():
    return FacePrior.load("faces-64")


def test_the_shipped_prior_is_what_its_card_says(prior):
    assert (prior.resolution, prior.num_ws, prior.z_dim, prior.w_dim) == (64, 10, 128, 128)
    assert sum(p.numel() for p in prior.generator.parameters()) == pytest.approx(2.77e6, rel=0.01)
    assert sum(p.numel() for p in prior.discriminator.parameters()) == pytest.approx(3.51e6, rel=0.01)
    assert prior.flow is not None
    with safe_open(assets.path("faces-64"), "pt") as file:
        seen = int(file.metadata()["images_seen"])
    assert f"{seen:,} images seen" in (assets.SHIPPED / "faces-64.md").read_text(encoding="utf-8")


def test_the_stored_gaussianisation_is_the_fit(prior):
    fitted = PulseGaussian.fit(prior.generator.mapping, count=100_000, seed=1)
    assert_close(prior.pulse_gaussian.std, fitted.std, atol=0, rtol=0.02)
    assert_close(prior.pulse_gaussian.mean, fitted.mean, atol=0.02, rtol=0)


def test_the_shipped_flow_has_a_code_for_every_draw(prior):
    if prior.flow.bounds is None:
        pytest.skip("the shipped flow is of the earlier kind, without bounds")
    v = torch.randn(2000, 128, generator=torch.Generator().manual_seed(0))
    w = prior.flow.inverse(v)
    assert w.isfinite().all()
    assert_close(prior.flow.gaussianise(w), v, atol=1e-3, rtol=0)
    assert ((w - prior.flow.mean) / prior.flow.std).abs().amax(1).quantile(0.99) < 20


def test_samples_look_like_pictures_and_follow_their_seed(prior):
    faces, w = prior.sample(4, seed=3)
    assert faces.shape == (4, 3, 64, 64)
    assert w.shape == (4, 10, 128)
    assert 0 <= faces.min() < 0.2 < 0.8 < faces.max() <= 1
    assert_close(prior.sample(2, seed=3)[0], faces[:2], atol=1e-5, rtol=0)
    spread = prior.sample(8, seed=3, truncation_psi=0.3)[0].std(0).mean()
    assert spread < 0.7 * prior.sample(8, seed=3)[0].std(0).mean()
    average = prior.synthesise(prior.mean_w())
    assert_close(prior.sample(1, truncation_psi=0.0)[0], average, atol=1e-5, rtol=0)


def test_a_large_batch_is_rendered_in_parts_of_equal_pictures(prior):
    w = prior.sample_w(33, seed=1)
    assert_close(prior.synthesise(w)[32:], prior.synthesise(w[32:]), atol=1e-5, rtol=0)


def test_saving_and_loading_changes_nothing_but_precision(prior, tmp_path):
    prior.save(tmp_path / "copy.safetensors", {"images_seen": "1"})
    copy = FacePrior.load(str(tmp_path / "copy.safetensors"))
    w = prior.sample_w(2, seed=5)
    assert torch.equal(copy.synthesise(w), prior.synthesise(w))  # the shipped weights are half precision already
    assert torch.equal(copy.pulse_gaussian.std, prior.pulse_gaussian.std)
    assert [p.name for p in tmp_path.iterdir()] == ["copy.safetensors"]
    assert torch.equal(FacePrior.load(tmp_path / "copy.safetensors").synthesise(w), prior.synthesise(w))


def test_a_prior_in_the_users_folder_keeps_its_statistics_whatever_the_case(prior, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    prior.save(tmp_path / "MINE.SAFETENSORS")
    mine = FacePrior.load("~/MINE.SAFETENSORS")
    assert torch.equal(mine.pulse_gaussian.mean, prior.pulse_gaussian.mean)
    assert mine.flow is not None


def test_a_checkpoint_needs_no_suffix(tmp_path):
    torch.save({"g_ema": {}}, tmp_path / "checkpoint")
    with pytest.raises(ValueError, match="holds no StyleGAN2 checkpoint"):
        FacePrior.load(tmp_path / "checkpoint")
    with pytest.raises(ValueError, match="faces-64"):
        FacePrior.load(Path("faces-46"))


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta:"])
def test_a_device_that_is_not_there_is_named(device):
    with pytest.raises(ValueError, match=f"device '{device}' cannot be used here"):
        FacePrior.load("faces-64", device)


def test_bfloat16_draws_nearly_the_same_faces(prior):
    half = FacePrior.load("faces-64", precision=torch.bfloat16)
    w = prior.sample_w(2, seed=5)
    assert_close(half.synthesise(w), prior.synthesise(w), atol=0.1, rtol=0)
    assert half.render(w).dtype == torch.float32


def test_statistics_lie_beside_a_foreign_checkpoint_and_must_fit_it(prior, monkeypatch, tmp_path):
    monkeypatch.setenv("FACESR_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    beside = tmp_path / "models" / "stylegan2-ffhq-1024.safetensors"
    monkeypatch.setattr(stylegan2, "load", lambda path: (prior.generator, prior.discriminator))
    beside.with_suffix(".pkl").write_bytes(b"whatever the official file holds")
    assert FacePrior.load("stylegan2-ffhq-1024").flow is None
    prior.save(beside)
    official = FacePrior.load("stylegan2-ffhq-1024")
    w = prior.sample_w(2, seed=1)[:, 0]
    assert_close(official.flow.gaussianise(w), prior.flow.gaussianise(w))
    save_file({"pulse.mean": torch.zeros(3), "pulse.std": torch.ones(3)}, beside)
    with pytest.raises(ValueError, match="belong to another prior"):
        FacePrior.load("stylegan2-ffhq-1024")
    beside.write_bytes(b"cut off")
    with pytest.raises(ValueError, match="cannot be read"):
        FacePrior.load("stylegan2-ffhq-1024")


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("faces-46", ValueError, "faces-64"),
        ("no/such/file.pkl", FileNotFoundError, "no/such/file.pkl"),
    ],
)
def test_what_is_not_there_is_named(name, error, message):
    with pytest.raises(error, match=message):
        FacePrior.load(name)


def test_a_flow_beside_a_checkpoint_is_used_only_if_it_is_that_checkpoints(prior, monkeypatch, tmp_path):
    other = stylegan2.Generator(128, 128, 64, channel_base=2048, channel_max=256)
    monkeypatch.setattr(stylegan2, "load", lambda path: (other, None))
    (tmp_path / "other.pkl").write_bytes(b"whatever the official file holds")
    prior.save(tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other\.safetensors belong to another prior: its mapping network is another"):
        FacePrior.load(tmp_path / "other.pkl")


def test_statistics_of_which_nobody_knows_whose_they_are_are_not_used(prior, monkeypatch, tmp_path):
    monkeypatch.setattr(stylegan2, "load", lambda path: (prior.generator, None))
    (tmp_path / "mine.pkl").write_bytes(b"whatever the official file holds")
    prior.save(tmp_path / "mine.safetensors")
    assert FacePrior.load(tmp_path / "mine.pkl").flow is not None
    held = load_file(tmp_path / "mine.safetensors")
    for kept in (("F.",), ("pulse.",), ("F.", "pulse.", "G.mapping.fc0")):
        part = {name: value for name, value in held.items() if name.startswith(kept)}
        save_file(part, tmp_path / "mine.safetensors")
        with pytest.raises(ValueError, match=r"mine\.safetensors belong to another prior: .* is another, or not there"):
            FacePrior.load(tmp_path / "mine.pkl")


@pytest.mark.parametrize("name", ["F.mean", "F.blocks.0.net.final_layer.bias", "pulse.std"])
def test_statistics_that_are_no_numbers_are_refused(prior, tmp_path, name):
    prior.save(tmp_path / "prior.safetensors")
    held = load_file(tmp_path / "prior.safetensors")
    held[name][0] = torch.nan
    save_file(held, tmp_path / "prior.safetensors")
    with pytest.raises(ValueError, match=rf"in .*prior\.safetensors cannot be used: {name} should hold real"):
        FacePrior.load(tmp_path / "prior.safetensors")


def test_a_prior_that_could_not_be_read_again_is_not_written(tmp_path):
    generator = stylegan2.Generator(4, 4, 8, channel_base=64, channel_max=8)
    tiny = FacePrior("tiny", generator, None)
    for name in ("prior.pt", "prior", "prior.safetensors.bak"):
        with pytest.raises(ValueError, match=r"ends in \.safetensors; got .*prior"):
            tiny.save(tmp_path / name)
    generator.synthesis.b8.conv1.bias[0] = 1e6
    with pytest.raises(ValueError, match=r"G\.synthesis\.b8\.conv1\.bias cannot be kept in half precision"):
        tiny.save(tmp_path / "prior.safetensors")
    generator.synthesis.b8.conv1.bias[0] = 0
    tiny.pulse_gaussian.std[0] = torch.nan
    with pytest.raises(ValueError, match=r"pulse\.std cannot be kept"):
        tiny.save(tmp_path / "prior.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [SafetensorError("I/O error: No space left on device"), OSError(28, "No space left")])
def test_a_full_disk_is_told_with_the_path(tmp_path, monkeypatch, error):
    tiny = FacePrior("tiny", stylegan2.Generator(4, 4, 8, channel_base=64, channel_max=8), None)
    tiny.save(tmp_path / "prior.safetensors")
    before = (tmp_path / "prior.safetensors").read_bytes()

    def full(tensors, path, metadata):
        path.write_bytes(b"the first half")
        raise error

    monkeypatch.setattr("facesr_lib.prior.face_prior.save_file", full)
    with pytest.raises(OSError, match=r"prior\.safetensors.*No space left|No space left.*prior\.safetensors"):
        tiny.save(tmp_path / "prior.safetensors")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "n must be a whole number, at least 1; got 0"),
        ({"n": 1.5}, "n must be a whole number, at least 1; got 1.5"),
        ({"n": 1, "seed": None}, "a seed is a whole number"),
        ({"n": 1, "truncation_psi": float("nan")}, "truncation_psi must be a finite number; got nan"),
    ],
)
def test_samples_that_cannot_be_drawn_are_refused(prior, options, message):
    with pytest.raises(ValueError, match=message):
        prior.sample(**options)


def test_unknown_noise_is_refused(prior):
    with pytest.raises(ValueError, match=r"there is no noise 'pink'.*random, const, none"):
        prior.noise_maps("pink", [])
