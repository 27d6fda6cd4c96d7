"""FFHQ's crop against the official script's, and its way back."""

import json
from math import cos, pi, sin

import pytest
import torch
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from torch.testing import assert_close

from facesr_lib import images
from facesr_lib.restoration.alignment import align, ellipse, paste, quad, side

# metadata: cases; the file holds the part of the oracle that is FFHQ's own, its landmarks are (n, 68, 2)
with safe_open(ROOT / "tests" / "oracles" / "alignment.safetensors", "pt") as file:
    ORACLE = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a mapping
    CASES = json.loads(file.metadata()["cases"])
IMAGE = ORACLE["image"].permute(2, 0, 1).float() / 255
LANDMARKS = dict(zip(CASES, ORACLE["landmarks68"], strict=True))
every_case = pytest.mark.parametrize("case", CASES)
FIVE = torch.tensor([[-20.0, -20], [20, -20], [0, 0], [-15, 20], [15, 20]])  # eyes, nose, mouth


def face(x, y, size=1.0, angle=0.0):
    """Five points about (x, y), turned by so many degrees."""
    turn = angle * pi / 180
    return size * FIVE @ torch.tensor([[cos(turn), sin(turn)], [-sin(turn), cos(turn)]]) + torch.tensor([x, y])


@every_case
def test_the_quad_is_the_official_one(case):
    assert_close(quad(LANDMARKS[case]), ORACLE["ffhq_quad"][CASES.index(case)], atol=1e-9, rtol=0)
    transform = align(IMAGE, LANDMARKS[case], 8)[1]
    assert side(transform, 400, 300) == pytest.approx(ORACLE["ffhq_qsize"][CASES.index(case)].item())


@pytest.mark.parametrize("name", [name for name in ORACLE if name[4:5].isdigit()])
def test_the_crop_is_the_official_one(name):
    """Up to what the official script loses by cutting off to 8 bits, twice and downwards."""
    size, case = int(name[4:].partition("_")[0]), name.partition("_")[2].removesuffix("_shrink3")
    crop, _ = align(IMAGE, LANDMARKS[case], size)
    off = 255 * crop.permute(1, 2, 0) - ORACLE[name].float()
    assert off.abs().max() < 2.6
    assert off.abs().mean() < 0.6


@every_case
@pytest.mark.parametrize("enlarged", [1, 2])
def test_an_unchanged_crop_changes_nothing(case, enlarged):
    photo = images.resize(IMAGE[None], (enlarged * 400, enlarged * 300))[0].clamp(0, 1)
    crop, transform = align(photo, enlarged * (LANDMARKS[case] + 0.5) - 0.5, 96)
    assert torch.equal(paste(photo, crop, transform, torch.ones(96, 96)), photo)


@given(st.floats(40, 60), st.floats(40, 60), st.floats(0.3, 0.6), st.floats(-180, 180), st.sampled_from([32, 64, 128]))
def test_a_changed_crop_lands_where_it_was_cut_out(x, y, size, angle, crop_size):
    """A bump that is drawn in the crop's middle lies about the place that the crop's middle shows."""
    photo = torch.full((3, 100, 120), 0.25)
    crop, transform = align(photo, face(x, y, size, angle), crop_size)
    at = torch.linspace(-1, 1, crop_size)
    bump = torch.exp(-(at.square() + at[:, None].square()) / 0.02)
    pasted = paste(photo, crop + 0.5 * bump, transform)
    added = (pasted - photo)[0]
    corners = quad(face(x, y, size, angle))
    rows, columns = torch.arange(100.0), torch.arange(120.0)
    centre = torch.stack([(added.sum(0) * columns).sum(), (added.sum(1) * rows).sum()]) / added.sum()
    assert_close(centre.double(), corners.mean(0), atol=0.1, rtol=0)
    share = (2 / crop_size) ** 2 * side(transform, 100, 120) ** 2 / 4  # pixels of the photograph to one of the crop
    assert added.sum() == pytest.approx(float(0.5 * (bump * ellipse(crop_size)).sum() * share), rel=0.03)
    assert_close(pasted[:, 0], photo[:, 0], atol=1e-7, rtol=0)  # what is added and taken away again rounds


