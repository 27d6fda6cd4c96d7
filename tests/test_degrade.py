"""Operators and corruptions: parity with MATLAB, linearity, and clear refusals."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.testing import assert_close

from facesr_lib import degrade, images
from facesr_lib.degrade import (
    Chain,
    Downsample,
    GaussianBlur,
    GaussianNoise,
    MotionBlur,
    SaltAndPepper,
    check_lowres,
    halved,
    occlusion,
)

KERNELS = st.sampled_from(degrade.KERNELS)
SCALES = st.sampled_from([1, 2, 3, 4, 8])


@pytest.fixture(scope="module")
def oracle():
    path = Path(os.environ.get("FACESR_ORACLES", "")) / "metrics.safetensors"
    if not path.is_file():
        pytest.skip("metrics.safetensors is not in FACESR_ORACLES")
    return load_file(path)


@pytest.mark.parametrize("j", [0, 1])
@pytest.mark.parametrize("scale", [4, 8, 16])
def test_bicubic_equals_matlab_borders_included(oracle, scale, j):
    image = oracle[f"image{j}"].permute(2, 0, 1)[None] / 255
    assert_close(Downsample(scale)(image)[0], oracle[f"matlab_down{scale}_{j}"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("j", [0, 1])
def test_the_way_back_equals_matlab(oracle, j):
    up = Downsample(8).upsample(oracle[f"matlab_down8_{j}"][None])[0]
    assert_close(up, oracle[f"matlab_up8_{j}"], atol=1e-5, rtol=0)


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


@settings(deadline=None)
@given(SCALES, KERNELS, st.integers(1, 4))
def test_the_way_back_has_the_size_and_keeps_constants(scale, kernel, side):
    up = Downsample(scale, kernel).upsample(torch.full((2, 3, side, side + 1), 0.3))
    assert_close(up, torch.full((2, 3, scale * side, scale * (side + 1)), 0.3), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("kernel", "height", "width"), [("bicubic", 2100, 10), ("bilinear", 6, 2060), ("box", 4, 4102)]
)
def test_a_large_picture_is_made_small_part_by_part_and_no_otherwise(kernel, height, width):
    image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    whole = images.resize(image, (height // 2, width // 2), kernel)
    assert_close(Downsample(2, kernel)(image), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_precision_follows_the_image(dtype):
    x = image(1, 16).to(dtype)
    assert Downsample(4)(x).dtype == Downsample(4).upsample(x).dtype == dtype
    exact = Downsample(4)(image(1, 16).double())
    assert_close(Downsample(4)(x).double(), exact, atol=1e-7 if dtype == torch.float64 else 2e-2, rtol=0)


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


@pytest.mark.parametrize("corruption", [GaussianNoise, SaltAndPepper])
def test_each_image_has_noise_of_its_own(corruption):
    grey = torch.full((3, 3, 16, 16), 0.5)
    x = corruption(0.2, seed=1)(grey)
    assert not any(torch.equal(x[i], x[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    assert torch.equal(x, corruption(0.2, seed=1)(grey))
    assert not torch.equal(x, corruption(0.2, seed=2)(grey))
    assert torch.equal(corruption(0.2, seed=[5, 1])(grey[:2])[1], x[0])  # a seed per image: alone or not, the same


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
        (lambda: Downsample(float("inf")), "whole number"),
        (lambda: Downsample(float("nan")), "whole number.*got nan"),
        (lambda: Downsample(0.5), "at least 1; got 0.5"),
        (lambda: Downsample(-2), "at least 1; got -2"),
        (lambda: Downsample("8"), "whole number, at least 1; got '8'"),
        (lambda: Downsample(4, "bicubik"), r"did you mean bicubic\?"),
        (lambda: Downsample(4, "lanczos"), "choose one of bicubic, bilinear, box"),
        (lambda: Downsample(4)(torch.zeros(1, 3, 30, 32)), "32×30 image cannot be made 4 times smaller: crop it to"),
        (lambda: Downsample(4)(torch.zeros(1, 3, 32, 30)), "multiples of 4, or choose a scale that divides both sides"),
        (lambda: Downsample(4)(torch.zeros(3, 32, 32)), r"\(N, 3, H, W\).*\(3, 32, 32\)"),
        (lambda: GaussianNoise(-1), "at least 0; got -1"),
        (lambda: GaussianNoise(float("nan")), "finite"),
        (lambda: GaussianNoise(None), "at least 0; got None"),
        (lambda: GaussianNoise(0.1, seed=1.5)(torch.zeros(1, 3, 4, 4)), "a seed is a whole number.*got 1.5"),
        (lambda: SaltAndPepper("0.5"), "at least 0, at most 1; got '0.5'"),
        (lambda: GaussianBlur(torch.ones(2)), "at least 0; got tensor"),
        (lambda: MotionBlur(5, "30"), "angle must be a finite number; got '30'"),
        (lambda: MotionBlur(5.0), "must be odd.*got 5.0"),
        (lambda: SaltAndPepper(1.5), "at least 0, at most 1; got 1.5"),
        (lambda: SaltAndPepper(-0.1), "at least 0, at most 1; got -0.1"),
        (lambda: GaussianBlur(-0.1), "at least 0; got -0.1"),
        (lambda: MotionBlur(4), "must be odd"),
        (lambda: MotionBlur(-3), "at least 3; got -3"),
        (lambda: MotionBlur(5, float("nan")), "angle must be a finite number"),
        (lambda: MotionBlur(9)(torch.zeros(1, 3, 4, 4)), "9 pixels is too long for a 4×4 image"),
        (lambda: Chain(), "at least one operator"),
        (lambda: Chain([Downsample(4)]), r"Chain\(first, second\)"),
    ],
)
def test_impossible_operators_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("scale", "height", "width", "message"),
    [
        (4, 8, 8, "pictures of 16×16: choose scale 8 for 8×8, or crop it square and resize it to 16×16."),
        (8, 16, 20, "pictures of 8×8: choose scale 4 for 16×16, or crop it square and resize it to 8×8."),
        (8, 8, 10, "pictures of 8×8: crop it square and resize it to 8×8."),
        (8, 13, 13, "pictures of 8×8: crop it square and resize it to 8×8."),
        (8, 512, 512, "pictures of 8×8: crop it square and resize it to 8×8."),
        (3, 8, 8, "nothing: choose scale 8 for 8×8, or choose a scale that divides 64."),
        (128, 7, 7, "nothing: choose a scale that divides 64."),
    ],
)
def test_a_wrong_size_is_met_with_the_pictures_size_and_the_ways_out(scale, height, width, message):
    message = f"the picture is {width}×{height}; at scale {scale} faces of 64×64 explain {message}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_lowres(Downsample(scale), torch.zeros(1, 3, height, width), 64)


def test_an_operator_without_a_scale_is_met_in_the_same_words():
    with pytest.raises(
        ValueError, match="picture is 8×8; through this operator faces of 64×64 explain pictures of 16×16"
    ):
        check_lowres(lambda image: image[..., ::4, ::4], torch.zeros(1, 3, 8, 8), 64)


@pytest.mark.parametrize(
    ("lowres", "message"),
    [
        (torch.zeros(3, 8, 8), r"\(N, 3, H, W\), got float32 of shape \(3, 8, 8\)"),
        (torch.zeros(1, 1, 8, 8), r"of shape \(1, 1, 8, 8\)"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "got uint8.*divided by 255"),
        (torch.full((1, 3, 8, 8), float("nan")), "NaN"),
        (torch.full((1, 3, 8, 8), float("inf")), "infinite"),
        (torch.full((1, 3, 8, 8), 128.0), "Divide by 255"),
        (torch.full((1, 3, 8, 8), -0.5), r"ranges from -0\.50"),
        (torch.zeros(0, 3, 8, 8), "at least one"),
    ],
)
def test_low_resolution_images_that_cannot_be_are_refused(lowres, message):
    with pytest.raises(ValueError, match=message):
        check_lowres(Downsample(8), lowres, 64)


@pytest.mark.parametrize("given", [[[0.5]], np.zeros((1, 3, 16, 16), np.float32), None])
@pytest.mark.parametrize(
    "operator",
    [
        Downsample(4),
        Downsample(4).upsample,
        GaussianNoise(0.1),
        SaltAndPepper(0.1),
        GaussianBlur(0.0),
        MotionBlur(3),
        Chain(GaussianBlur(1.0), Downsample(4)),
        lambda lowres: check_lowres(Downsample(4), lowres, 64),
    ],
)
def test_what_is_no_tensor_is_told_how_to_become_one(operator, given):
    with pytest.raises(TypeError, match=rf"float tensor .* got {type(given).__name__}: torch.as_tensor makes one"):
        operator(given)


def test_a_good_batch_passes_through():
    lowres = image(2, 8)
    assert check_lowres(Downsample(8), lowres, 64) is lowres


@settings(deadline=None)
@given(st.sampled_from([2, 3, 4, 8]), st.integers(0, 7), st.integers(0, 7))
def test_what_the_operator_makes_of_an_image_is_never_refused(scale, row, column):
    """The image that overshoots most at one pixel is white where this pixel's kernel is positive."""
    operator, side = Downsample(scale), 8 * scale
    x = image(1, side).requires_grad_()
    (weights,) = torch.autograd.grad(operator(x)[0, :, row, column].sum(), x)
    worst = (weights > 0).float()
    assert operator(worst)[0, :, row, column].min() > 1.07
    check_lowres(operator, operator(worst), side)
    check_lowres(operator, operator(1 - worst), side)


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_halving_until_a_scale_is_halving_as_often(scale):
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    operator = halved(scale)
    assert operator.scale == scale
    half, small = Downsample(2, "bilinear"), image
    while small.shape[2] > 16 // scale:
        small = half(small)
    torch.testing.assert_close(operator(image), small)


