"""A prior's report card: its samples, copies among them, and how Gaussian its codes become."""

from math import sqrt

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from facesr_lib.evaluation import prior as quality
from facesr_lib.networks.flow import Flow
from facesr_lib.networks.stylegan2 import Generator
from facesr_lib.prior import FacePrior


def colours(x):
    """Stand-in features: the mean colour and its spread, (N, 6)."""
    return torch.cat([x.mean((2, 3)), x.std((2, 3))], 1)


@pytest.fixture(scope="module")
def prior():
    torch.manual_seed(0)
    prior = FacePrior("tiny", Generator(8, 8, 16, channel_base=128, channel_max=16, num_mapping_layers=2), None)
    prior.flow = Flow(8, 16, 2).requires_grad_(False).eval()
    prior.flow.standardise(prior.sample_w(500)[:, 0])
    return prior


@pytest.fixture(scope="module")
def report(prior):
    unseen, seen = prior.sample(12, seed=1)[0], prior.sample(30, seed=2)[0]
    return quality.fidelity(
        prior, samples=24, psis=(1.0, 0.5), features=colours, held_out=unseen, training=seen, seed=3
    )


def test_every_truncation_is_scored_against_both_sets(report):
    assert [(score.psi, score.faces) for score in report.scores] == [
        (1.0, "held-out, 12"),
        (1.0, "training, 30"),
        (0.5, "held-out, 12"),
        (0.5, "training, 30"),
    ]
    whole, half = report.scores[1], report.scores[3]
    assert abs(whole.kid) < 4 * whole.kid_error  # samples of the same prior: no distance
    assert half.fid > whole.fid
    assert half.recall < whole.recall  # truncation draws less of what there is
    assert report.features == "colours"


def test_samples_can_be_drawn_again(prior, report):
    assert_close(report.codes, prior.sample_w(24, seed=3))
    assert report.codes.shape == (24, prior.num_ws, 8)


def test_copies_are_noticed(prior):
    faces = prior.sample(40, seed=3)[0]
    copied = quality.fidelity(
        prior, samples=30, psis=(1.0,), features=colours, held_out=prior.sample(20, seed=9)[0], training=faces, seed=3
    )
    assert_close(copied.nearest, torch.arange(30))
    assert (copied.distance < 1e-4).all()
    assert copied.closer == 1.0


def test_new_samples_are_as_far_from_the_training_faces_as_held_out_ones(report):
    assert 0.2 < report.closer < 0.8


def test_faces_of_another_size_are_refused(prior):
    with pytest.raises(ValueError, match=r"draws 16² pixels; the held-out faces are \(5, 3, 8, 8\)"):
        quality.fidelity(prior, held_out=torch.rand(5, 3, 8, 8), training=torch.rand(5, 3, 16, 16), features=colours)


@given(st.integers(1, 40), st.integers(0, 1000))
def test_a_gaussian_passes_for_one(d, seed):
    row = quality.Gaussianity.of("Z", torch.randn(4000, d, generator=torch.Generator().manual_seed(seed)))
    assert abs(row.mean - d) < 6 * sqrt(2 * d / 4000)
    assert row.ks < 2.2 / sqrt(4000)  # exceeded once in 10,000 by a Gaussian
    assert row.wasserstein < 0.12 * sqrt(2 * d)


def test_a_wider_gaussian_does_not():
    row = quality.Gaussianity.of("W", 2**0.5 * torch.randn(2000, 8, generator=torch.Generator().manual_seed(0)))
    assert row.ks > 0.3
    assert_close(row.wasserstein, 8.0, atol=0.6, rtol=0)  # ‖v‖² is doubled: mass moves by its mean
    assert_close(row.std, 8.0, atol=0.6, rtol=0)


def test_every_gaussianisation_is_measured_on_draws_of_its_own(prior):
    rows = quality.gaussianisation(prior, samples=3000)
    assert [row.space for row in rows] == ["Z", "W, standardised", "PULSE", "flow"]
    assert rows[0].ks < 2.2 / sqrt(3000)
    assert all(row.ks > rows[0].ks and row.squared_norms.shape == (3000,) for row in rows[1:])


def test_a_prior_without_a_flow_has_three_rows(prior):
    bare = FacePrior("bare", prior.generator, None)
    assert len(quality.gaussianisation(bare, samples=500)) == 3
