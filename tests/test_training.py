"""Training: exact resume, clean ends, and faults that leave the last checkpoint intact."""

import importlib
import os
import pkgutil
import shutil
import signal
import subprocess
import sys
import time
from copy import deepcopy
from dataclasses import fields, replace
from math import inf, nan, nextafter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import facesr_lib.training
from facesr_lib import cli, images
from facesr_lib.prior import FacePrior
from facesr_lib.training import esrgan, flow, landmarks, loop, parsing, progressive, recording, stylegan2, supervised
from facesr_lib.training.augment import augment
from facesr_lib.training.config import Checked
from facesr_lib.training.processes import Processes, launch
from facesr_lib.training.stylegan2 import Config, PriorTraining, train

TINY = Config(
    resolution=8,
    z_dim=4,
    w_dim=4,
    mapping_layers=2,
    channel_base=64,
    channel_max=8,
    batch=4,
    r1_interval=2,
    path_interval=2,
)


def pixels(n=6, resolution=8):
    return np.random.default_rng(0).integers(0, 256, (n, resolution, resolution, 3), dtype=np.uint8)


def training(config=TINY, faces=None, **options):
    return PriorTraining(pixels() if faces is None else faces, config, Processes("cpu"), **options)


def fit(trainee, folder, **options):
    return loop.fit(trainee, folder, **{"progress": False} | options)


def test_resuming_gives_the_weights_of_an_uninterrupted_run(tmp_path):
    whole, first, second = training(), training(), training()
    fit(whole, tmp_path / "whole", steps=6)
    fit(first, tmp_path / "parts", steps=3)
    report = fit(second, tmp_path / "parts", steps=3, resume=True)
    assert report.images_seen == whole.images_seen == 24
    a, b = whole.state_dict(), second.state_dict()
    for part in ("generator", "discriminator", "average"):
        assert all(torch.equal(a[part][name], b[part][name]) for name in a[part])
    assert torch.equal(a["random"], b["random"])
    assert not torch.equal(first.state_dict()["random"], b["random"])


def test_a_run_is_resumed_on_the_same_faces_from_the_same_start_in_the_same_precision(tmp_path):
    fit(training(start=training().prior()), tmp_path, steps=1)
    start, others = training().prior(), pixels()
    others[2] //= 2
    digest = "digest [0-9a-f]{16}"
    for options, named in (
        ({}, f"start is {digest} there and None here"),
        ({"start": training(replace(TINY, seed=1)).prior()}, f"start is {digest} there and {digest} here"),
        ({"start": start, "bf16": True}, "bf16 is False there and True here"),
        ({"start": start, "faces": others}, f"faces is {digest} there and {digest} here"),
        ({"start": start, "faces": pixels(7)}, f"faces is {digest} there and {digest} here"),
    ):
        with pytest.raises(ValueError, match=rf"last\.ckpt belongs to another training: {named}\.$"):
            fit(training(**options), tmp_path, steps=1, resume=True)
    again = pixels()
    again[:, 0, 0, 0] ^= 1  # as another processor may round
    assert fit(training(start=start, faces=again), tmp_path, steps=1, resume=True).images_seen == 8


def test_a_run_that_a_gpu_began_goes_on_without_one():
    begun, on = training(), training()
    begun.step()
    state = deepcopy(begun.state_dict())
    for group in state["g_optimizer"]["param_groups"] + state["d_optimizer"]["param_groups"]:
        group["capturable"] = True
    on.load_state_dict(state)
    begun.step()
    on.step()
    ours, theirs = on.generator.state_dict(), begun.generator.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_training_changes_both_networks_and_the_average_follows():
    trainee = training()
    before = {k: v.clone() for part in ("generator", "discriminator") for k, v in trainee.state_dict()[part].items()}
    for _ in range(3):
        trainee.step()
    after = {k: v for part in ("generator", "discriminator") for k, v in trainee.state_dict()[part].items()}
    still = [name for name in before if torch.equal(before[name], after[name]) and "noise_const" not in name]
    assert still == []
    average = trainee.prior()
    assert isinstance(average, FacePrior)
    live = trainee.state_dict()["generator"]["synthesis.b4.const"]
    assert not torch.equal(average.generator.synthesis.b4.const, live)


