"""Optimisers, the search loop and PULSE: parity with the official code, properties, and what must not go wrong."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.testing import assert_close

from facesr_lib import randomness, search
from facesr_lib.degrade import Downsample
from facesr_lib.losses import geocross
from facesr_lib.networks.stylegan2 import Generator
from facesr_lib.prior import FacePrior, PulseGaussian
from facesr_lib.search.engine import run_search
from facesr_lib.search.optimizers import SphericalOptimizer, linear_one_cycle_drop, project_l1_ball

ORACLE = load_file(Path(__file__).parent / "oracles" / "pulse.safetensors")


@pytest.fixture(scope="module")
def prior():
    torch.manual_seed(0)
    return FacePrior("tiny", Generator(8, 8, 16, channel_base=128, channel_max=16), None)


@pytest.fixture(scope="module")
def lowres(prior):
    return Downsample(4)(prior.sample(3, seed=7)[0])


# --- losses and optimisers


def test_geocross_equals_the_official():
    assert_close(geocross(ORACLE["latent"]), ORACLE["geocross"], atol=1e-3, rtol=1e-5)


@given(st.integers(1, 4), st.integers(1, 5), st.integers(2, 9))
def test_geocross_is_zero_in_w_and_blind_to_order_and_scale(n, layers, d):
    w = torch.randn(n, layers, d, generator=torch.Generator().manual_seed(n * layers * d))
    assert_close(geocross(w[:, :1].expand(-1, layers, -1)), torch.zeros(n))
    assert_close(geocross(w.flip(0).flip(1)), geocross(w).flip(0), atol=1e-4, rtol=1e-4)
    assert_close(geocross(3 * w), geocross(w), atol=1e-4, rtol=1e-4)


def test_geocross_has_gradients_where_codes_coincide():
    w = torch.ones(2, 4, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(geocross(w).sum(), w)
    assert gradient.isfinite().all()
    x = torch.randn(1, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: geocross(w), x)


def test_geocross_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"\(N, L, d\), got float32 of shape \(3, 8\)"):
        geocross(torch.zeros(3, 8))


def test_spherical_adam_equals_the_official():
    p = ORACLE["spherical_start"].clone().requires_grad_()
    optimizer = SphericalOptimizer(torch.optim.Adam, [p], lr=0.4)
    for _ in range(5):
        optimizer.zero_grad()
        (p - ORACLE["spherical_target"]).square().sum().backward()
        optimizer.step()
    assert_close(p.detach(), ORACLE["spherical_after5"], atol=1e-4, rtol=1e-4)


def _l1(x):
    return x.flatten(1).abs().sum(1)


@settings(deadline=None)
@given(st.integers(1, 5), st.floats(0.1, 40), st.integers(0, 10_000))
def test_l1_projection_lands_on_the_ball_and_moves_no_further_than_needed(n, radius, seed):
    generator = torch.Generator().manual_seed(seed)
    center, x, y = torch.randn(3, n, 3, 8, generator=generator)
    p = project_l1_ball(x, center, radius)
    outside = _l1(x - center) > radius
    assert_close(_l1(p - center)[outside], torch.full((int(outside.sum()),), radius), rtol=1e-4, atol=1e-4)
    assert torch.equal(p[~outside], x[~outside])
    assert_close(project_l1_ball(p, center, radius), p, atol=1e-4, rtol=1e-4)
    # convexity's own test of the nearest point: no direction into the ball makes an acute angle with x − p
    inside = project_l1_ball(y, center, radius)
    assert (((x - p) * (inside - p)).flatten(1).sum(1) <= 1e-3).all()


@pytest.mark.parametrize("radius", [0.0, -1.0, float("nan")])
def test_l1_projection_refuses_a_ball_without_a_radius(radius):
    with pytest.raises(ValueError, match="must be positive"):
        project_l1_ball(torch.ones(1, 3), torch.zeros(1, 3), radius)
    with pytest.raises(ValueError, match=r"of one shape, .* got \(1, 3\) and \(1, 4\)"):
        project_l1_ball(torch.ones(1, 3), torch.zeros(1, 4), 1.0)


def test_schedule_rises_falls_and_drops():
    factors = [linear_one_cycle_drop(step, 100) for step in (0, 45, 90, 99)]
    assert_close(torch.tensor(factors), torch.tensor([0.1, 1.0, 0.1, 0.1 - 0.9 * 0.099]))


# --- the loop


def sgd(lr):
    return lambda variables: torch.optim.SGD(variables.values(), lr=lr)


def quadratic(start, target, **options):
    """A search whose image is the variable itself."""
    options = {"optimizer": sgd(0.1), "steps": 20, "progress": False} | options
    target = target.view(-1, 1, 1, 1)

    def render(variables):
        x = variables["x"]
        return x[:, :, 0, 0][:, None], x.expand(-1, 3, 2, 2)

    return run_search(
        render,
        {"x": start.view(-1, 1, 1, 1)},
        lambda codes, image: {"fit": (image[:, :1, :1, :1] - target).square().flatten(1).sum(1)},
        **options,
    )


def test_each_image_keeps_its_own_best_step():
    # lr 1.05 overshoots ever further: the first image is best at its start, the other comes in from where lr is fine
    result = quadratic(torch.tensor([0.51, 0.9]), torch.tensor([0.5, 0.5]), optimizer=sgd(1.05))
    assert result.step.tolist() == [0, 0]
    result = quadratic(torch.tensor([0.5, 0.9]), torch.tensor([0.5, 0.5]))
    assert result.step.tolist() == [0, 19]
    assert_close(result.loss, result.history.losses["fit"].min(0).values)


def test_the_image_that_comes_back_is_the_one_whose_loss_is_reported():
    result = quadratic(torch.tensor([0.2, 0.9]), torch.tensor([0.5, 0.5]))
    assert_close((result.image[:, 0, 0, 0] - 0.5).square(), result.loss)


def test_a_nan_stops_its_image_only():
    target = torch.tensor([0.5, float("nan")])
    alone = quadratic(torch.tensor([0.9]), torch.tensor([0.5]))
    both = quadratic(torch.tensor([0.9, 0.3]), target)
    assert_close(both.loss[:1], alone.loss)
    assert both.loss[1] == torch.inf
    assert_close(both.image[1], torch.full((3, 2, 2), 0.3))  # its start: nothing better was seen


def test_a_nan_late_in_the_search_leaves_the_best_before_it():
    def objective(codes, image):
        value = image.flatten(1).mean(1)
        return {"fit": torch.where(value < 0.5, torch.nan, value)}

    start = {"x": torch.full((1, 3, 2, 2), 0.6)}
    result = run_search(
        lambda v: (v["x"].flatten(2), v["x"]), start, objective, optimizer=sgd(0.1), steps=50, progress=False
    )
    assert 0.5 <= result.loss.item() < 0.52
    assert result.image.min() >= 0.5


@pytest.mark.parametrize("how", ["callback", "ctrl-c"])
def test_an_interrupted_search_returns_its_best_so_far(how):
    def stop(step, image, loss):
        if step == 7 and how == "ctrl-c":
            raise KeyboardInterrupt
        return step == 7

    result = quadratic(torch.tensor([0.9]), torch.tensor([0.5]), steps=1000, callback=stop)
    assert result.interrupted
    assert len(result.history.losses["fit"]) == 8
    assert result.step.item() == 7


def test_history_records_losses_every_step_and_codes_every_kth():
    result = quadratic(torch.tensor([0.9, 0.1]), torch.tensor([0.5, 0.5]), steps=12, record_every=5)
    assert result.history.losses["fit"].shape == (12, 2)
    assert result.history.latent_steps == [0, 5, 10, 11]
    assert result.history.latents.shape == (4, 2, 1, 1)
    assert not result.history.latents.requires_grad
    assert_close(result.history.latents[0, :, 0, 0], torch.tensor([0.9, 0.1]))


@pytest.mark.parametrize("options", [{"steps": 0}, {"record_every": 0}, {"steps": -3}])
def test_no_steps_is_an_error(options):
    with pytest.raises(ValueError, match="at least 1"):
        quadratic(torch.tensor([0.9]), torch.tensor([0.5]), **options)


# --- seeds


def test_a_seed_may_be_numpys():
    own, numpys = (randomness.normal(randomness.generators(seed, 2), 3) for seed in (5, np.int64(5)))
    assert torch.equal(own, numpys)


@pytest.mark.parametrize("seeds", [torch.tensor([3, 4]), np.array([3, 4]), (3, 4)])
def test_seeds_may_be_a_tensor(seeds):
    own, given = (randomness.normal(randomness.generators(seed, 2), 3) for seed in ([3, 4], seeds))
    assert torch.equal(own, given)
    single = randomness.normal(randomness.generators(torch.tensor(5), 2), 3)
    assert torch.equal(single, randomness.normal(randomness.generators(5, 2), 3))


def test_seeds_do_not_depend_on_the_batch():
    together = randomness.normal(randomness.generators([3, 4, 5], 3), 6)
    alone = randomness.normal(randomness.generators(4, 1), 6)
    assert torch.equal(together[1:2], alone)
    five, two = (randomness.normal(randomness.generators(9, n), 6) for n in (5, 2))
    assert torch.equal(five[:2], two)
    rows = randomness.normal(randomness.generators(0, 20, restarts=3), 6)
    assert len({tuple(row.tolist()) for row in rows}) == 60


@pytest.mark.parametrize(
    ("seed", "message"),
    [
        ([1, 2], "2 seeds for 3 images"),
        (-1, "must not be negative"),
        (None, "or one per image; got None"),
        (1.5, "one per image; got 1.5"),
        ("123", "one per image; got '123'"),
        ([0, 1, 2.5], r"one per image; got \[0, 1, 2.5\]"),
        (torch.tensor(0.5), "one per image; got 0.5"),
    ],
)
def test_wrong_seeds_are_refused(seed, message):
    with pytest.raises(ValueError, match=message):
        randomness.generators(seed, 3)


# --- PULSE


def test_gaussianisation_is_inverted_and_standardises(prior):
    z = torch.randn(20_000, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        w = prior.generator.mapping(z)
    v = prior.pulse_gaussian.forward(w)
    assert_close(prior.pulse_gaussian.inverse(v), w, atol=1e-4, rtol=1e-4)
    assert_close(v.mean(0), torch.zeros(8), atol=0.05, rtol=0)
    assert_close(v.std(0), torch.ones(8), atol=0.05, rtol=0)


def test_gaussianisation_fit_does_not_depend_on_its_chunks(prior):
    few = PulseGaussian.fit(prior.generator.mapping, count=25_000, seed=3)
    z = torch.randn(25_000, 8, generator=torch.Generator().manual_seed(4))
    other = PulseGaussian.forward(few, prior.generator.mapping(z))
    assert_close(other.std(0), torch.ones(8), atol=0.05, rtol=0)


def test_pulse_gets_closer_and_stays_on_its_sphere(prior, lowres):
    result = search.pulse(prior, lowres, Downsample(4), steps=40, progress=False, record_every=1, seed=1)
    total = result.history.total
    assert (result.loss < 0.5 * total[0]).all()
    v = prior.pulse_gaussian.forward(result.history.latents)  # (K, N, L, d)
    norms = v.norm(dim=-1)
    assert_close(norms, norms[:1].expand_as(norms), atol=1e-3, rtol=1e-3)
    assert result.image.shape == (3, 3, 16, 16)
    assert 0 <= result.image.min() <= result.image.max() <= 1


@settings(max_examples=4, deadline=None)
@given(st.sampled_from(["w", "w+"]), st.sampled_from(["random", "const", "none"]), st.integers(0, 5))
def test_a_batch_gives_each_image_what_it_gets_alone(prior, lowres, space, noise, trainable):
    options = {"steps": 6, "space": space, "noise": noise, "trainable_noise_layers": trainable, "progress": False}
    together = search.pulse(prior, lowres, Downsample(4), seed=[5, 6, 7], **options)
    for i in range(3):
        alone = search.pulse(prior, lowres[i : i + 1], Downsample(4), seed=5 + i, **options)
        assert_close(together.image[i : i + 1], alone.image, atol=1e-3, rtol=1e-3)
        assert_close(together.loss[i : i + 1], alone.loss, atol=1e-4, rtol=1e-3)


def test_a_batch_with_restarts_gives_each_image_what_it_gets_alone(prior, lowres):
    options = {"steps": 6, "restarts": 3, "progress": False}
    together = search.pulse(prior, lowres, Downsample(4), seed=[5, 6, 7], **options)
    alone = search.pulse(prior, lowres[2:], Downsample(4), seed=7, **options)
    single = search.pulse(prior, lowres[2:], Downsample(4), seed=7, steps=6, progress=False)
    assert_close(together.loss[2:], alone.loss, atol=1e-4, rtol=1e-3)
    assert together.history.total.shape == (6, 3)
    assert alone.loss <= single.loss  # the first try is among the three


def test_the_same_seed_gives_the_same_bytes(prior, lowres):
    first, second = (search.pulse(prior, lowres, Downsample(4), steps=5, seed=3, progress=False) for _ in range(2))
    assert torch.equal(first.image, second.image)
    other = search.pulse(prior, lowres, Downsample(4), steps=5, seed=4, progress=False)
    assert not torch.equal(first.image, other.image)


def test_in_w_all_layers_share_one_code(prior, lowres):
    result = search.pulse(prior, lowres, Downsample(4), steps=3, space="w", progress=False)
    assert_close(result.latent, result.latent[:, :1].expand_as(result.latent))
    assert_close(result.history.losses["geocross"], torch.zeros(3, 3))


def test_under_eps_only_the_cross_term_moves_the_face(prior, lowres):
    result = search.pulse(prior, lowres, Downsample(4), steps=3, eps=10.0, progress=False)
    assert_close(result.history.losses["pixel"], torch.full((3, 3), 1000.0))
    assert (result.history.losses["geocross"][-1] < result.history.losses["geocross"][0]).all()


def test_the_official_codes_other_pixel_loss_and_other_schedules(prior, lowres):
    options = {"steps": 1, "lambda_l2": 0.0, "lambda_l1": 2.0, "noise": "const", "trainable_noise_layers": 0}
    result = search.pulse(prior, lowres, Downsample(4), progress=False, **options)
    start = prior.render(result.latent)
    expected = 20 * (Downsample(4)(start) - lowres).abs().mean((1, 2, 3))
    assert_close(result.history.losses["pixel"][0], expected, atol=1e-4, rtol=1e-4)
    still = search.pulse(prior, lowres, Downsample(4), steps=4, schedule=lambda step, steps: 0.0, progress=False)
    assert_close(still.history.total, still.history.total[:1].expand(4, -1))


def test_any_operator_that_has_gradients_will_do(prior):
    class Grey:
        scale = 2

        def __call__(self, x):
            return torch.nn.functional.avg_pool2d(x.mean(1, keepdim=True).expand(-1, 3, -1, -1), 2)

    target = Grey()(prior.sample(2, seed=3)[0])
    result = search.pulse(prior, target, Grey(), steps=30, progress=False)
    assert (result.loss < result.history.total[0]).all()


def test_the_prior_is_left_as_it_was(prior, lowres):
    before = {k: v.clone() for k, v in prior.generator.state_dict().items()}
    search.pulse(prior, lowres, Downsample(4), steps=3, progress=False)
    assert all(torch.equal(before[k], v) for k, v in prior.generator.state_dict().items())
    assert all(p.grad is None for p in prior.generator.parameters())


@pytest.mark.parametrize(
    ("lowres", "options", "message"),
    [
        (torch.zeros(1, 3, 4, 5), {}, "5×4"),
        (torch.zeros(1, 3, 8, 8), {}, "8×8"),
        (torch.full((1, 3, 4, 4), float("nan")), {}, "NaN"),
        (torch.zeros(1, 3, 4, 4), {"space": "z"}, "there is no space"),
        (torch.zeros(1, 3, 4, 4), {"step": 9}, "there is no option of pulse 'step': did you mean steps"),
        (torch.zeros(1, 3, 4, 4), {"noise": "pink"}, "there is no noise"),
        (torch.zeros(1, 3, 4, 4), {"restarts": 0}, "restarts must be"),
        (torch.zeros(1, 3, 4, 4), {"steps": 0}, "at least 1"),
        (torch.zeros(1, 3, 4, 4), {"seed": [1, 2]}, "2 seeds for 1 images"),
        (torch.zeros(1, 3, 4, 4), {"steps": 2.5}, "steps must be a whole number, at least 1; got 2.5"),
        (torch.zeros(1, 3, 4, 4), {"eps": -1}, "eps must be a finite number, at least 0; got -1"),
        (torch.zeros(1, 3, 4, 4), {"trainable_noise_layers": -1}, "trainable_noise_layers must be a whole number, at"),
        (torch.zeros(1, 3, 4, 4), {"lambda_l2": "100"}, "lambda_l2 must be a finite number; got '100'"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), {}, "got uint8.*divided by 255"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.complex64), {}, "got complex64"),
    ],
)
def test_what_cannot_be_searched_is_refused(prior, lowres, options, message):
    with pytest.raises(ValueError, match=message):
        search.pulse(prior, lowres, Downsample(4), progress=False, **options)


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        (lambda x: Downsample(4)(x)[:, :1], r"makes small float pictures.*gives \(1, 1, 4, 4\)"),
        (lambda x: (255 * Downsample(4)(x)).byte(), r"makes small float pictures.*gives \(1, 3, 4, 4\)"),
        (lambda x: Downsample(4)(x).numpy(), "makes small float pictures.*gives ndarray"),
        (lambda x: Downsample(4)(x.detach()), "follows the operator's gradient.*gives none"),
        (lambda x: Downsample(4)(x.detach()) * torch.ones((), requires_grad=True), "gives none"),
        ("bicubic", "when it is called; got 'bicubic'"),
    ],
)
def test_operators_that_no_search_can_go_through_are_refused(prior, lowres, operator, message):
    with pytest.raises(ValueError, match=message):
        search.pulse(prior, lowres, operator, steps=1, progress=False)


def test_a_picture_for_which_no_step_gives_a_number_is_told(prior, lowres):
    def spoils_the_second(x):
        return Downsample(4)(x) * torch.tensor([1.0, torch.nan, 1.0])[: len(x)].view(-1, 1, 1, 1)

    with pytest.warns(UserWarning, match="pulse: no step gave a number for image 1 of 3: its start is returned"):
        result = search.pulse(prior, lowres, spoils_the_second, steps=3, progress=False)
    assert result.loss.isfinite().tolist() == [True, False, True]
    with pytest.warns(UserWarning, match="image 0, 1, 2 of 3"):
        result = search.pulse(prior, lowres, lambda x: Downsample(4)(x) * torch.nan, steps=100, progress=False)
    assert len(result.history.total) == 1  # nothing is left to look for


def test_an_operators_own_parameters_collect_no_gradients(prior, lowres):
    class Bright(torch.nn.Module):
        scale = 4

        def __init__(self):
            super().__init__()
            self.gain = torch.nn.Parameter(torch.ones(()))

        def forward(self, x):
            return self.gain * Downsample(4)(x)

    operator = Bright()
    result = search.pulse(prior, lowres, operator, steps=2, progress=False)
    assert operator.gain.grad is None
    assert not any(t.requires_grad for t in (result.image, result.loss, result.residual, result.history.total))
