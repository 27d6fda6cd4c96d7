"""Metrics: parity with BasicSR and torchmetrics, what holds for any images, refusals instead of approximations."""

import hashlib
import os
import urllib.request
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.testing import assert_close

from facesr_lib import assets, images, metrics, niqe_model

PER_IMAGE = [metrics.psnr, metrics.ssim, metrics.ms_ssim]


@pytest.fixture(scope="module")
def oracle():
    path = Path(os.environ.get("FACESR_ORACLES", "")) / "metrics.safetensors"
    if not path.is_file():
        pytest.skip("metrics.safetensors is not in FACESR_ORACLES")
    return load_file(path)


def pair(n=2, side=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 3, side, side, generator=generator)
    return x, (x + 0.1 * torch.randn(x.shape, generator=generator)).clamp(0, 1)


@pytest.mark.parametrize("j", [0, 1])
def test_psnr_and_ssim_equal_the_reference(oracle, j):
    x, y = (oracle[f"{name}{j}"].permute(2, 0, 1)[None] / 255 for name in ("image", "restored"))
    ours = [
        f(x, y, **options) for f in (metrics.psnr, metrics.ssim) for options in ({}, {"y_channel": True, "crop": 4})
    ]
    expected = oracle[f"psnr_rgb,psnr_y_crop4,ssim_rgb,ssim_y_crop4_{j}"].float()
    assert_close(torch.cat(ours), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("j", [0, 1])
def test_niqe_equals_the_reference_within_a_thousandth(oracle, j):
    _need_niqe()
    x = torch.stack([oracle[f"{name}{j}"].permute(2, 0, 1) / 255 for name in ("image", "restored")])
    assert_close(metrics.niqe(x).double(), oracle[f"niqe_clean,niqe_restored_{j}"], atol=0, rtol=1e-3)


def _need_niqe():
    if reason := metrics.available()["niqe"]:
        pytest.skip(reason)


def test_niqe_prefers_the_clean_picture_and_scores_each_alone(oracle):
    _need_niqe()
    x = torch.stack([oracle["image0"], oracle["restored0"]]).permute(0, 3, 1, 2) / 255
    clean, restored = metrics.niqe(x)
    assert clean < restored
    assert_close(metrics.niqe(x[1:]), restored[None], atol=1e-4, rtol=1e-4)


def test_niqe_of_a_small_face_states_its_resize():
    _need_niqe()
    x, _ = pair(1, 64)
    with pytest.raises(ValueError, match=r"four blocks of 96×96.*resize_to"):
        metrics.niqe(x)
    larger = images.resize(x, (256, 256)).clamp(0, 1)
    assert_close(metrics.niqe(x, resize_to=256), metrics.niqe(larger), atol=0.2, rtol=0.05)


@pytest.mark.parametrize(("side", "scales"), [(11, 1), (64, 3), (128, 4), (175, 4), (176, 5), (256, 5)])
def test_ms_ssim_uses_as_many_scales_as_it_says(side, scales):
    assert metrics.ms_ssim_scales(side) == scales
    x, y = pair(1, side)
    assert_close(metrics.ms_ssim(x, y), metrics.ms_ssim(x, y, scales=scales))
    with pytest.raises(ValueError, match=f"allows 1 to {scales} scales"):
        metrics.ms_ssim(x, y, scales=scales + 1)


@pytest.mark.parametrize(("side", "border"), [(64, 1e-2), (128, 4e-3), (192, 2e-3)])
def test_ms_ssim_equals_torchmetrics_but_for_its_padded_border(side, border):
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as reference

    x, y = pair(2, side)
    weights = torch.tensor(metrics.MS_SSIM_WEIGHTS[: metrics.ms_ssim_scales(side)])
    betas = tuple((weights / weights.sum()).tolist())
    expected = torch.stack([reference(x[i : i + 1], y[i : i + 1], betas=betas, data_range=1.0) for i in range(2)])
    assert_close(metrics.ms_ssim(x, y), expected, atol=border, rtol=0)


@settings(deadline=None, max_examples=20)
@given(st.sampled_from(PER_IMAGE), st.integers(0, 4), st.booleans(), st.integers(1, 4))
def test_metrics_see_each_image_alone_in_either_order(metric, crop, y_channel, n):
    x, y = pair(n, 32, seed=n)
    options = {"crop": crop, "y_channel": y_channel}
    together = metric(x, y, **options)
    assert together.shape == (n,)
    assert_close(
        together, torch.cat([metric(x[i : i + 1], y[i : i + 1], **options) for i in range(n)]), atol=1e-5, rtol=0
    )
    assert_close(metric(y, x, **options), together, atol=1e-5, rtol=0)
    assert_close(metric(x.flip(0), y.flip(0), **options), together.flip(0), atol=1e-5, rtol=0)
    assert (metric(x, x, **options) > together).all()


def test_identity_is_perfect():
    x, _ = pair()
    assert metrics.psnr(x, x).isinf().all()
    assert_close(metrics.ssim(x, x), torch.ones(2))
    assert_close(metrics.ms_ssim(x, x), torch.ones(2))


def test_psnr_of_a_known_error():
    x = torch.zeros(1, 3, 16, 16)
    assert_close(metrics.psnr(x, x + 0.1), torch.tensor([20.0]), atol=1e-4, rtol=0)
    border = x.clone()
    border[..., :2, :] = 1
    assert metrics.psnr(x, border, crop=2).isinf()


def test_luma_of_white_and_black():
    white = torch.stack([torch.zeros(3, 1, 1), torch.ones(3, 1, 1)])
    assert_close(metrics.luma(white).flatten(), torch.tensor([16.0, 235.0]) / 255, atol=1e-6, rtol=0)


@pytest.mark.parametrize("metric", PER_IMAGE)
@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 15), {}, "one shape"),
        (torch.zeros(3, 16, 16), torch.zeros(3, 16, 16), {}, "one shape"),
        (torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16), {}, "one shape"),
        (torch.zeros(1, 3, 16, 16), torch.full((1, 3, 16, 16), float("nan")), {}, "NaN"),
        (torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16), {"crop": 8}, "leaves nothing"),
        (torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16), {"crop": -1}, "cropping -1"),
    ],
)
def test_what_cannot_be_compared_is_refused(metric, x, y, options, message):
    with pytest.raises(ValueError, match=message):
        metric(x, y, **options)


