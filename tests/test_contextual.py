"""Contextual and perceptual losses: parity with the official one, gradients, nothing that is no number."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.testing import assert_close

from facesr_lib import assets, metrics
from facesr_lib.losses import contextual_loss, feature_l1, imagenet_features
from facesr_lib.metrics import pretrained
from facesr_lib.networks import perceptual

ORACLE = load_file(Path(__file__).parent / "oracles" / "contextual.safetensors")
X, Y = ORACLE["x"].double(), ORACLE["y"].double()


@pytest.mark.parametrize("h", [0.1, 0.5, 1.0])
def test_it_equals_the_official(h):
    assert_close(contextual_loss(X, Y, h=h).mean(), ORACLE[f"tf_dot_h{h}"][0], atol=1e-6, rtol=0)
    alone = torch.cat([contextual_loss(X[i : i + 1], Y[i : i + 1], h=h) for i in range(2)])
    assert_close(alone, ORACLE[f"tf_dot_h{h}_per_image"], atol=1e-6, rtol=0)


def test_a_picture_has_its_own_context_and_not_another_direction():
    assert_close(contextual_loss(X, X), torch.zeros(2, dtype=torch.float64), atol=1e-6, rtol=0)
    assert (contextual_loss(X, Y).mean() - contextual_loss(Y, X).mean()).abs() > 1e-3


def test_gradients_are_right():
    x, y = X[:, :4, :2, :3].clone().requires_grad_(), Y[:, :4, :3, :2].clone().requires_grad_()
    assert torch.autograd.gradcheck(contextual_loss, (x, y), eps=1e-7, atol=1e-4)


def test_places_do_not_matter():
    moved = X.flatten(2)[:, :, torch.randperm(36, generator=torch.Generator().manual_seed(0))].view_as(X)
    assert_close(contextual_loss(moved, Y), contextual_loss(X, Y))


@given(
    st.integers(0, 2**31),
    st.sampled_from([0.0, 1e-30, 1e-12, 1e-7, 1e-4, 1e-1]),
    st.sampled_from([1e-6, 1.0, 1e4]),
    st.sampled_from([torch.float16, torch.bfloat16, torch.float32]),
)
def test_nearly_equal_features_give_numbers(seed, apart, size, precision):
    random = torch.Generator().manual_seed(seed)
    y = torch.randn(2, 3, 4, 4, generator=random) * size
    y[:, :, :2] = y[:, :, :1, :1]  # and points that are equal
    for target in (y, torch.full_like(y, size)):
        x = (target + apart * size * torch.randn(y.shape, generator=random)).to(precision).requires_grad_()
        loss = contextual_loss(x, target.to(precision))
        loss.sum().backward()
        assert (loss > -1e-5).all()
        assert loss.isfinite().all()
        # the gradient grows as the features shrink, beyond what half precision can hold; that is no NaN
        assert not x.grad.isnan().any()
        assert x.grad.isfinite().all() or (precision == torch.float16 and size < 1)


def missing(*_):
    raise assets.AssetMissing("VGG19 is not here.")


class TestFeatures:
    """What an ImageNet network sees."""

    @pytest.mark.parametrize(("stride", "channels"), [(4, 24), (16, 112)])
    def test_the_network_of_the_package_stands_in_and_says_so(self, monkeypatch, stride, channels):
        if reason := pretrained.reason(pretrained.efficientnet_file):
            pytest.skip(reason)
        monkeypatch.setattr(perceptual, "vgg19", missing)
        name, features = imagenet_features(stride)
        assert name == "EfficientNet-Lite0"
        x = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0), requires_grad=True)
        seen = features(x)
        assert seen.shape == (2, channels, 64 // stride, 96 // stride)
        assert seen.min() < 0  # no activation
        feature_l1(seen, features(x.detach().flip(3))).sum().backward()
        assert x.grad.abs().amax((1, 2, 3)).min() > 0
        assert_close(features(x[:1]), seen[:1], atol=1e-3, rtol=1e-4)

    def test_vgg19_is_taken_where_it_is_and_read_before_its_activation(self, tmp_path, monkeypatch):
        numbers, widths = (0, 2, 5, 7, 10, 12, 14, 16), (3, 64, 64, 128, 128, 256, 256, 256, 256)
        random = torch.Generator().manual_seed(0)
        weights = {}
        for i, n_in, n_out in zip(numbers, widths, widths[1:], strict=False):
            weights[f"features.{i}.weight"] = torch.randn(n_out, n_in, 3, 3, generator=random) * (2 / 9 / n_in) ** 0.5
            weights[f"features.{i}.bias"] = torch.zeros(n_out)
        torch.save(weights, tmp_path / "vgg19.pth")
        monkeypatch.setattr(assets, "checked", {"vgg19": tmp_path / "vgg19.pth"}.__getitem__)
        perceptual.vgg19.cache_clear()
        try:
            name, features = imagenet_features(4)
            seen = features(torch.rand(1, 3, 32, 32, generator=random))
        finally:
            perceptual.vgg19.cache_clear()
        assert name == "VGG19"
        assert seen.shape == (1, 256, 8, 8)
        assert seen.min() < 0

    def test_without_either_it_says_what_is_missing(self, monkeypatch):
        def none():
            raise pretrained.MetricUnavailable("the package is not installed.")

        monkeypatch.setattr(perceptual, "vgg19", missing)
        monkeypatch.setattr(pretrained, "efficientnet_file", none)
        with pytest.raises(metrics.MetricUnavailable, match="not installed"):
            imagenet_features(16)