def test_a_run_can_begin_with_another_priors_networks(tmp_path):
    first = training()
    first.step()
    other = training(replace(TINY, seed=5), start=first.prior())
    assert torch.equal(
        other.state_dict()["discriminator"]["b4.out.weight"], first.state_dict()["discriminator"]["b4.out.weight"]
    )
    w = first.prior().sample_w(1)
    assert_close(other.prior().synthesise(w), first.prior().synthesise(w))
    with pytest.raises(ValueError, match="the prior 'training' is of another architecture or width"):
        training(replace(TINY, w_dim=6), start=first.prior())
    alone = FacePrior("alone", first.prior().generator, None)
    with pytest.raises(ValueError, match=r"discriminator.* the prior 'alone' has none"):
        training(start=alone)


def test_the_critic_learns_to_tell_faces_from_noise():
    trainee = training(replace(TINY, augment=0.0, lr=0.01))
    trainee.generate = lambda penalise: {"G": torch.zeros(())}  # G stands still
    first = trainee.step()["D"]
    for _ in range(60):
        last = trainee.step()["D"]
    assert last < 0.5 * first


def test_adaptive_augmentation_rises_while_the_critic_is_too_sure():
    trainee = training(replace(TINY, augment=-1.0))
    assert trainee.augment_p == 0
    trainee.sign.fill_(1.0)
    trainee.step()
    assert float(trainee.augment_p) == pytest.approx(4 / 500_000)


def test_augmentation_is_off_at_zero_and_differentiable_at_one():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 3, 16, 16, requires_grad=True)
    assert torch.equal(augment(x, 0.0, generator), x)
    changed = augment(x, 1.0, generator)
    assert not torch.isclose(changed, x).flatten(1).all(1).any()
    (gradient,) = torch.autograd.grad(changed.sum(), x)
    assert (gradient.flatten(1).abs().sum(1) > 0).all()


def test_a_run_writes_its_log_and_samples(tmp_path):
    fit(training(), tmp_path, steps=2)
    assert (tmp_path / "log.csv").read_text().startswith("step,images,hours,D")
    assert images.read(tmp_path / "samples-000000008.png").shape[0] == 3


def test_the_log_of_a_run_that_is_resumed_goes_on_counting(tmp_path):
    fit(training(), tmp_path, steps=25)
    fit(training(), tmp_path, steps=1, resume=True)
    log = np.genfromtxt(tmp_path / "log.csv", delimiter=",", names=True)
    assert log["step"].tolist() == [20, 25, 26]
    assert log["images"].tolist() == [80, 100, 104]
    assert (np.diff(log["hours"]) > 0).all()


@pytest.fixture
def face_folder(tmp_path):
    (tmp_path / "faces").mkdir()
    for i, picture in enumerate(torch.from_numpy(pixels(4, 20)).permute(0, 3, 1, 2) / 255):
        images.write(picture, tmp_path / "faces" / f"{i}.png")
    return tmp_path / "faces"


def test_a_folder_of_faces_becomes_a_prior_that_can_be_loaded(face_folder, tmp_path):
    (face_folder / "9.png").write_bytes(b"damaged")
    with pytest.warns(UserWarning, match=r"skipped 1 of 5 pictures.*9\.png"):
        report = train(face_folder, tmp_path / "run", TINY, steps=2, progress=False)
    assert report.images_seen == 8
    assert FacePrior.load(str(tmp_path / "run" / "prior.safetensors")).resolution == 8


def test_the_command_trains_and_resumes(face_folder, tmp_path, capsys):
    flags = [word for name, number in vars(TINY).items() for word in (f"--{name.replace('_', '-')}", str(number))]
    command = ["train", "prior", "--faces", str(face_folder), "--out", str(tmp_path / "run"), "--hours", "1e-6", *flags]
    assert cli.main(command) == 0
    assert "done after 4 images" in capsys.readouterr().out
    assert cli.main([*command, "--resume"]) == 0
    assert "done after 8 images" in capsys.readouterr().out
    assert cli.main(command) == 1
    assert "holds a run already: go on with it (--resume)" in capsys.readouterr().err