def test_ssim_refuses_images_smaller_than_its_window():
    with pytest.raises(ValueError, match="11×11"):
        metrics.ssim(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))


# --- LPIPS: the real weights or nothing


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """A machine without weights and without a network."""
    metrics._lpips_network.cache_clear()
    niqe_model.pristine.cache_clear()
    monkeypatch.setenv("FACESR_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(assets, "cache", lambda: tmp_path / "cache")

    def forbidden(*args, **kwargs):
        raise AssertionError("a metric reached for the network")

    monkeypatch.setattr(urllib.request, "urlopen", forbidden)
    yield tmp_path
    metrics._lpips_network.cache_clear()
    niqe_model.pristine.cache_clear()


def test_without_weights_metrics_are_unavailable_not_approximated(nowhere):
    found = metrics.available()
    assert found["psnr"] is found["ssim"] is found["ms_ssim"] is None
    assert "facesr assets fetch alexnet" in found["lpips"]
    assert "niqe" in found["niqe"]
    x, y = pair(2, 256)
    with pytest.raises(metrics.MetricUnavailable, match="alexnet"):
        metrics.lpips(x, y)
    with pytest.raises(metrics.MetricUnavailable, match="niqe"):
        metrics.niqe(x)
    with pytest.raises(metrics.MetricUnavailable, match=r"inception|torch-fidelity"):
        metrics.fid(x, y)


def test_a_file_that_only_bears_alexnets_name_is_not_taken(nowhere):
    place = nowhere / "torch" / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    place.parent.mkdir(parents=True)
    torch.save({"features.0.weight": torch.zeros(64, 3, 11, 11)}, place)
    with pytest.raises(metrics.MetricUnavailable):
        metrics.lpips(*pair())


def test_lpips_runs_on_the_backbone_it_is_given(nowhere, monkeypatch):
    """Stand-in weights of AlexNet's shapes show that every one of them is used; the values mean nothing."""
    from torchvision.models import alexnet

    torch.manual_seed(0)
    place = nowhere / "torch" / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    place.parent.mkdir(parents=True)
    weights = alexnet(weights=None).features.state_dict(prefix="features.")

    class Trusted:
        def hexdigest(self):
            return "7be5be79"

    monkeypatch.setattr(hashlib, "sha256", lambda content: Trusted())
    x, y = pair()
    values = []
    for changed in (None, *weights):
        metrics._lpips_network.cache_clear()
        torch.save({k: v * 1.5 + 0.1 if k == changed else v for k, v in weights.items()}, place)
        values.append(metrics.lpips(x, y))
        assert_close(metrics.lpips(x, x), torch.zeros(2), atol=1e-6, rtol=0)
    assert all(not torch.equal(values[0], value) for value in values[1:])
    assert_close(metrics.lpips(x[:1], y[:1]), values[-1][:1], atol=1e-5, rtol=1e-4)


# --- sets


class Pooled(torch.nn.Module):
    """Block means: a feature network that needs no weights."""

    num_features = 48

    def forward(self, x):
        return torch.nn.functional.adaptive_avg_pool2d(x, 4).flatten(1)


def test_fid_and_kid_on_a_network_of_ones_own():
    x, y = torch.rand(2, 120, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    same, different = metrics.fid(x, y, Pooled()), metrics.fid(x, y * 0.5, Pooled())
    assert 0 <= same < 0.1 * different
    (near, spread), (far, _) = metrics.kid(x, y, Pooled()), metrics.kid(x, y * 0.5, Pooled())
    assert abs(near) < 4 * spread + 1e-3 < far
    assert torch.equal(metrics.kid(x, y, Pooled(), seed=3)[0], metrics.kid(x, y, Pooled(), seed=3)[0])


def test_kid_leaves_the_global_random_state_alone():
    x, y = torch.rand(2, 20, 3, 16, 16)
    before = torch.random.get_rng_state()
    metrics.kid(x, y, Pooled(), subsets=3)
    assert torch.equal(before, torch.random.get_rng_state())