@given(st.floats(-180, 180))
def test_a_face_is_turned_upright(angle):
    """Red above, blue below, whichever way the photograph was held."""
    at = torch.linspace(-1, 1, 200)
    turn = torch.tensor(angle * pi / 180)
    down = -turn.sin() * at + turn.cos() * at[:, None]
    photo = torch.stack([(down < 0).float(), torch.zeros(200, 200), (down > 0).float()])
    crop, _ = align(photo, face(99.5, 99.5, 0.8, angle), 32)
    assert crop[0, :12].mean() > 0.99
    assert crop[2, 20:].mean() > 0.99


def test_what_lies_beyond_the_border_is_the_picture_continued():
    photo = 0.5 + 0.1 * torch.randn(3, 100, 120, generator=torch.manual_seed(0))
    crop, _ = align(photo, face(5.0, 50.0), 64)
    assert (crop - 0.5).abs().max() < 0.4
    assert crop[:, :, :12].std() < 0.3 * crop[:, :, 40:].std()


def test_a_finer_photograph_keeps_its_own_detail():
    photo = torch.rand(3, 400, 400, generator=torch.manual_seed(0))
    crop, transform = align(photo, face(199.5, 199.5, 4), 32)
    pasted = paste(photo, crop + 0.1, transform)
    middle = (slice(None), slice(190, 210), slice(190, 210))
    assert_close(pasted[middle], (photo[middle] + 0.1).clamp(0, 1), atol=0.01, rtol=0)


def test_the_mask_says_how_much_of_the_crop_counts():
    photo = torch.full((3, 100, 100), 0.5)
    crop, transform = align(photo, face(49.5, 49.5, 0.6), 64)
    assert torch.equal(paste(photo, crop + 0.2, transform, torch.zeros(64, 64)), photo)
    half = paste(photo, crop + 0.2, transform, torch.full((64, 64), 0.5))
    assert half[0, 50, 50] == pytest.approx(0.6, abs=1e-3)
    assert ellipse(64)[[0, -1]].max() == ellipse(64)[:, [0, -1]].max() == 0
    assert ellipse(64)[34, 32] == 1


@pytest.mark.parametrize(
    ("landmarks", "size", "message"),
    [
        (torch.zeros(68, 2), 64, "do not all lie in one place"),
        (torch.full((5, 2), float("nan")), 64, "finite places"),
        (torch.zeros(7, 2), 64, r"got \(7, 2\)"),
        (face(50, 50) * 1e30, 64, "a place that is NaN or far away"),
        (None, 64, "finite places"),
        (face(50, 50), 0, "size must be a whole number, at least 1"),
        (face(-900, 50), 64, "outside of the photograph"),
    ],
)
def test_what_is_no_face_is_refused(landmarks, size, message):
    with pytest.raises(ValueError, match=message):
        align(torch.zeros(3, 100, 100), landmarks, size)


def test_a_face_smaller_than_a_pixel_has_its_colour():
    crop, _ = align(torch.full((3, 100, 100), 0.3), face(50, 50, 1e-5), 8)
    assert_close(crop, torch.full((3, 8, 8), 0.3), atol=1e-3, rtol=0)


def test_a_transform_may_be_of_single_precision_and_has_to_be_one():
    photo = torch.rand(3, 100, 100)
    crop, transform = align(photo, face(50, 50), 64)
    assert_close(paste(photo, crop + 0.1, transform.float()), paste(photo, crop + 0.1, transform), atol=1e-3, rtol=0)
    for other in (None, torch.zeros(2, 3), transform * torch.nan):
        with pytest.raises(ValueError, match="a transform is what `align` gives"):
            paste(photo, crop, other)


def test_a_crop_that_is_not_square_cannot_be_pasted():
    photo = torch.zeros(3, 100, 100)
    _, transform = align(photo, face(50, 50), 64)
    with pytest.raises(ValueError, match="a crop is square"):
        paste(photo, torch.zeros(3, 64, 32), transform)
