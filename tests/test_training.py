"""Training: exact resume, clean ends, and faults that leave the last checkpoint intact."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch.testing import assert_close

from facesr_lib import cli, images
from facesr_lib.prior import FacePrior
from facesr_lib.training import loop, recording
from facesr_lib.training.augment import augment
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


def training(config=TINY, **options):
    return PriorTraining(pixels(), config, Fabric(accelerator="cpu", devices=1), **options)


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
    other = training(Config(**{**TINY.__dict__, "seed": 5}))
    other.start_from(first.prior())
    assert torch.equal(
        other.state_dict()["discriminator"]["b4.out.weight"], first.state_dict()["discriminator"]["b4.out.weight"]
    )
    w = first.prior().sample_w(1)
    assert_close(other.prior().synthesise(w), first.prior().synthesise(w))
    with pytest.raises(ValueError, match="of another size"):
        training(Config(**{**TINY.__dict__, "w_dim": 6})).start_from(first.prior())
    alone = FacePrior("alone", first.prior().generator, None)
    with pytest.raises(ValueError, match="no discriminator"):
        other.start_from(alone)


def test_the_critic_learns_to_tell_faces_from_noise():
    trainee = training(Config(**{**TINY.__dict__, "augment": 0.0, "lr": 0.01}))
    trainee._generator_step = lambda penalise: {"G": torch.zeros(())}  # G stands still
    first = trainee.step()["D"]
    for _ in range(60):
        last = trainee.step()["D"]
    assert last < 0.5 * first


def test_adaptive_augmentation_rises_while_the_critic_is_too_sure():
    trainee = training(Config(**{**TINY.__dict__, "augment": -1.0}))
    assert trainee.augment_p == 0
    trainee._sign.fill_(1.0)
    trainee.step()
    assert trainee.augment_p == pytest.approx(4 / 500_000)


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
    assert "holds a run already" in capsys.readouterr().err


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


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    fit(training(), tmp_path, steps=1)
    kept = (tmp_path / loop.CHECKPOINT).read_bytes()

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(loop.torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        fit(training(), tmp_path, steps=1, resume=True)
    assert (tmp_path / loop.CHECKPOINT).read_bytes() == kept
    assert not [p for p in tmp_path.iterdir() if p.suffix == ".part"]


PROGRAM = """
import sys
sys.path.insert(0, {tests!r})
from test_training import fit, training
fit(training(), {folder!r}, steps=1)
print("started", flush=True)
report = fit(training(), {folder!r}, hours=1, resume=True, checkpoint_minutes=0)
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


def test_kill_in_mid_write_leaves_a_checkpoint_that_can_be_resumed(tmp_path):
    process = _start(tmp_path)  # it writes a checkpoint after every step
    time.sleep(0.7)
    process.kill()
    process.wait()
    assert fit(training(), tmp_path, steps=1, resume=True).images_seen >= 8


@pytest.mark.parametrize(
    ("prepare", "options", "error", "message"),
    [
        (lambda f: None, {"steps": 1, "resume": True}, FileNotFoundError, "nothing to resume"),
        (lambda f: fit(training(), f, steps=1), {"steps": 1}, ValueError, "holds a run already"),
        (lambda f: None, {}, ValueError, "give a budget"),
        (lambda f: None, {"steps": 0}, ValueError, "at least 1; got 0"),
        (lambda f: (f / loop.CHECKPOINT).write_bytes(b"half"), {"steps": 1, "resume": True}, ValueError, "damaged"),
        (
            lambda f: fit(training(Config(**{**TINY.__dict__, "lr": 0.5})), f, steps=1),
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
        PriorTraining(pixels(*shape), TINY, Fabric(accelerator="cpu", devices=1))


def test_bfloat16_trains_the_same_first_step_nearly():
    a, b = training(), training(precision=torch.bfloat16)
    one, other = a.step(), b.step()
    assert_close(one["D"], other["D"], atol=0.1, rtol=0.1)


def test_folders_without_usable_faces_are_refused(face_folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no picture in .* can be read"):
        train(tmp_path / "empty", tmp_path / "run", TINY, steps=1, progress=False)
    with pytest.raises(ValueError, match=r"\d+ images, batches of 64"):
        train(face_folder, tmp_path / "run", Config(**{**TINY.__dict__, "batch": 64}), steps=1, progress=False)
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


TWO = """
import sys
sys.path.insert(0, {tests!r})
from test_training import TINY, pixels
import numpy as np, torch
from lightning_fabric import Fabric
from facesr_lib.training import loop
from facesr_lib.training.stylegan2 import PriorTraining
fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
fabric.launch()
trainee = PriorTraining(pixels(), TINY, fabric)
# the clocks of the two differ, and so do their ideas of when the hour is over
report = loop.fit(trainee, {folder!r}, hours=(1.0 + fabric.global_rank) / 3600, fabric=fabric, progress=False)
torch.save((report.images_seen, trainee.state_dict()["generator"]), f"{folder}-{{fabric.global_rank}}.pt")
"""


def test_two_processes_train_one_network_and_end_together(tmp_path):
    program = tmp_path / "two.py"
    program.write_text(TWO.format(tests=str(Path(__file__).parent), folder=str(tmp_path / "run")))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, str(program)], check=True, timeout=120, env=environment, capture_output=True)
    (seen, a), (other, b) = (torch.load(tmp_path / f"run-{rank}.pt", weights_only=True) for rank in range(2))
    assert seen == other > 0
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert (tmp_path / "run" / loop.CHECKPOINT).is_file()


# --- what the appendix shows


def test_a_recording_keeps_the_moments_and_comes_back_from_its_file(tmp_path, monkeypatch):
    monkeypatch.setattr(recording, "VARIANTS", {"tiny": TINY})
    made = recording.record(pixels(), TINY, [4, 10, 16], progress=False)
    assert made.moments == [4, 12, 16]  # whole batches
    recording.save(tmp_path / "r.safetensors", {"tiny": made})
    (again,) = recording.load(tmp_path / "r.safetensors").values()
    assert again.moments == made.moments
    assert_close(again.losses["D"], made.losses["D"])
    for kept, prior_then in zip(again.priors, made.priors, strict=True):
        assert_close(kept.sample(2)[0], prior_then.sample(2)[0], atol=2e-2, rtol=0)
    first, last = (p.generator.state_dict()["synthesis.b4.const"] for p in (again.priors[0], again.priors[-1]))
    assert not torch.equal(first, last)
