"""Losses of progressive super-resolution: parity with the first release, by hand, and how they behave."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.nn import functional as F
from torch.testing import assert_close

from facesr_lib import losses
from facesr_lib.losses import features

SIDES = {1: 32, 2: 64, 3: 128}
every_step = pytest.mark.parametrize("step", SIDES)
late_steps = pytest.mark.parametrize("step", [2, 3])


@pytest.fixture(scope="module")
def oracle():
    return load_file(Path(__file__).parent / "oracles" / "progressive_losses.safetensors")


def pair(oracle, step):
    """Restored faces and targets, in [−1, 1], and the heatmaps of the stand-in landmark network."""
    fake, real = oracle[f"fake_step{step}"], oracle[f"target_step{step}"]
    heatmaps = [F.conv2d(0.5 * image + 0.5, oracle["fan_weight"], padding=1) for image in (fake, real)]
    return fake, real, *heatmaps


def critic(oracle, step):
    return lambda image: (oracle[f"D_weight_{SIDES[step]}"] * torch.tanh(2 * image)).sum((1, 2, 3))


@late_steps
def test_landmark_losses_equal_the_release(oracle, step):
    fake, real, of_fake, of_real = pair(oracle, step)
    assert_close(losses.attention_loss(of_real, fake, real).mean(), oracle[f"attention_loss_step{step}"][0])
    assert_close(losses.heatmap_loss(of_fake, of_real).mean(), oracle[f"face_hmap_loss_ownmin_step{step}"][0])


def test_normalised_heatmaps_equal_the_release(oracle):
    _, _, _, of_real = pair(oracle, 2)
    assert_close(losses.normalise_heatmaps(of_real), oracle["hm_real_step2"])
    assert_close(losses.normalise_heatmaps(of_real).amax(1, keepdim=True), oracle["attention_map_step2"])


@every_step
def test_feature_loss_equals_the_release(oracle, step):
    fake, real, *_ = pair(oracle, step)

    def maps(image):
        return image, F.avg_pool2d(image, 2)

    loss = losses.feature_loss(maps, 0.5 * fake + 0.5, 0.5 * real + 0.5)
    assert_close(loss.mean(), oracle[f"perceptual_loss_step{step}"][0])


@every_step
def test_adversarial_losses_equal_the_release(oracle, step):
    fake, real, *_ = pair(oracle, step)
    judge = critic(oracle, step)
    penalty = losses.gradient_penalty(judge, real, fake, oracle[f"eps_step{step}"].flatten())
    loss = losses.wasserstein_critic_loss(judge(real), judge(fake)) + penalty
    assert_close(penalty.mean(), oracle[f"grad_penalty_step{step}"][0], rtol=1e-5, atol=1e-4)
    assert_close(loss.mean(), oracle[f"d_loss_step{step}"][0], rtol=1e-5, atol=1e-4)


def test_attention_by_hand():
    heatmaps = torch.zeros(1, 2, 2, 2)
    heatmaps[0, 0, 0, 0], heatmaps[0, 1, 1, 1] = 4.0, 1.0  # M* is 1 at the first pixel and 1/4 at the last
    x = torch.zeros(1, 3, 2, 2)
    y = torch.tensor([[0.8, 0.5], [0.5, 0.4]]).expand(1, 3, 2, 2)
    assert_close(losses.attention_loss(heatmaps, x, y), torch.tensor([(0.8 + 0.4 / 4) / 4]))


@given(st.integers(0, 10_000), st.integers(1, 4))
def test_each_image_is_judged_alone_and_the_order_of_points_does_not_matter(seed, n):
    random = torch.Generator().manual_seed(seed)
    x, y = torch.rand(2, n, 3, 8, 8, generator=random)
    a, b = torch.rand(2, n, 5, 8, 8, generator=random)
    points = torch.randperm(5, generator=random)
    attention, heatmap = losses.attention_loss(a, x, y), losses.heatmap_loss(a, b)
    assert_close(losses.attention_loss(a[:, points], x, y), attention)
    assert_close(losses.heatmap_loss(a[:, points], b[:, points]), heatmap)
    for i in range(n):
        assert_close(losses.attention_loss(a[i : i + 1], x[i : i + 1], y[i : i + 1])[0], attention[i])
        assert_close(losses.heatmap_loss(a[i : i + 1], b[i : i + 1])[0], heatmap[i])
    assert (losses.heatmap_loss(3 * a - 1, a) < 1e-9).all()  # each is normalised by its own
    assert (attention <= (x - y).abs().mean((1, 2, 3)) + 1e-6).all()
    again = losses.normalise_heatmaps(a)
    assert_close(losses.normalise_heatmaps(again), again)


def test_heatmaps_of_nothing_are_zero_and_have_finite_slopes():
    flat = torch.full((1, 2, 4, 4), 0.3, requires_grad=True)
    loss = losses.heatmap_loss(flat, torch.rand(1, 2, 4, 4))
    loss.sum().backward()
    assert (losses.normalise_heatmaps(flat) == 0).all()
    assert flat.grad.isfinite().all()


def test_slopes_are_right():
    random = torch.Generator().manual_seed(0)
    x, y, weight = torch.rand(3, 2, 3, 4, 4, generator=random, dtype=torch.float64)
    a, b = torch.rand(2, 2, 3, 4, 4, generator=random, dtype=torch.float64)
    x.requires_grad_(True), a.requires_grad_(True), weight.requires_grad_(True)
    epsilon = torch.rand(2, generator=random, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: losses.attention_loss(b, x, y), x)
    assert torch.autograd.gradcheck(lambda a: losses.heatmap_loss(a, b), a)
    assert torch.autograd.gradcheck(
        lambda w: losses.gradient_penalty(lambda image: (w * image.tanh()).sum((1, 2, 3)), y, b, epsilon), weight
    )
    losses.attention_loss(a, x, y).sum().backward()
    assert a.grad is None  # the attention itself is not to be learnt


def test_a_critic_of_slope_one_pays_nothing():
    real, fake = torch.rand(2, 3, 3, 4, 4)
    direction = torch.randn(3, 4, 4)

    def judge(image):
        return (image * direction / direction.norm()).sum((1, 2, 3))

    assert (losses.gradient_penalty(judge, real, fake, torch.rand(3)) < 1e-9).all()
    doubled = losses.gradient_penalty(lambda image: 2 * judge(image), real, fake, torch.rand(3), weight=7)
    assert_close(doubled, torch.full((3,), 7.0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda h, x: losses.attention_loss(h, x, x), "resize them to 16×16"),
        (lambda h, x: losses.heatmap_loss(h, h[:, :3]), r"of one shape, .* got \(2, 5, 8, 8\) and \(2, 3, 8, 8\)"),
        (lambda h, x: losses.normalise_heatmaps(h[0]), r"\(N, P, H, W\)"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.rand(2, 5, 8, 8), torch.rand(2, 3, 16, 16))


def test_the_stand_in_sees_four_scales_and_lets_gradients_pass():
    from facesr_lib.metrics import MetricUnavailable

    try:
        name, maps = features.block_features()
    except MetricUnavailable as missing:
        pytest.skip(str(missing))
    assert name in ("VGG16", "EfficientNet-Lite0")
    x, y = torch.rand(2, 2, 3, 32, 32)
    assert [tuple(m.shape[2:]) for m in maps(x)] == [(32, 32), (16, 16), (8, 8), (4, 4)]
    x.requires_grad_(True)
    loss = losses.feature_loss(maps, x, y)
    loss.sum().backward()
    assert loss.shape == (2,)
    assert (loss > 0).all()
    assert (x.grad.abs().sum((1, 2, 3)) > 0).all()
    assert (losses.feature_loss(maps, y, y) == 0).all()