@pytest.mark.parametrize("scale", [1, 3, 12, 0, -2, 2.0])
def test_what_no_halving_reaches_is_refused(scale):
    with pytest.raises(ValueError, match=r"halved, must be a whole number, among \[2, 4, 8, .*512\]; got"):
        halved(scale)


# Things in front of faces


def landmarks_of_a_face():
    """Two eyes, a nose and a chin where they may be, in pixels of 64²; all else in the middle: (1, 68, 2)."""
    points = torch.full((1, 68, 2), 31.5)
    points[:, 36:42], points[:, 42:48] = torch.tensor([22.0, 26.0]), torch.tensor([42.0, 26.0])
    points[:, 29], points[:, 33], points[:, 8] = (torch.tensor([32.0, y]) for y in (33.0, 37.0, 57.0))
    return points


@pytest.mark.parametrize(("thing", "covered"), [("sunglasses", (36, 42)), ("mask", (33, 8)), ("hand", (8, 33))])
def test_a_thing_hides_what_is_behind_it_and_nothing_else(thing, covered):
    face, points = image(1, 64), landmarks_of_a_face()
    hidden, cover = occlusion.hide(face, points, thing)
    assert hidden.shape == face.shape
    assert (cover.min() >= 0) & (cover.max() <= 1)
    free = (cover == 0).expand(3, -1, -1)
    assert torch.equal(hidden[0, free], face[0, free])
    assert (hidden - face).abs().amax(1)[cover > 0.5].mean() > 0.1
    middle = (points[:, covered[0]] + points[:, covered[1]]) / 2 if thing != "sunglasses" else points[:, 36]
    x, y = middle[0].round().long().tolist()
    assert cover[0, y, x] > 0.5
    assert cover[0, 5, 32] == 0  # the forehead is free


def test_things_are_as_large_and_held_as_the_face_is():
    points = landmarks_of_a_face()
    _, cover = occlusion.hide(image(1, 64), points, "sunglasses")
    _, larger = occlusion.hide(image(1, 128), 2 * points + 0.5, "sunglasses")
    assert (torch.nn.functional.avg_pool2d(larger, 2) - cover).abs().mean() < 0.06 * cover.mean()  # their rims differ
    turned = torch.stack([63 - points[..., 1], points[..., 0]], 2)  # a quarter to the right
    _, other = occlusion.hide(image(1, 64), turned, "sunglasses")
    assert_close(other, cover.rot90(-1, (1, 2)), atol=1e-4, rtol=0)


def test_an_unknown_thing_is_refused():
    with pytest.raises(ValueError, match="no thing to hide a face 'masc': did you mean mask"):
        occlusion.hide(image(1, 64), landmarks_of_a_face(), "masc")