@pytest.mark.parametrize("checkpoint_minutes", [0, 10])
def test_numbers_gone_wrong_end_the_run_and_keep_the_checkpoint(tmp_path, checkpoint_minutes):
    fit(training(), tmp_path, steps=1)
    kept = (tmp_path / loop.CHECKPOINT).read_bytes()
    trainee = training()
    good = trainee.step
    trainee.step = lambda: good() | {"G": torch.tensor(float("nan"))}
    with pytest.raises(loop.Diverged, match="G is no longer a number after"):
        fit(trainee, tmp_path, steps=3, resume=True, checkpoint_minutes=checkpoint_minutes)
    assert (tmp_path / loop.CHECKPOINT).read_bytes() == kept


def test_weights_gone_wrong_are_not_kept_either(tmp_path):
    fit(training(), tmp_path, steps=1)
    kept = (tmp_path / loop.CHECKPOINT).read_bytes()
    trainee = training()
    good = trainee.step

    def step():
        losses = good()
        trainee.generator.synthesis.b4.const.data[0] = float("nan")  # as after an infinite gradient
        return losses

    trainee.step = step
    with pytest.raises(
        loop.Diverged, match="generator is no longer a number after 8 images; the last checkpoint is kept"
    ):
        fit(trainee, tmp_path, steps=1, resume=True)
    assert (tmp_path / loop.CHECKPOINT).read_bytes() == kept
    with pytest.raises(loop.Diverged, match=r"there is no checkpoint yet\. Start anew"):
        fit(trainee, tmp_path / "new", steps=1)


@pytest.fixture
def a_disk_that_fills():
    """Let no file grow beyond so many bytes: the system refuses the rest of a write, as it does on a full disk."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, a_disk_that_fills):
    fit(training(), tmp_path, steps=1)
    kept = (tmp_path / loop.CHECKPOINT).read_bytes()
    a_disk_that_fills(len(kept) // 2)
    with pytest.raises(
        OSError, match=r"cannot be written to \(.*too large.*\): the last checkpoint is kept\. Make room"
    ):
        fit(training(), tmp_path, steps=1, resume=True)
    assert (tmp_path / loop.CHECKPOINT).read_bytes() == kept
    assert not [p for p in tmp_path.iterdir() if p.suffix == ".part"]


def test_a_disk_that_is_full_from_the_start_says_that_nothing_can_be_resumed(tmp_path, a_disk_that_fills):
    a_disk_that_fills(1000)
    with pytest.raises(OSError, match=r"there is no checkpoint yet\. Make room, empty the folder"):
        fit(training(), tmp_path, steps=1)


PROGRAM = """
import sys
sys.path.insert(0, {tests!r})
from test_training import fit, training
fit(training(), {folder!r}, steps=1)
trainee = training()
step = trainee.step
def first_step():
    print("started", flush=True)
    trainee.step = step
    return step()
