"""dse, RLS, RLS+ and BRGM: each term against its equation, what each may change, and what must not go wrong."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from math import inf, nan, sqrt
from threading import Barrier

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from facesr_lib import assets, images, losses, randomness, search
from facesr_lib.degrade import Downsample
from facesr_lib.losses import Entrance, SemanticLoss
from facesr_lib.networks import perceptual
from facesr_lib.networks.flow import Flow
from facesr_lib.networks.stylegan2 import Discriminator, Generator
from facesr_lib.prior import FacePrior, PulseGaussian
from facesr_lib.search.optimizers import project_l1_ball, ramps
from facesr_lib.search.starts import entrance_to
from facesr_lib.search.terms import cosine, cross, density_and_shell, standard_normal

OPERATOR = Downsample(2)
brgm = partial(search.brgm, perceptual=None)
mganprior = partial(search.mganprior, perceptual=None, at=8, codes=3)
ALL = {
    "pulse": search.pulse,
    "dse": search.dse,
    "rls": search.rls,
    "rls_plus": search.rls_plus,
    "brgm": brgm,
    "mganprior": mganprior,
}
every_method = pytest.mark.parametrize("method", ALL.values(), ids=ALL)
quiet = {"steps": 5, "progress": False}


def small_prior(resolution=16, d=8, base=128, top=16):
    torch.manual_seed(0)
    generator = Generator(d, d, resolution, channel_base=base, channel_max=top)
    with torch.no_grad():
        for block in generator.synthesis.blocks:
            block.torgb.weight.mul_(0.1)  # pictures inside [0, 1]
        for layer in generator.synthesis.layers:
            layer.noise_strength.fill_(0.1)
    prior = FacePrior("tiny", generator, Discriminator(resolution, channel_base=base, channel_max=top))
    prior.flow = Flow(d, 16, 2).requires_grad_(False).eval()
    prior.flow.standardise(prior.sample_w(500)[:, 0])
    prior.generator.mapping.w_avg.copy_(prior.sample_w(500)[:, 0].mean(0))
    return prior


@pytest.fixture(scope="module")
def prior():
    return small_prior()


@pytest.fixture(scope="module")
def lowres(prior):
    return OPERATOR(prior.sample(3, seed=7)[0]).clamp(0, 1)


# --- in somebody's program


@contextmanager
def default_dtype(dtype):
    torch.set_default_dtype(dtype)
    yield
    torch.set_default_dtype(torch.float32)


@contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


SURROUNDINGS = {
    "no gradients": torch.no_grad,
    "inference": torch.inference_mode,
    "autocast": partial(torch.autocast, "cpu", torch.bfloat16),
    "float64": partial(default_dtype, torch.float64),
    "a default device": partial(torch.device, "meta"),
    "deterministic": deterministic,
}


@pytest.fixture(scope="module")
def expected(prior, lowres):
    return {name: method(prior, lowres, OPERATOR, **quiet) for name, method in ALL.items()}


def state():
    modes = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
    return *modes, torch.get_default_dtype(), torch.get_default_device(), torch.random.get_rng_state().tolist()


@pytest.mark.parametrize("surroundings", SURROUNDINGS.values(), ids=SURROUNDINGS)
@pytest.mark.parametrize("name", ALL)
def test_a_search_is_the_same_in_any_surroundings_and_leaves_them_alone(prior, lowres, expected, name, surroundings):
    with surroundings():
        before = state()
        found = ALL[name](prior, lowres, OPERATOR, **quiet)
        assert state() == before
    assert torch.equal(found.image, expected[name].image)
    assert torch.equal(found.latent, expected[name].latent)
    assert torch.equal(found.residual, expected[name].residual)


def test_an_error_leaves_the_surroundings_alone_too(prior, lowres):
    with default_dtype(torch.float64):
        before = state()
        with pytest.raises(ValueError, match="there is no space"):
            search.pulse(prior, lowres, OPERATOR, space="q", **quiet)
        assert state() == before


@pytest.mark.parametrize("surroundings", ["inference", "float64", "autocast"])
@pytest.mark.parametrize("name", ["dse", "rls_plus"])  # between them they use all of a prior
def test_a_prior_loaded_in_any_surroundings_can_be_searched(prior, lowres, expected, name, surroundings, tmp_path):
    prior.save(tmp_path / "prior.safetensors")
    plain = ALL[name](FacePrior.load(tmp_path / "prior.safetensors"), lowres, OPERATOR, **quiet)
    with SURROUNDINGS[surroundings]():
        loaded = FacePrior.load(tmp_path / "prior.safetensors")
        picture = OPERATOR(prior.sample(3, seed=7)[0]).clamp(0, 1)
    assert torch.equal(ALL[name](loaded, lowres, OPERATOR, **quiet).image, plain.image)
    ALL[name](loaded, picture, OPERATOR, **quiet)


@every_method
def test_a_picture_with_a_graph_gets_no_gradient(method, prior, lowres):
    leaf = lowres.clone().requires_grad_()
    plain, found = (method(prior, picture, OPERATOR, **quiet) for picture in (lowres, leaf * 1))
    assert torch.equal(found.image, plain.image)
    assert not found.loss.requires_grad
    assert not found.residual.requires_grad
    method(prior, leaf, OPERATOR, **quiet)
    assert leaf.grad is None


@every_method
def test_a_prior_that_asks_for_gradients_gets_none(method, lowres):
    prior = small_prior()
    weights = [p.requires_grad_() for p in (*prior.generator.parameters(), *prior.discriminator.parameters())]
    assert method(prior, lowres, OPERATOR, **quiet).loss.isfinite().all()
    assert all(p.grad is None for p in weights)


@every_method
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_a_picture_may_be_of_any_floating_point_type(method, prior, lowres, dtype):
    picture = lowres.to(dtype)
    plain, found = (method(prior, each, OPERATOR, **quiet) for each in (picture.float(), picture))
    assert torch.equal(found.image, plain.image)
    assert found.image.dtype == torch.float32


@every_method
@pytest.mark.parametrize("make", [lambda x: x.numpy(), lambda x: x.tolist()], ids=["numpy", "list"])
def test_what_is_no_tensor_is_named(method, prior, lowres, make):
    kind = type(make(lowres)).__name__
    with pytest.raises(TypeError, match=rf"float tensor \(N, 3, H, W\), got {kind}: torch.as_tensor makes one"):
        method(prior, make(lowres), OPERATOR, **quiet)


def test_options_of_the_first_stage_go_before_those_of_both(prior, lowres):
    first = {"steps": 2, "progress": False, "seed": 3, "record_every": 1}
    plain = search.rls(prior, lowres, OPERATOR, **first)
    assert torch.equal(search.rls_plus(prior, lowres, OPERATOR, rls_options=first, **quiet).anchor, plain.latent)


@every_method
def test_a_seed_per_image_is_that_images_alone(prior, lowres, method):
    together = method(prior, lowres, OPERATOR, seed=[4, 5, 6], **quiet)
    alone = method(prior, lowres[1:2], OPERATOR, seed=[5], **quiet)
    assert_close(together.image[1:2], alone.image, atol=1e-4, rtol=0)


# --- terms on w


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 9))
def test_cross_is_the_sum_over_pairs(n, layers, d):
    w = torch.randn(n, layers, d, generator=torch.Generator().manual_seed(n + 7 * layers + 50 * d))
    pairs = [(w[:, i] - w[:, j]).square().sum(1) for i in range(layers) for j in range(i + 1, layers)]
    assert_close(cross(w), -torch.stack([torch.zeros(n), *pairs]).sum(0), atol=1e-4, rtol=1e-4)


def test_density_and_shell_are_equation_5(prior):
    w = prior.sample_w(3, seed=1) + 0.1 * torch.randn(3, prior.num_ws, 8, generator=torch.Generator().manual_seed(0))
    p_w, p_gaussian = density_and_shell(prior.flow, w)
    for n in range(3):
        density = sum(prior.flow.log_prob(w[n, i]) for i in range(prior.num_ws)) / prior.num_ws
        radii = torch.stack([prior.flow.gaussianise(w[n, i]).norm() for i in range(prior.num_ws)])
        assert_close(p_w[n], density, atol=1e-4, rtol=1e-4)
        assert_close(p_gaussian[n], -(radii - sqrt(8)).square().mean(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("term", ["density", "shell", "cross", "normal", "cosine"])
def test_terms_on_w_have_the_gradients_that_differences_say(term, prior):
    flow = Flow(8, 16, 2).double().eval()
    terms = {
        "density": lambda w: density_and_shell(flow, w)[0],
        "shell": lambda w: density_and_shell(flow, w)[1],
        "cross": cross,
        "normal": lambda w: standard_normal(w, torch.full((8,), 0.3), torch.tensor(2.0)),
        "cosine": cosine,
    }
    w = torch.randn(2, 3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3), requires_grad=True)
    assert torch.autograd.gradcheck(terms[term], w)


def test_brgms_beliefs():
    w = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0))
    cosines = [torch.nn.functional.cosine_similarity(w[:, i], w[:, j]) for i in range(4) for j in range(4) if i != j]
    assert_close(cosine(w), torch.stack(cosines).mean(0) - 1, atol=1e-5, rtol=1e-5)
    assert_close(cosine(w[:, :1].expand(-1, 4, -1)), torch.zeros(2), atol=1e-5, rtol=0)
    assert_close(cosine(w[:, :1]), torch.zeros(2))
    mean, std = torch.randn(6), torch.rand(6) + 1
    assert_close(standard_normal(w * std + mean, mean, std), -w.square().mean((1, 2)), atol=1e-4, rtol=1e-4)


def test_projection_agrees_with_a_quadratic_program():
    """min ‖p − q − v‖² over p, q ≥ 0 with Σ(p + q) ≤ r, by projected gradient descent with tiny steps: brute force."""
    scipy = pytest.importorskip("scipy.optimize", reason="scipy brings the quadratic programs' solver")
    rng = np.random.default_rng(0)
    for radius in (0.5, 1.0, 2.5):
        v = rng.normal(size=5)

        def distance(x, v=v):
            return ((x[:5] - x[5:] - v) ** 2).sum()

        budget = {"type": "ineq", "fun": lambda x, radius=radius: radius - x.sum()}
        found = scipy.minimize(distance, np.zeros(10), bounds=[(0, None)] * 10, constraints=[budget], tol=1e-12).x
        ours = project_l1_ball(torch.tensor(v)[None], torch.zeros(1, 5, dtype=torch.float64), radius)
        assert_close(ours[0], torch.tensor(found[:5] - found[5:]), atol=1e-4, rtol=0)


def test_ramps_rise_and_fall():
    assert ramps(24, 1000) == pytest.approx(0.5)
    assert ramps(49, 1000) == ramps(499, 1000) == ramps(749, 1000) == pytest.approx(1)
    assert ramps(874, 1000) == pytest.approx(0.5)
    assert ramps(999, 1000) == pytest.approx(0)


# --- the semantic loss


def test_semantic_loss_is_equation_4(prior, lowres):
    enter = entrance_to(prior, OPERATOR, "upsample")
    other = OPERATOR(prior.sample(3, seed=8)[0])
    x, y = (2 * images.resize(small, (16, 16)) - 1 for small in (lowres, other))
    blocks = [prior.discriminator.b16, prior.discriminator.b8]
    expected = torch.zeros(3)
    for block in blocks:
        x, y = block(x), block(y)
        expected += (x - y).abs().sum((1, 2, 3))
    assert_close(SemanticLoss(prior.discriminator, lowres, 2, enter)(other), expected, atol=1e-3, rtol=1e-4)
    assert_close(SemanticLoss(prior.discriminator, lowres, 9, enter)(other), expected, atol=1e-3, rtol=1e-4)
    last = SemanticLoss(prior.discriminator, lowres, 1, enter)(other)
    assert_close(last, (x - y).abs().sum((1, 2, 3)), atol=1e-3, rtol=1e-4)
    assert_close(SemanticLoss(prior.discriminator, lowres, 2, enter)(lowres), torch.zeros(3))


def test_semantic_loss_needs_a_block(prior, lowres):
    with pytest.raises(ValueError, match="at least one block; got 0"):
        SemanticLoss(prior.discriminator, lowres, 0, entrance_to(prior, OPERATOR, "upsample"))


def test_entrance_predicts_what_its_block_expects(prior):
    faces = prior.sample(64, seed=3)[0]
    small = torch.nn.functional.avg_pool2d(faces, 2)
    entrance = Entrance(prior.discriminator, faces, small)
    assert entrance.resolution == 8
    expected = prior.discriminator.features(2 * faces - 1)[0]
    got = entrance(small)
    assert got.shape == expected.shape
    error, spread = (
        (got - expected).square().mean(),
        (expected - expected.mean((0, 2, 3), keepdim=True)).square().mean(),
    )
    assert 1 - error / spread == pytest.approx(entrance.explained, abs=0.02)
    assert entrance.explained > 0.3
    shuffled = Entrance(prior.discriminator, faces, small.flip(0))
    assert shuffled.explained < entrance.explained


def test_entrance_refuses_pictures_that_no_block_takes(prior):
    faces = prior.sample(4)[0]
    with pytest.raises(ValueError, match=r"enter the discriminator at 8²; the picture is \(4, 4\)"):
        Entrance(prior.discriminator, faces, Downsample(4)(faces))


# --- what a method may change


@every_method
def test_the_search_gets_closer_and_reports_what_is_left(method, prior, lowres):
    result = method(prior, lowres, OPERATOR, **quiet | {"steps": 25})
    assert (result.loss <= result.history.total[0]).all()
    error = OPERATOR(result.image) - lowres
    assert_close(result.residual, error.square().mean((1, 2, 3)).sqrt())
    assert result.latent.shape == (3, prior.num_ws, 8)


@pytest.mark.filterwarnings("error:There is a performance drop")  # vmap without a rule loops in silence but for this
@every_method
def test_a_batch_gives_each_image_what_it_gets_alone(method, prior, lowres):
    together = method(prior, lowres, OPERATOR, seed=[5, 5, 5], **quiet)
    for i in range(3):
        alone = method(prior, lowres[i : i + 1], OPERATOR, seed=5, **quiet)
        assert_close(together.image[i : i + 1], alone.image, atol=2e-3, rtol=1e-3)
        assert_close(together.loss[i : i + 1], alone.loss, atol=1e-3, rtol=1e-3)


@every_method
def test_a_nan_stops_its_image_only(method, prior, lowres):
    class Poisoned:
        scale, calls = 2, 0

        def __call__(self, x):
            small = OPERATOR(x)
            self.calls += len(x) == 2 and x.requires_grad
            poison = torch.zeros(len(x), 1, 1, 1)
            poison[-1] = torch.nan if self.calls > 2 and len(x) == 2 else 0.0
            return small + poison

    both = method(prior, lowres[:2], Poisoned(), seed=[5, 5], **quiet)
    alone = method(prior, lowres[:1], OPERATOR, seed=5, **quiet)
    assert_close(both.loss[:1], alone.loss, atol=1e-3, rtol=1e-3)
    assert both.step[1] < 2
    assert both.image.isfinite().all()


@every_method
def test_the_prior_is_left_as_it_was(method, prior, lowres):
    networks = (prior.generator, prior.discriminator, prior.flow)
    before = [{k: v.clone() for k, v in network.state_dict().items()} for network in networks]
    method(prior, lowres, OPERATOR, **quiet)
    for network, kept in zip(networks, before, strict=True):
        assert all(torch.equal(kept[k], v) for k, v in network.state_dict().items())
        assert all(p.grad is None and not p.requires_grad for p in network.parameters())


SHARING = {  # among them all that swap weights
    "pulse": search.pulse,
    "dse": search.dse,
    "rls": search.rls,
    "rls_plus": search.rls_plus,
    "rls_plus, from the mean": partial(search.rls_plus, anchor="mean", lr=1e-2),
    "dse in z": partial(search.dse, space="z"),
    "mganprior": mganprior,
    "brgm": brgm,
}


def test_eight_searches_at_once_on_one_prior_give_what_each_gives_alone(prior, lowres):
    alone = [method(prior, lowres, OPERATOR, **quiet) for method in SHARING.values()]
    together = Barrier(len(SHARING))

    def search_with_the_others(method):
        together.wait()
        return [method(prior, lowres, OPERATOR, **quiet) for _ in range(2)]

    with ThreadPoolExecutor(len(SHARING)) as threads:
        for first, results in zip(alone, threads.map(search_with_the_others, SHARING.values()), strict=True):
            for result in results:
                assert_close(result.image, first.image, atol=1e-5, rtol=0)
                assert_close(result.loss, first.loss, atol=1e-5, rtol=1e-4)


def test_the_default_type_is_put_back_by_the_last_thread_that_needs_it(prior, lowres):
    inside, leave = Barrier(2, timeout=60), Barrier(2, timeout=60)

    def outlived(step, *_):
        if step == 0:
            inside.wait()

    def outliving(step, *_):
        if step == 0:
            inside.wait()
            leave.wait()

    with default_dtype(torch.float64), ThreadPoolExecutor(2) as threads:
        longer = threads.submit(search.rls, prior, lowres, OPERATOR, callback=outliving, **quiet)
        search.rls(prior, lowres, OPERATOR, callback=outlived, **quiet)
        assert torch.get_default_dtype() == torch.float32
        leave.wait()
        longer.result()
        assert torch.get_default_dtype() == torch.float64


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_whatever_breaks_a_search_the_prior_is_intact(prior, lowres, error):
    weights = list(prior.generator.parameters())

    class Breaks(torch.nn.Module):
        calls = 0

        def forward(self, image):
            self.calls += 1
            if self.calls > 4:
                raise error("broken")
            return OPERATOR(image)

    operator = Breaks()
    with suppress(RuntimeError, KeyboardInterrupt):
        search.rls_plus(prior, lowres, operator, anchor="mean", **quiet)
    assert operator.calls > 4
    assert all(one is other for one, other in zip(prior.generator.parameters(), weights, strict=True))
    first, second = (search.rls_plus(prior, lowres, OPERATOR, **quiet) for _ in range(2))
    assert torch.equal(first.image, second.image)


def test_a_view_shares_the_weights_and_nothing_that_a_search_may_swap(prior):
    view = prior.view()
    for name in ("generator", "discriminator", "flow"):
        network, own = getattr(prior, name), getattr(view, name)
        assert not set(network.modules()) & set(own.modules())
        for one, other in zip(network.parameters(), own.parameters(), strict=True):
            assert one.data_ptr() == other.data_ptr()
            assert not other.requires_grad
    w = prior.sample_w(2, seed=1)
    assert torch.equal(view.render(w), prior.render(w))
    assert view.pulse_gaussian is prior.pulse_gaussian


def test_copies_of_the_network_draw_what_the_network_draws(prior):
    w = prior.sample_w(3, seed=2)
    theta = prior.theta(3)
    assert_close(prior.render(w, theta=theta), prior.render(w), atol=1e-5, rtol=1e-4)
    bias = theta["b16.torgb.bias"].clone()
    bias[1] += 1
    changed = prior.render(w, theta=theta | {"b16.torgb.bias": bias})
    assert_close(changed[[0, 2]], prior.render(w)[[0, 2]], atol=1e-5, rtol=1e-4)
    assert_close(changed[1], prior.render(w)[1] + 0.5, atol=1e-4, rtol=1e-4)


def test_dse_tunes_the_network_unless_told_not_to(prior, lowres):
    still, tuned = (
        search.dse(prior, lowres, OPERATOR, lr=0.0, trainable_noise_layers=0, lr_theta=rate, **quiet)
        for rate in (0.0, 1e-2)
    )
    assert_close(still.history.total, still.history.total[:1].expand(5, -1))
    assert (tuned.loss < still.loss).all()


def test_dse_has_equation_2s_terms(prior, lowres):
    options = {"steps": 1, "progress": False, "noise": "const", "trainable_noise_layers": 0}
    result = search.dse(prior, lowres, OPERATOR, lambda_p=3.0, lambda_s=0.7, lambda_g=11.0, blocks=2, **options)
    small = OPERATOR(prior.render(result.latent))
    semantic = SemanticLoss(prior.discriminator, lowres, 2, entrance_to(prior, OPERATOR, "upsample"))
    terms = {
        "pixel": 3 * torch.stack([(a - b).norm() for a, b in zip(small, lowres, strict=True)]),
        "semantic": 0.7 * semantic(small),
        "geocross": 11 * losses.geocross(result.latent),
    }
    for name, expected in terms.items():
        assert_close(result.history.losses[name][0], expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("space", ["w", "z"])
def test_dse_in_w_and_z_shares_one_code(prior, lowres, space):
    result = search.dse(prior, lowres, OPERATOR, space=space, **quiet)
    assert_close(result.latent, result.latent[:, :1].expand_as(result.latent))


def test_dse_enters_the_discriminator_either_way(prior, lowres):
    up, own = (search.dse(prior, lowres, OPERATOR, entrance=way, **quiet) for way in ("upsample", "own"))
    assert not torch.allclose(up.history.losses["semantic"], own.history.losses["semantic"])


def test_rls_has_equation_6s_terms(prior, lowres):
    weights = {"lambda_w": 0.1, "lambda_g": 0.2, "lambda_c": 0.3, "lambda_pixel": 4.0}
    result = search.rls(prior, lowres, OPERATOR, start="random", steps=1, progress=False, **weights)
    w = result.latent
    p_w, p_gaussian = density_and_shell(prior.flow, w)
    terms = {
        "pixel": 4 * (OPERATOR(prior.render(w)) - lowres).abs().mean((1, 2, 3)),
        "density": -0.1 * p_w,
        "shell": -0.2 * p_gaussian,
        "cross": -0.3 * cross(w),
    }
    for name, expected in terms.items():
        assert_close(result.history.losses[name][0], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("layers", [1, 3, 6])
def test_rls_starts_at_the_mean_and_moves_its_first_layers_only(prior, lowres, layers):
    result = search.rls(prior, lowres, OPERATOR, layers=layers, record_every=1, **quiet)
    mean = prior.mean_w(3)
    assert_close(result.history.latents[0], mean)
    moved = (result.history.latents[-1] != mean).any(-1).any(0)  # (L,)
    assert moved.tolist() == [i < layers for i in range(6)]


def test_rls_searches_all_layers_and_rls_plus_half_unless_told_otherwise(prior, lowres):
    start = prior.mean_w(3)
    found = search.rls(prior, lowres, OPERATOR, **quiet).history.latents[-1]
    assert (found != start).any(-1).all()
    refined = search.rls_plus(prior, lowres, OPERATOR, anchor=start, **quiet).history.latents[-1]
    assert (refined != start).any(-1).any(0).tolist() == [True] * 3 + [False] * 3
    one = search.rls(prior, lowres, OPERATOR, space="w", **quiet).latent
    assert_close(one, one[:, :1].expand_as(one))


def test_random_starts_differ_and_the_best_is_kept(prior, lowres):
    first, second = (search.rls(prior, lowres, OPERATOR, start="random", seed=s, **quiet) for s in (0, 1))
    assert not torch.equal(first.latent, second.latent)
    several = search.rls(prior, lowres, OPERATOR, start="random", restarts=3, **quiet)
    assert (several.loss <= first.loss + 1e-6).all()


@settings(max_examples=6, deadline=None)
@given(st.floats(0.01, 2.0))
def test_rls_plus_stays_in_its_ball(prior, lowres, radius):
    anchor = prior.sample_w(3, seed=4)
    options = {"anchor": anchor, "lr": 0.2, "record_every": 1, "good_enough": 0.0}
    result = search.rls_plus(prior, lowres, OPERATOR, radius=radius, **options, **quiet)
    away = (result.history.latents - anchor).abs().sum((2, 3))  # (K, N)
    assert (away <= radius * (1 + 1e-3) + 1e-4).all()
    assert away.max() > 0.9 * radius  # the rate is large: the ball binds
    assert torch.equal(result.anchor, anchor)
    free = search.rls_plus(prior, lowres, OPERATOR, radius=inf, **options, **quiet)
    assert (free.history.latents - anchor).abs().sum((2, 3)).max() > 2.0


def test_rls_plus_refines_what_rls_finds(prior, lowres):
    first = search.rls(prior, lowres, OPERATOR, steps=8, progress=False)
    result = search.rls_plus(prior, lowres, OPERATOR, rls_options={"steps": 8}, lr=1e-2, steps=10, progress=False)
    assert_close(result.anchor, first.latent)
    assert (result.residual < first.residual).all()


def test_rls_plus_starts_at_the_anchor_that_is_named_or_given(prior, lowres):
    bare = FacePrior("bare", prior.generator, None)  # without a flow: nothing but the first stage needs one
    mean = search.rls_plus(bare, lowres, OPERATOR, anchor="mean", **quiet)
    with torch.inference_mode():
        code = prior.mean_w(3).clone()
    for anchor in (code, code.double(), code.numpy(), prior.mean_w(3).clone().requires_grad_()):
        given = search.rls_plus(bare, lowres, OPERATOR, anchor=anchor, **quiet)
        assert torch.equal(given.image, mean.image)
        assert torch.equal(given.anchor, prior.mean_w(3))
        assert not given.anchor.requires_grad


@pytest.mark.parametrize("options", [{"layers": 9}, {"steps": 0}, {"record_every": 0}, {"anchor": "median"}])
def test_a_wrong_second_stage_is_refused_before_the_first_runs(prior, lowres, options):
    steps = []
    with pytest.raises(ValueError, match=r"layers must be|at least 1|there is no anchor"):
        search.rls_plus(prior, lowres, OPERATOR, **quiet | options, callback=lambda *seen: steps.append(seen))
    assert not steps


def test_what_rls_plus_optimises_may_be_one_string(prior, lowres):
    options = {"anchor": "mean", "lr": 1e-2} | quiet
    listed, joined = (search.rls_plus(prior, lowres, OPERATOR, optimise=x, **options) for x in (["w", "eta"], "w,eta"))
    assert torch.equal(listed.image, joined.image)


@pytest.mark.parametrize("what", ["w", "theta", "eta"])
def test_rls_plus_optimises_what_it_is_told(prior, lowres, what):
    anchor = prior.sample_w(3, seed=4)
    result = search.rls_plus(prior, lowres, OPERATOR, anchor=anchor, optimise=[what], lr=1e-2, **quiet)
    assert (result.loss < result.history.total[0]).all()
    assert torch.equal(result.latent, anchor) == (what != "w")


def test_rls_plus_stops_when_there_is_nothing_left_to_explain(prior, lowres):
    anchor = prior.sample_w(3, seed=4)
    easy = OPERATOR(prior.render(anchor, prior.noise_maps("const", [])))
    easy[1:] = 1 - lowres[1:]
    result = search.rls_plus(prior, easy, OPERATOR, anchor=anchor, lr=1e-3, good_enough=0.004, **quiet)
    ended = search.rls_plus(prior, easy[:1], OPERATOR, anchor=anchor[:1], lr=1e-3, good_enough=0.004, **quiet)
    assert result.step[0] == 0
    assert (result.step[1:] > 0).all()
    assert len(ended.history.total) == 1


def test_an_interrupted_first_stage_is_what_rls_plus_returns(prior, lowres):
    result = search.rls_plus(prior, lowres, OPERATOR, callback=lambda step, image, loss: step == 2, **quiet)
    assert result.interrupted
    assert torch.equal(result.anchor, result.latent)
    assert set(result.history.losses) == {"pixel", "density", "shell", "cross"}


def test_brgm_has_its_terms(prior, lowres):
    result = search.brgm(
        prior, lowres, OPERATOR, perceptual=lambda x, y: (x - y).abs().sum((1, 2, 3)), **quiet | {"steps": 1}
    )
    small = OPERATOR(prior.render(prior.mean_w(3)))
    assert_close(result.history.losses["pixel"][0], 65.025 * (small - lowres).square().mean((1, 2, 3)))
    assert_close(result.history.losses["perceptual"][0], (small - lowres).abs().sum((1, 2, 3)))
    assert result.history.losses["gaussian"].max() < 1
    assert_close(result.history.losses["cosine"][0], torch.zeros(3), atol=1e-4, rtol=0)


def test_mganprior_mixes_maps_channel_by_channel(prior, lowres):
    seen = {}

    def keep(small, given):
        seen["small"] = small
        return (small - given).abs().mean((1, 2, 3))

    search.mganprior(prior, lowres, OPERATOR, codes=2, at=8, perceptual=keep, steps=1, seed=[4, 5, 6], progress=False)
    for n, seed in enumerate((4, 5, 6)):
        z = randomness.normal(randomness.generators(seed, 1), 2, prior.z_dim)[0]
        w = prior.generator.mapping(z)  # (2, d)
        blocks = prior.generator.synthesis.blocks
        maps = [[layer.noise_const for layer in block.layers] for block in blocks]
        x, image = blocks[0].const.expand(2, -1, -1, -1), None
        for block, noise in zip(blocks[:2], maps, strict=False):
            x, image = block(x, image, [w] * (len(noise) + 1), noise)
        mean = [w.mean(0, keepdim=True)] * 3
        _, image = blocks[2](x.mean(0, keepdim=True), image.mean(0, keepdim=True), mean, maps[2])  # alpha is 1/2 first
        assert_close(OPERATOR((image + 1) / 2), seen["small"][n : n + 1])


def test_one_code_with_equal_weights_is_plain_synthesis(prior, lowres):
    result = search.mganprior(prior, lowres, OPERATOR, codes=1, at=8, perceptual=None, steps=1, progress=False, seed=3)
    assert_close(result.image, prior.render(result.latent), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("distance", [losses.lpips_vgg, losses.vgg_l1])
def test_perceptual_distances_need_their_network_and_room(distance, monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="at least 16×16"):
        distance(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))
    perceptual.lpips_network.cache_clear()
    monkeypatch.setenv("FACESR_DATA", str(tmp_path))
    with pytest.raises(assets.AssetMissing, match="fetch vgg16"):
        distance(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16))
    (forged := tmp_path / assets.entry("vgg16").path).parent.mkdir(parents=True, exist_ok=True)
    forged.write_bytes(b"not VGG16")
    with pytest.raises(assets.AssetMissing, match="not the published 'vgg16'"):
        distance(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16))
    torchvision = pytest.importorskip("torchvision", reason="torchvision defines VGG16")
    weights = {k: v for k, v in torchvision.models.vgg16().state_dict().items() if k.startswith("features")}
    monkeypatch.setattr(perceptual.unpickling, "load", lambda path: weights)
    monkeypatch.setattr(perceptual.assets, "checked", lambda name: name)
    x, y = torch.rand(2, 2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert_close(distance(x, x), torch.zeros(2))
    together, alone = distance(x.requires_grad_(), y), distance(x[1:], y[1:])
    assert_close(together[1:], alone)
    assert (together > 0).all()
    (gradient,) = torch.autograd.grad(together.sum(), x)
    assert gradient.abs().sum() > 0
    perceptual.lpips_network.cache_clear()


# --- what is refused


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("dse", {"space": "v"}, "there is no space"),
        ("dse", {"entrance": "door"}, "there is no entrance"),
        ("dse", {"blocks": 0}, "blocks must be a whole number, at least 1; got 0"),
        ("dse", {"restarts": 0}, "restarts must be"),
        ("rls", {"layers": 0}, "layers must be a whole number, at least 1, at most 6"),
        ("rls", {"layers": 7}, "layers must be a whole number, at least 1, at most 6.*got 7"),
        ("rls", {"layers": 1.5}, "layers must be a whole number, at least 1, at most 6.*got 1.5"),
        ("rls", {"lambda_w": nan}, "lambda_w must be a finite number; got nan"),
        ("rls", {"lr": -0.1}, "lr must be a finite number, at least 0; got -0.1"),
        ("rls_plus", {"radius": "1"}, "must be positive; got '1'"),
        ("rls_plus", {"optimise": None}, "w, theta and eta; got None"),
        ("rls_plus", {"record_every": 0.5}, "record_every must be a whole number, at least 1"),
        ("brgm", {"seed": None}, "or one per image; got None"),
        ("dse", {"lr_theta": -1}, "lr_theta must be a finite number, at least 0"),
        ("rls", {"space": "z"}, "there is no space"),
        ("rls", {"start": "zero"}, "there is no start"),
        ("rls", {"restarts": 2}, "all be alike"),
        ("rls_plus", {"radius": 0.0}, "must be positive"),
        ("rls_plus", {"radius": -1.0}, "must be positive"),
        ("rls_plus", {"optimise": ["w", "g"]}, "w, theta and eta"),
        ("rls_plus", {"optimise": []}, "w, theta and eta"),
        ("rls_plus", {"anchor": torch.zeros(2, 6, 8)}, r"\(3, 6, 8\); got \(2, 6, 8\)"),
        ("rls_plus", {"anchor": torch.full((3, 6, 8), nan)}, "the anchor holds NaN"),
        ("rls_plus", {"rls_options": {"foo": 1}}, "there is no option of rls 'foo': choose one of .*lambda_w"),
        ("rls_plus", {"rls_options": 3}, "rls_options is a dictionary of rls's options; got 3"),
        ("rls_plus", {"layers": 9}, "layers must be a whole number, at least 1, at most 6"),
        ("mganprior", {"codes": 0}, "codes must be a whole number, at least 1; got 0"),
        ("mganprior", {"at": 16}, "mixed at one of 4, 8; got codes=3, at=16"),
    ],
)
def test_impossible_options_are_refused(prior, lowres, method, options, message):
    with pytest.raises(ValueError, match=message):
        ALL[method](prior, lowres, OPERATOR, **quiet | options)


@every_method
@pytest.mark.parametrize(
    ("picture", "options", "message"),
    [
        (torch.zeros(1, 3, 8, 7), {}, "7×8"),
        (torch.full((1, 3, 8, 8), torch.nan), {}, "NaN"),
        (torch.zeros(1, 3, 8, 8), {"steps": 0}, "at least 1"),
    ],
)
def test_pictures_that_do_not_fit_and_no_steps_are_refused(method, prior, picture, options, message):
    with pytest.raises(ValueError, match=message):
        method(prior, picture, OPERATOR, **quiet | options)


def test_a_priors_name_is_no_prior(lowres):
    with pytest.raises(TypeError, match=r"a prior is what FacePrior\.load gives; got a str"):
        search.rls("faces-64", lowres, OPERATOR, **quiet)


def test_a_prior_without_what_a_method_needs_is_refused(lowres):
    torch.manual_seed(0)
    bare = FacePrior("bare", Generator(8, 8, 16, channel_base=128, channel_max=16), None)
    with pytest.raises(ValueError, match="'bare' has none: load one with it"):
        search.dse(bare, lowres, OPERATOR, **quiet)
    for method in (search.rls, search.rls_plus):
        with pytest.raises(ValueError, match=r"'bare' has none: train one with `facesr train flow`"):
            method(bare, lowres, OPERATOR, **quiet)


@every_method
def test_a_picture_that_no_face_explains_ends_with_a_large_residual(method, prior, lowres):
    checkers = torch.zeros(1, 3, 8, 8)
    checkers[:, :, ::2, ::2] = checkers[:, :, 1::2, 1::2] = 1
    face = method(prior, lowres[:1], OPERATOR, **quiet)
    result = method(prior, checkers, OPERATOR, **quiet)
    assert result.residual.isfinite().all()
    assert result.residual > 2 * face.residual
    assert result.residual > 0.3


@pytest.fixture(scope="module")
def official_size():
    """StyleGAN2-FFHQ's networks at 1024², with random weights."""
    torch.manual_seed(0)
    prior = FacePrior("ffhq-like", Generator(512, 512, 1024), Discriminator(1024))
    prior.pulse_gaussian = PulseGaussian(torch.zeros(512), torch.ones(512))
    prior.flow = Flow(512, 64, 1).requires_grad_(False).eval()
    return prior


@every_method
def test_the_official_size_runs(method, official_size):
    stages = {"rls_options": {"steps": 2}} if method is search.rls_plus else {}
    lowres = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    result = method(official_size, lowres, Downsample(64), steps=2, progress=False, **stages)
    assert result.image.shape == (1, 3, 1024, 1024)
    assert result.latent.shape == (1, 18, 512)
    assert result.loss.isfinite().all()
