"""The flow: it inverts, its density is one, and training brings codes nearer to a Gaussian."""

from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from facesr_lib.networks.flow import Flow
from facesr_lib.networks.stylegan2 import Generator
from facesr_lib.prior import FacePrior
from facesr_lib.training import flow as training
from facesr_lib.training import loop


@pytest.fixture
def prior():
    torch.manual_seed(0)
    return FacePrior("tiny", Generator(4, 4, 8, channel_base=64, channel_max=8, num_mapping_layers=2), None)


SMALL = training.Config(hidden=32, blocks=3, batch=256, validate_every=20, held_out=2000, patience=2)


@settings(max_examples=10, deadline=None)
@given(st.integers(2, 9), st.integers(1, 3), st.integers(0, 100))
def test_the_way_back_is_the_inverse(d, blocks, seed):
    torch.manual_seed(seed)
    flow = Flow(d, 16, blocks).eval()
    w = torch.randn(3, 2, d)
    flow.standardise(3 * torch.randn(50, d) + 1)
    assert_close(flow.inverse(flow.gaussianise(w)), w, atol=1e-3, rtol=1e-3)


def test_freezing_keeps_the_density_and_the_autoregressive_order():
    torch.manual_seed(0)
    flow, w = Flow(5, 16, 2).eval(), torch.randn(3, 5)
    before = flow.log_prob(w)
    assert_close(flow.freeze().log_prob(w), before)
    assert not any(p.requires_grad for p in flow.parameters())
    assert_close(Flow.from_weights(flow.weights()).log_prob(w), before)


def wild(bounds):
    """A flow whose networks say far more than a trained one's."""
    torch.manual_seed(0)
    flow = Flow(16, 32, 5, bounds)
    for parameter in flow.parameters():
        parameter.data.mul_(6)
    return flow.freeze()


def test_the_way_back_is_finite_for_every_draw_whatever_was_learnt():
    v = torch.randn(20_000, 16, generator=torch.Generator().manual_seed(0))
    w = wild((2.0, 4.0)).inverse(v)
    assert w.isfinite().all()
    unbounded = wild(None).inverse(v)
    assert not unbounded.isfinite().all() or unbounded.abs().max() > 1e3 * w.abs().max()


def test_the_way_back_stops_where_nothing_changes_and_is_no_worse_for_it():
    flow, v = Flow(24, 48, 1).eval(), torch.randn(5, 24)
    calls = []
    flow.blocks[0].net.register_forward_hook(lambda *_: calls.append(1))
    w = flow.inverse(v)
    assert len(calls) < 24  # a fresh network hardly looks at its input
    assert_close(flow.gaussianise(w), v, atol=1e-5, rtol=1e-5)


def test_a_flow_of_an_earlier_version_is_what_it_was_and_is_told_from_one_with_bounds():
    torch.manual_seed(0)
    earlier, w = Flow(5, 16, 2, bounds=None).eval(), torch.randn(3, 5)
    names = {f"blocks.{i}.net": f"transform._transforms.{2 * i + 1}.autoregressive_net" for i in range(2)}
    weights = {names.get(name[:12], name[:12]) + name[12:]: value for name, value in earlier.weights().items()}
    assert set(weights) != set(earlier.weights())
    for held in (weights, earlier.weights()):  # as it was written then, and now
        loaded = Flow.from_weights(held)
        assert torch.equal(loaded.log_prob(w), earlier.log_prob(w))
        assert loaded.bounds is None
    bounded = Flow(5, 16, 2, bounds=(1.0, 3.0))
    assert Flow.from_weights(bounded.weights()).blocks[1].bounds == (1.0, 3.0)


@pytest.mark.parametrize("bounds", [(2.0, 4.0), None])
def test_log_prob_is_the_change_of_variables(bounds):
    torch.manual_seed(0)
    flow = Flow(3, 16, 2, bounds).double()
    flow.standardise(2 * torch.randn(50, 3).double())
    w = torch.randn(3).double()
    jacobian = torch.autograd.functional.jacobian(flow.gaussianise, w)
    v = flow.gaussianise(w)
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(v).sum()
    assert_close(flow.log_prob(w), normal + jacobian.slogdet().logabsdet)
    assert_close(flow.log_prob(torch.stack([w, w])[None]), flow.log_prob(w).expand(1, 2))


def test_training_makes_codes_more_gaussian_and_travels_with_the_prior(prior, tmp_path):
    w = prior.generator.mapping(torch.randn(5000, 4, generator=torch.Generator().manual_seed(9)))
    untrained = Flow(4, 32, 3)
    untrained.standardise(w)
    loop.fit(training.FlowTraining(prior, SMALL), tmp_path, steps=200, progress=False)
    assert prior.flow.log_prob(w).mean() > untrained.log_prob(w).mean() + 0.3
    dependence, before = (
        (torch.cov(flow.gaussianise(w).T) - torch.eye(4)).abs().max() for flow in (prior.flow, untrained)
    )
    assert dependence < 0.5 * before

    loaded = FacePrior.load(tmp_path / training.PRIOR)
    assert_close(loaded.flow.log_prob(w), prior.flow.log_prob(w), atol=0.05, rtol=0.01)  # half precision


def test_the_log_holds_numbers_from_the_first_step_on(prior, tmp_path):
    seldom = training.Config(hidden=8, blocks=1, batch=8, validate_every=1000, held_out=100)
    trainee = training.FlowTraining(prior, seldom)
    assert loop.fit(trainee, tmp_path, steps=21, progress=False).steps == 21  # the log is read at the 20th


def test_resuming_gives_the_flow_of_an_uninterrupted_run(prior, tmp_path):
    runs = {name: training.FlowTraining(prior, SMALL) for name in ("whole", "first", "second")}
    loop.fit(runs["whole"], tmp_path / "whole", steps=50, progress=False)
    loop.fit(runs["first"], tmp_path / "parts", steps=25, progress=False)
    loop.fit(runs["second"], tmp_path / "parts", steps=25, resume=True, progress=False)
    a, b = runs["whole"].state_dict(), runs["second"].state_dict()
    assert all(torch.equal(a["best"][name], b["best"][name]) for name in a["best"])
    assert a["counts"] == b["counts"]


def test_a_run_is_resumed_with_the_same_prior_alone(prior):
    other = FacePrior("other", deepcopy(prior.generator), None)
    with torch.no_grad():
        next(other.generator.mapping.parameters()).mul_(2)
    begun, resumed = (training.FlowTraining(each, SMALL).config for each in (prior, other))
    assert {key for key in begun if begun[key] != resumed[key]} == {"prior"}


def test_a_plateau_ends_the_training(prior, tmp_path):
    still = training.Config(hidden=8, blocks=1, batch=8, lr=0.0, validate_every=1, held_out=100, patience=1)
    report = loop.fit(training.FlowTraining(prior, still), tmp_path, steps=1000, progress=False)
    assert report.steps < 20


def test_a_method_that_needs_a_flow_says_how_to_get_one(prior):
    with pytest.raises(ValueError, match=r"rls needs a flow.*facesr train flow"):
        prior.require_flow("rls")


def test_weights_of_something_else_are_refused(prior):
    with pytest.raises(ValueError, match="not a flow's"):
        Flow.from_weights({"weight": torch.zeros(3)})
    weights = Flow(4, 8, 2).weights()
    weights.popitem()
    with pytest.raises(ValueError, match="one piece"):
        Flow.from_weights(weights)