trainee.step = first_step
report = fit(trainee, {folder!r}, hours=1, resume=True, checkpoint_minutes=0)
print("ended", report.interrupted, report.images_seen, flush=True)
"""


def _start(folder):
    program = PROGRAM.format(tests=str(Path(__file__).parent), folder=str(folder))
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=os.environ)
    assert process.stdout.readline() == "started\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_its_step_with_a_checkpoint(tmp_path, number):
    process = _start(tmp_path)
    time.sleep(0.5)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out.startswith("ended True")
    trainee = training()
    fit(trainee, tmp_path, steps=1, resume=True)
    assert trainee.images_seen == int(out.split()[2]) + 4


def test_another_process_keeps_its_folder_until_it_is_killed_and_no_longer(tmp_path):
    process = _start(tmp_path)  # it writes a checkpoint after every step
    for resume, message in ((True, "another training is at work in"), (False, "holds a run already")):
        with pytest.raises(ValueError, match=message):
            fit(training(), tmp_path, steps=1, resume=resume)
    time.sleep(0.5)
    process.kill()  # perhaps in mid-write
    process.wait()
    assert (tmp_path / loop.LOCK).exists()
    assert fit(training(), tmp_path, steps=1, resume=True).images_seen >= 8


@pytest.mark.parametrize("resume", [False, True])
def test_two_trainings_never_share_a_folder(tmp_path, resume):
    if resume:
        fit(training(), tmp_path, steps=1)
    first, refused = training(), []
    good = first.step

    def step():
        with pytest.raises(ValueError, match=r"another training is at work in .*: let it end"):
            fit(training(), tmp_path, steps=1, resume=resume)
        refused.append(True)
        return good()

    first.step = step
    fit(first, tmp_path, steps=1, resume=resume)
    assert refused == [True]
    assert fit(training(), tmp_path, steps=1, resume=True).images_seen == first.images_seen + 4


def test_a_training_that_was_killed_before_it_wrote_anything_can_be_started_again(tmp_path):
    (tmp_path / loop.LOCK).touch()
    assert fit(training(), tmp_path, steps=1).images_seen == 4


@pytest.mark.parametrize(
    ("prepare", "options", "error", "message"),
    [
        (lambda f: None, {"steps": 1, "resume": True}, FileNotFoundError, "nothing to resume"),
        (lambda f: fit(training(), f, steps=1), {"steps": 1}, ValueError, "holds a run already"),
        (lambda f: None, {}, ValueError, "give a budget"),
        (lambda f: None, {"steps": 0}, ValueError, "steps must be a whole number, at least 1; got 0"),
        (lambda f: None, {"hours": float("nan")}, ValueError, "hours must be a finite number, above 0; got nan"),
        (lambda f: None, {"hours": -1.0}, ValueError, r"hours must be a finite number, above 0; got -1\.0"),
        (lambda f: (f / "prior.safetensors").write_bytes(b"mine"), {"steps": 1}, ValueError, "or an empty folder"),
        (lambda f: (f.rmdir(), f.write_bytes(b"a file")), {"steps": 1}, ValueError, "is a file or holds files"),
        (lambda f: (f / loop.CHECKPOINT).write_bytes(b"half"), {"steps": 1, "resume": True}, ValueError, "damaged"),
        (
            lambda f: fit(training(replace(TINY, lr=0.5)), f, steps=1),
            {"steps": 1, "resume": True},
            ValueError,
            r"lr is 0\.5 there and 0\.0025 here",
        ),
    ],
)
def test_runs_that_cannot_start_say_why(tmp_path, prepare, options, error, message):
    prepare(tmp_path)
    with pytest.raises(error, match=message):
        fit(training(), tmp_path, **options)


@pytest.mark.parametrize(
    ("shape", "message"), [((6, 16), "images are 16×16; 8² were configured"), ((3, 8), "3 images, batches of 4")]
)
def test_images_that_do_not_fit_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        PriorTraining(pixels(*shape), TINY, Processes("cpu"))


def test_bfloat16_trains_the_same_first_step_nearly():
    a, b = training(), training(bf16=True)
    one, other = a.step(), b.step()
    assert_close(one["D"], other["D"], atol=0.1, rtol=0.1)


def test_folders_without_usable_faces_are_refused(face_folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no picture in .* can be read"):
        train(tmp_path / "empty", tmp_path / "run", TINY, steps=1, progress=False)
    with pytest.raises(ValueError, match=r"\d+ images, batches of 64"):
        train(face_folder, tmp_path / "run", replace(TINY, batch=64), steps=1, progress=False)
    assert not (tmp_path / "run").exists()


def test_a_mixed_folder_trains_on_what_can_be_read(face_folder, tmp_path):
    mixed = tmp_path / "mixed"
    shutil.copytree(face_folder, mixed)
    images.write(torch.rand(3, 20, 31), mixed / "900.png")
    whole = (mixed / "900.png").read_bytes()
    (mixed / "901.png").write_bytes(whole[: len(whole) // 2])
    (mixed / "902.jpg").write_text("no picture")
    with pytest.warns(UserWarning, match=r"skipped 2 of \d+ pictures: .*901\.png.*902\.jpg"):
        report = train(mixed, tmp_path / "run", TINY, steps=1, progress=False)
    assert report.images_seen == TINY.batch


def _train_together(processes, folder):
    """Train a whole run, one in two parts and one with clocks of their own; write what came of them."""
    whole, *parts = (PriorTraining(pixels(), TINY, processes) for _ in range(3))
    fit(whole, folder / "whole", steps=4)
    fit(parts[0], folder / "parts", steps=2)
    fit(parts[1], folder / "parts", steps=2, resume=True)
    report = fit(PriorTraining(pixels(), TINY, processes), folder / "timed", hours=(0.3 + processes.rank) / 3600)
    states = {"whole": whole.state_dict(), "parts": parts[1].state_dict()}
    torch.save({"images": report.images_seen} | states, folder / f"{processes.rank}.pt")


def test_two_processes_train_one_network_end_together_and_resume_exactly(tmp_path):
    launch(_train_together, tmp_path, device="cpu", count=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert first["images"] == second["images"] > 0
    states = [made[run] for made in (first, second) for run in ("whole", "parts")]
    for state in states[1:]:
        for part in ("generator", "discriminator", "average"):
            assert all(torch.equal(state[part][name], value) for name, value in states[0][part].items())
        assert torch.equal(state["random"], states[0]["random"])
    assert not torch.equal(*states[0]["random"])  # each process draws numbers of its own
    assert fit(training(), tmp_path / "parts", steps=1, resume=True).images_seen == 20  # one process can go on, too


def _fail_alone(processes):
    if processes.rank == 0:
        raise ValueError("the first has no faces.")
    processes.sum(torch.zeros(1))  # waits for the first


def test_what_goes_wrong_in_the_first_process_ends_all(tmp_path):
    with pytest.raises(ValueError, match="the first has no faces"):
        launch(_fail_alone, device="cpu", count=2)


def test_processes_share_a_batch_evenly():
    with pytest.raises(ValueError, match="a batch of 4 cannot be shared by 3 processes"):
        PriorTraining(pixels(), TINY, Processes("cpu", rank=0, count=3))


# --- what may be asked for


CONFIGS = {  # `facesr train`'s networks, and what else they ask for
    "prior --faces .": stylegan2.Config,
    "flow": flow.Config,
    "esrgan-start": esrgan.Start,
    "esrgan --start .": esrgan.Config,
    "landmarks": landmarks.Config,
    "progressive": progressive.Config,
    "supervised --network vdsr": supervised.Config,
    "parsing": parsing.Config,
}


def _kinds(base):
    """The configurations that derive from one, those that only others derive from aside."""
    return [kind for below in base.__subclasses__() for kind in _kinds(below)] or [base]


def test_no_training_is_without_a_checked_configuration():
    for module in pkgutil.iter_modules(facesr_lib.training.__path__):
        importlib.import_module(f"facesr_lib.training.{module.name}")
    assert set(_kinds(Checked)) == set(CONFIGS.values())


def wrong(field):
    """Values that a field does not take: of another kind, no number, or right beyond its bounds."""
    kind, bounds = type(field.default), field.metadata
    yield from ("many", None, nan, inf, -inf, *{bool: (2, 0.5), int: (2.5,)}.get(kind, ()))
    for bound, towards in (("at_least", -inf), ("at_most", inf)):
        if bound in bounds and kind is not bool:
            yield bounds[bound] + int(np.sign(towards)) if kind is int else nextafter(bounds[bound], towards)
    yield from ([bounds["above"]] if "above" in bounds else ())
    yield from ([bounds["at_least"] + 1] if "multiple_of" in bounds else ())
    yield from ([min(bounds["among"]) - 1, max(bounds["among"]) + 1] if "among" in bounds else ())


@pytest.mark.parametrize("name", CONFIGS)
def test_every_field_is_checked(name):
    config = CONFIGS[name]()
    for field in fields(config):
        expected = {bool: "True or False", int: "a whole number"}.get(type(field.default), "a finite number")
        assert field.metadata or type(field.default) is bool, f"{field.name} has no bounds"
        for value in wrong(field):
            with pytest.raises(ValueError, match=rf"^{field.name} must be {expected}.*; got {value!r}\.$"):
                replace(config, **{field.name: value})


@pytest.mark.parametrize("name", CONFIGS)
def test_every_field_is_checked_on_the_command_line(name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for field in fields(CONFIGS[name]):
        for value in wrong(field):
            flag = f"--{field.name.replace('_', '-')}"
            try:
                code = cli.main(["train", *name.split(), "--out", "run", "--hours", "1", f"{flag}={value}"])
            except SystemExit as refused:
                code = refused.code
            told = capsys.readouterr().err.splitlines()[-1]
            assert code in (1, 2)
            assert f" {field.name} must be " in told or f" {flag}: {str(value)!r} cannot be given: expected " in told
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "batch must be a whole number, at least 1; got 0"),
        ({"batch": 2.5}, "batch must be a whole number"),
        ({"augment": 2.0}, r"augment must be a finite number, at most 1; got 2\.0"),
        ({"resolution": 100}, r"resolution must be a whole number, among \(8, 16, .*; got 100"),
        ({"channel_base": 32}, "channel_base must be at least the resolution, 64; got 32"),
        ({"seed": -1}, "seed must be a whole number, at least 0"),
    ],
)
def test_numbers_out_of_bounds_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Config(**options)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--batch", "0"], "batch must be"),
        (["--batch", "-1"], "batch must be"),
        (["--devices", "-1"], "devices must be a whole number, at least 1; got -1"),
        (["--devices", "0"], "devices must be"),
        (["--hours", "nan"], "hours must be"),
        (["--hours", "-1"], "hours must be"),
        (["--augment", "2"], "augment must be"),
        (["--augment", "nan"], "augment must be"),
        (["--z-dim", str(10**12)], "facesr: this machine cannot hold what is asked for (tried to allocate"),
        (["--z-dim", str(10**18)], "facesr: this machine cannot hold what is asked for ("),
        (["--z-dim", str(10**24)], "facesr: this machine cannot hold what is asked for ("),
    ],
)
def test_the_command_refuses_what_cannot_be(face_folder, tmp_path, capsys, flags, message):
    command = ["train", "prior", "--faces", str(face_folder), "--out", str(tmp_path / "run"), "--hours", "1"]
    assert cli.main([*command, "--batch", "4", *flags]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_impossible_budget_is_told_before_faces_are_prepared(tmp_path, monkeypatch):
    monkeypatch.setattr("facesr_lib.data.prepared", lambda *_: pytest.fail("faces were prepared for nothing"))
    for budget, message in (({"hours": float("nan")}, "got nan"), ({"steps": 0}, "got 0"), ({}, "give a budget")):
        with pytest.raises(ValueError, match=message):
            train(tmp_path / "faces", tmp_path / "run", TINY, **budget)


# --- what the appendix shows


def test_a_recording_keeps_the_moments_and_comes_back_from_its_file(tmp_path, monkeypatch):
    monkeypatch.setattr(recording, "VARIANTS", {"tiny": TINY})
    with pytest.raises(ValueError, match="device 'nowhere' cannot be used here"):
        recording.record(pixels(), TINY, [4], device="nowhere", progress=False)
    made = recording.record(pixels(), TINY, [4, 10, 16], device="cpu", progress=False)
    assert made.moments == [4, 12, 16]  # whole batches
    recording.save(tmp_path / "r.safetensors", {"tiny": made})
    (again,) = recording.load(tmp_path / "r.safetensors").values()
    assert again.moments == made.moments
    assert_close(again.losses["D"], made.losses["D"])
    for kept, prior_then in zip(again.priors, made.priors, strict=True):
        assert_close(kept.sample(2)[0], prior_then.sample(2)[0], atol=2e-2, rtol=0)
    first, last = (p.generator.state_dict()["synthesis.b4.const"] for p in (again.priors[0], again.priors[-1]))
    assert not torch.equal(first, last)
