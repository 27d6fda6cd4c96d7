"""Operators and corruptions: parity with MATLAB, linearity, and clear refusals."""

import os
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.testing import assert_close

from facesr_lib import degrade
from facesr_lib.degrade import Chain, Downsample, GaussianBlur, GaussianNoise, MotionBlur, SaltAndPepper, check_lowres

KERNELS = st.sampled_from(degrade.KERNELS)
SCALES = st.sampled_from([1, 2, 3, 4, 8])


@pytest.mark.parametrize("scale", [4, 8, 16])
def test_bicubic_equals_matlab_borders_included(scale):
    oracle = Path(os.environ.get("FACESR_ORACLES", "")) / "metrics.safetensors"
    if not oracle.is_file():
        pytest.skip("metrics.safetensors is not in FACESR_ORACLES")
    tensors = load_file(oracle)
    for j in (0, 1):
        image = tensors[f"image{j}"].permute(2, 0, 1)[None] / 255
        assert_close(Downsample(scale)(image)[0], tensors[f"matlab_down{scale}_{j}"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale", [4, 8, 16])
def test_bicubic_equals_pulse_where_its_reflected_border_does_not_reach(scale):
    tensors = load_file(Path(__file__).parent / "oracles" / "pulse.safetensors")
    inside = (slice(None), slice(None), slice(2, -2), slice(2, -2))
    assert_close(Downsample(scale)(tensors["x"])[inside], tensors[f"down{scale}"][inside], atol=1e-5, rtol=0)


def image(n, side, seed=0):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None)
@given(SCALES, KERNELS, st.integers(1, 4), st.floats(-2, 2))
def test_operators_are_linear_and_keep_constants(scale, kernel, blocks, a):
    operator, side = Downsample(scale, kernel), scale * blocks
    x, y = image(2, side), image(2, side, seed=1)
    assert_close(operator(a * x + y), a * operator(x) + operator(y), atol=1e-5, rtol=1e-5)
    assert_close(operator(torch.full_like(x, 0.3)), torch.full((2, 3, blocks, blocks), 0.3), atol=1e-6, rtol=0)


@settings(deadline=None)
@given(SCALES, KERNELS, st.integers(1, 4))
def test_gradients_are_the_adjoint(scale, kernel, blocks):
    operator = Downsample(scale, kernel)
    x, y = image(1, scale * blocks).requires_grad_(), image(1, blocks, seed=1)
    (adjoint,) = torch.autograd.grad(operator(x), x, y)
    assert_close((operator(x) * y).sum(), (x * adjoint).sum(), atol=1e-4, rtol=1e-4)


def test_box_is_the_mean_of_blocks():
    x = image(2, 16)
    assert_close(Downsample(4, "box")(x), torch.nn.functional.avg_pool2d(x, 4))


@pytest.mark.parametrize(
    "operator", [Downsample(4), GaussianNoise(0.1), SaltAndPepper(0.2), GaussianBlur(1.5), MotionBlur(5, 30)]
)
def test_an_image_does_not_depend_on_its_batch_mates(operator):
    x = image(3, 16)
    assert_close(operator(x)[:1], operator(x[:1]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("operator", [GaussianBlur(1.5), MotionBlur(5, 30)])
def test_blurs_keep_constants_and_flatten_edges(operator):
    assert_close(operator(torch.full((1, 3, 16, 16), 0.3)), torch.full((1, 3, 16, 16), 0.3), atol=1e-5, rtol=0)
    edge = torch.zeros(1, 3, 16, 16)
    edge[..., 8:] = 1
    assert operator(edge).diff(dim=3).abs().max() < 0.5
    assert torch.equal(GaussianBlur(0.0)(edge), edge)


def test_noise_has_the_strength_asked_for():
    grey = torch.full((4, 3, 64, 64), 0.5)
    assert_close((GaussianNoise(0.05)(grey) - grey).std(), torch.tensor(0.05), atol=1e-3, rtol=0)
    hit = SaltAndPepper(0.2)(grey) != grey
    assert_close(hit.float().mean(), torch.tensor(0.2), atol=0.02, rtol=0)
    assert torch.equal(hit[:, 0], hit[:, 1])  # whole pixels
    assert not torch.equal(GaussianNoise(0.05, seed=1)(grey), GaussianNoise(0.05, seed=2)(grey))


def test_a_chain_is_one_operator_with_the_common_scale():
    chain = Chain(GaussianBlur(1.0), Downsample(2), Downsample(2))
    x = image(1, 16)
    assert chain.scale == 4
    assert_close(chain(x), Downsample(2)(Downsample(2)(GaussianBlur(1.0)(x))))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Downsample(0), "at least 1; got 0"),
        (lambda: Downsample(2.5), "whole number"),
        (lambda: Downsample(4, "bicubik"), "did you mean bicubic"),
        (lambda: Downsample(4)(torch.zeros(1, 3, 30, 32)), "30×32 image cannot be made 4 times smaller"),
        (lambda: GaussianNoise(-1), "must not be negative; got -1"),
        (lambda: SaltAndPepper(1.5), "between 0 and 1; got 1.5"),
        (lambda: GaussianBlur(-0.1), "must not be negative"),
        (lambda: MotionBlur(4), "must be odd"),
        (lambda: Chain(), "at least one operator"),
    ],
)
def test_impossible_operators_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_wrong_size_is_met_with_two_ways_out():
    message = (
        "the low-resolution image is 16×16, but Downsample(scale=8) of a 64×64 generator gives 8×8. "
        "Crop it square and resize it to 8×8, or choose scale=4 for 16×16."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        check_lowres(Downsample(8), torch.zeros(1, 3, 16, 16), 64)


@pytest.mark.parametrize(
    ("lowres", "message"),
    [
        (torch.zeros(3, 8, 8), r"\(N, 3, h, w\); got \(3, 8, 8\)"),
        (torch.zeros(1, 1, 8, 8), r"got \(1, 1, 8, 8\)"),
        (torch.full((1, 3, 8, 8), float("nan")), "NaN"),
        (torch.full((1, 3, 8, 8), float("inf")), "infinite"),
        (torch.full((1, 3, 8, 8), 128.0), "Divide by 255"),
        (torch.full((1, 3, 8, 8), -0.5), r"ranges from -0\.50"),
        (torch.zeros(1, 3, 8, 10), "8×10"),
    ],
)
def test_low_resolution_images_that_cannot_be_are_refused(lowres, message):
    with pytest.raises(ValueError, match=message):
        check_lowres(Downsample(8), lowres, 64)


def test_a_good_batch_passes_through():
    lowres = image(2, 8)
    assert check_lowres(Downsample(8), lowres, 64) is lowres
