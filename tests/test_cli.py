"""The command line, as people and their terminals meet it."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import fields
from math import inf
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from facesr_lib import cli, data, devices, images, losses, networks, search
from facesr_lib.cli import values
from facesr_lib.degrade import Downsample, halvings
from facesr_lib.evaluation import ledger, records, run, sweep
from facesr_lib.evaluation.papers import TABLES
from facesr_lib.metrics import MetricUnavailable, pretrained
from facesr_lib.networks import checkpoints, rrdb
from facesr_lib.networks.stylegan2 import Generator
from facesr_lib.prior import FacePrior
from facesr_lib.restoration import METHODS, Method
from facesr_lib.training import esrgan, flow, landmarks, loop, parsing, progressive, stylegan2, supervised

ASCII = {"PYTHONIOENCODING": "ascii"}
C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return FacePrior("tiny", Generator(8, 8, 16, channel_base=128, channel_max=16), None)


@pytest.fixture
def checkpoint(tiny, tmp_path):
    tiny.save(tmp_path / "tiny.safetensors")
    return str(tmp_path / "tiny.safetensors")


@pytest.fixture
def photos(tiny, tmp_path):
    (tmp_path / "photos").mkdir()
    for i, image in enumerate(Downsample(4)(tiny.sample(3, seed=7)[0])):
        images.write(image, tmp_path / "photos" / f"{i}.png")
    return sorted(map(str, (tmp_path / "photos").iterdir()))


@pytest.fixture
def restore(photos, checkpoint, tmp_path):
    """``facesr restore`` of the first photo, or of ``photos``, with further flags."""

    def command(*flags: str, photos: Sequence[str] = photos[:1]) -> list[str]:
        common = ["--aligned", "--prior", checkpoint, "--scale", "4", "--out", str(tmp_path / "out"), "--steps", "3"]
        return ["restore", *photos, *common, *flags]

    return command


def shell(*command, env=(), **options):
    return subprocess.run(
        [sys.executable, "-m", "facesr_lib", *command], env={**os.environ, **dict(env)}, capture_output=True, **options
    )


def test_memory_is_kept_by_our_programs_and_not_by_a_search(restore, tiny, monkeypatch):
    asked = []
    monkeypatch.setattr(devices, "keep_freed_memory", lambda: asked.append("kept"))
    search.pulse(tiny, torch.rand(1, 3, 4, 4), Downsample(4), steps=1, progress=False)
    assert asked == []
    assert cli.main(restore()) == 0
    assert asked == ["kept"]


def test_the_command_restores_and_reports(restore, photos, capsys):
    assert cli.main(restore(photos=photos)) == 0
    assert capsys.readouterr().out.count("→") == 3
    Path(photos[1]).write_text("no picture")
    assert cli.main(restore("--overwrite", photos=photos)) == 1
    out, err = capsys.readouterr()
    assert out.count("→") == 2
    assert "1.png" in err
    assert cli.main(restore()) == 1
    assert "0.png exists: choose another folder, or replace it by --overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--method", "puls"], "did you mean pulse"),
        (["--method", "rls+"], "did you mean rls_plus?"),
        (["--method", "dse"], "needs a discriminator"),
        (["--method", "rls"], "facesr train flow"),
        (["--prior", "faces-46"], "faces-64"),
        (["--prior", "nowhere.pkl"], "nowhere.pkl"),
        (["--prior", "https://host/prior.pkl"], "https://host/prior.pkl is an address, not a file: download it"),
        (["--kernel", "cubic"], "did you mean bicubic"),
        (["--scale", "7"], "scale"),
        (["--steps", "0"], "at least 1"),
        (["--scale", "2"], "choose scale 4 for 4×4"),
        (["--device", "gpu"], "try 'cpu'"),
        (["--device", "meta"], "device 'meta' cannot be used here"),
        (["--out", "https://host/out"], "https://host/out is an address, not a file"),
        (["--restarts", str(10**14)], "facesr: this machine cannot hold what is asked for (tried to allocate"),
        (["--restarts", str(10**20)], "facesr: this machine cannot hold what is asked for ("),
        (["--steps", str(10**20)], "facesr: this machine cannot hold what is asked for ("),
        (["--out", __file__], "name a folder"),
        (["--out", f"{__file__}/sub"], "sub cannot be used (Not a directory): name another"),
        (["--set", "perceptual=none"], "no option of pulse 'perceptual'"),
        (["--set", "lambda_2=1"], "did you mean lambda_l2"),
        (["--set", "eps=small"], "--set eps: 'small' cannot be given: expected a number"),
        (["--set", "eps=nan"], "--set eps needs a number; got nan"),
        (["--set", "steps=2.5"], "expected a whole number"),
        (["--set", "callback=print"], "expected none; only a program can give others"),
        (["--method", "rls_plus", "--set", "rls_options={}"], "'{}' cannot be given: expected none; only a program"),
        (["--set", "schedule=flat"], "only a program can give one"),
        (["--set", "eps"], "name=value"),
        (["--set", "space=x"], "space"),
    ],
)
def test_the_command_explains_what_it_cannot_do(restore, tmp_path, capsys, flags, message):
    found_out = flags[1] in ("nowhere.pkl", f"{__file__}/sub", "7", "2")  # by looking at the disk, or at the photo
    found_out |= flags in (["--restarts", str(10**14)], ["--steps", str(10**20)])  # or for memory
    assert cli.main(restore(*flags)) == (1 if found_out else 2)
    assert message in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*"))


def test_a_photo_that_is_an_address_is_told(restore, capsys):
    assert cli.main(restore(photos=["https://host/a.png"])) == 2
    assert "https://host/a.png is an address, not a file: download it" in capsys.readouterr().err


def test_the_cpu_is_found_by_any_of_torchs_names_for_it(restore):
    assert cli.main(restore("--device", "cpu:3")) == 0


def test_any_option_of_a_method_can_be_set(restore, tmp_path, monkeypatch):
    seen = []

    def mine(prior, lowres, operator, *, seed: int, steps: int = 9, eps: float = 0.0, optimise: Sequence[str] = ("w",)):
        seen.append((steps, eps, optimise))
        return METHODS["bicubic"](lowres, operator)

    monkeypatch.setitem(METHODS, "mine", Method(mine))
    assert cli.main(restore("--method", "mine", "--set", "eps=inf", "--set", "optimise=w,theta")) == 0
    assert seen == [(3, inf, ("w", "theta"))]
    assert cli.main(restore("--set", "space=w", "--set", "progress=false", "--overwrite")) == 0
    assert images.read(tmp_path / "out" / "0.png").shape == (3, 16, 16)


def test_a_method_that_searches_no_face_runs_from_the_shell(restore, tmp_path, photos):
    command = restore("--method", "bicubic")
    steps = command.index("--steps")
    assert cli.main(command[:steps] + command[steps + 2 :]) == 0
    enlarged = images.resize(images.read(photos[0])[None], (16, 16)).clamp(0, 1)
    assert (images.read(tmp_path / "out" / "0.png") - enlarged).abs().max() < 1 / 255


def test_any_picture_is_enlarged_by_the_scale_of_its_method_or_another(tmp_path):
    images.write(torch.rand(3, 10, 13, generator=torch.Generator().manual_seed(0)), tmp_path / "zebra.png")
    command = [
        "restore",
        str(tmp_path / "zebra.png"),
        "--aligned",
        "--method",
        "clsrgan",
        "--out",
        str(tmp_path / "out"),
    ]
    assert cli.main(command) == 0
    assert images.read(tmp_path / "out" / "zebra.png").shape == (3, 40, 52)
    assert cli.main([*command, "--scale", "2", "--overwrite"]) == 0
    assert images.read(tmp_path / "out" / "zebra.png").shape == (3, 20, 26)


def test_a_network_for_faces_sees_originals_as_it_has_learnt_or_as_it_is_told(tmp_path, capsys):
    original = images.resize(torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0)), (128, 128))[0]
    images.write(original.clamp(0, 1), tmp_path / "face.png")
    face = images.read(tmp_path / "face.png")[None]
    command = ["restore", str(tmp_path / "face.png"), "--aligned", "--degrade", "--method", "vdsr", "--device", "cpu"]
    for name, flags, operator in (("a", [], halvings(3)), ("b", ["--kernel", "bicubic"], Downsample(8))):
        assert cli.main([*command, *flags, "--out", str(tmp_path / name)]) == 0
        expected = METHODS["vdsr"](operator(face).clamp(0, 1), operator).image[0]
        assert (images.read(tmp_path / name / "face.png") - expected).abs().max() < 1 / 255
    assert cli.main([*command, "--scale", "4", "--out", str(tmp_path / "c")]) == 2
    assert "choose scale 8" in capsys.readouterr().err


def test_ctrl_c_is_told_by_the_exit_code(restore, monkeypatch, capsys):
    def interrupted(prior, lowres, operator, *, steps: int = 1, seed: int = 0):
        raise KeyboardInterrupt

    monkeypatch.setitem(METHODS, "pulse", Method(interrupted))
    assert cli.main(restore()) == 130
    assert "interrupted" in capsys.readouterr().err


def test_methods_are_listed_with_their_needs_and_options(capsys):
    assert cli.main(["methods"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == list(METHODS)
    assert any(line.startswith("rls:") and line.endswith("Needs: flow, prior.") for line in lines)
    assert cli.main(["methods", "rls_plus"]) == 0
    out = capsys.readouterr().out
    assert "--set optimise=w,theta,eta" in out
    assert "--set radius=none" in out
    assert cli.main(["methods", "rls-plus"]) == 1


@pytest.mark.parametrize("name", METHODS)
def test_defaults_that_can_be_typed_are_read_as_they_are_shown(name):
    method = METHODS[name]
    for option, default in method.options.items():
        if not callable(default):
            assert values.text(values.value(values.text(default), method.types[option])) == values.text(default)


@given(st.one_of(st.integers(), st.booleans(), st.none(), st.floats(allow_nan=False)))
def test_values_are_read_by_their_type(value):
    again = values.value(str(value), type(value))
    assert again == value
    assert type(again) is type(value)


# Training


def test_every_field_of_a_config_is_a_flag_that_the_help_explains(capsys):
    for name, config, about in (
        ("prior", stylegan2.Config, "Weight of the discriminator's gradient penalty"),
        ("flow", flow.Config, "Codes per step. (512)"),
        ("esrgan-start", esrgan.Start, "G's size, as in"),
        ("esrgan", esrgan.Config, "Whether L takes part: LSR and CLSR. (false)"),
        ("esrgan", esrgan.Config, "Side of the patches that it sees, a multiple of 32 (128). (128)"),
        ("landmarks", landmarks.Config, "Width of the drawn heatmaps in pixels"),
        ("progressive", progressive.Config, "Factor on the networks' channels. (1)"),
        ("supervised", supervised.Config, "Learning rate, as a multiple of the paper's. (1)"),
        ("parsing", parsing.Config, "none, the network learns from labels alone. (1)"),
    ):
        with pytest.raises(SystemExit):
            cli.main(["train", name, "--help"])
        shown = " ".join(capsys.readouterr().out.split())
        assert about in shown
        for field in fields(config):
            assert f"--{field.name.replace('_', '-')} " in shown


def test_training_takes_every_choice_from_the_shell(tmp_path, capsys):
    (tmp_path / "faces").mkdir()
    for i, picture in enumerate(torch.rand(4, 3, 10, 10, generator=torch.Generator().manual_seed(0))):
        images.write(picture, tmp_path / "faces" / f"{i}.png")
    small = {"resolution": 8, "z_dim": 8, "w_dim": 8, "channel_base": 64, "channel_max": 8, "batch": 4, "lr": 0.002}
    flags = [word for name, number in small.items() for word in (f"--{name.replace('_', '-')}", str(number))]
    command = ["train", "prior", "--faces", str(tmp_path / "faces"), "--out", str(tmp_path / "run"), "--hours", "1e-6"]
    assert cli.main([*command, *flags, "--augment", "-1"]) == 0
    assert "done after 4 images" in capsys.readouterr().out
    told = torch.load(tmp_path / "run" / loop.CHECKPOINT, weights_only=True)["config"]
    assert told | small | {"augment": -1.0} == told
    assert cli.main([*command, *flags, "--lr", "0.1", "--resume"]) == 1
    assert "lr is 0.002 there and 0.1 here" in capsys.readouterr().err


def test_both_stages_of_esrgan_are_trained_from_the_shell(tmp_path, capsys):
    if reason := pretrained.reason(pretrained.efficientnet_file):
        pytest.skip(reason)
    (tmp_path / "pictures").mkdir()
    for i, picture in enumerate(torch.rand(2, 3, 36, 50, generator=torch.Generator().manual_seed(0))):
        images.write(picture, tmp_path / "pictures" / f"{i}.png")
    shared = ["--pictures", str(tmp_path / "pictures"), "--device", "cpu", "--patch", "32", "--batch", "2"]
    start, run = str(tmp_path / "start"), str(tmp_path / "run")
    small = ["--blocks", "1", "--channels", "4", "--growth", "4", "--encoder-width", "4", "--iterations", "2"]
    assert cli.main(["train", "esrgan-start", "--out", start, *shared, *small]) == 0
    told = capsys.readouterr().out
    assert "done after 4 patches" in told
    assert "the encoder starts from random numbers" in told
    second = ["train", "esrgan", "--start", start, "--out", run, *shared, "--discriminator-width", "4"]
    assert cli.main([*second, "--latent", "--contextual", "--iterations", "2"]) == 0
    assert "the contextual loss sees by " + losses.imagenet_features(4)[0] in capsys.readouterr().out
    told = torch.load(tmp_path / "run" / loop.CHECKPOINT, weights_only=True)["config"]
    assert (told["latent"], told["contextual"]) == (True, True)
    assert cli.main([*second, "--latent", "false", "--contextual", "--iterations", "2", "--resume"]) == 1
    assert "latent is True there and False here" in capsys.readouterr().err


def test_faces_are_made_small_before_esrgan_learns_from_them(tmp_path, capsys):
    """As if the folder held them so: 256² → 64², the whole face as a patch."""
    for folder in ("large", "small"):
        (tmp_path / folder).mkdir()
    faces = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for i, face in enumerate(images.resize(faces, (256, 256)).clamp(0, 1)):
        images.write(face, tmp_path / "large" / f"{i}.png")
        images.write(data.square(images.read(tmp_path / "large" / f"{i}.png"), 64), tmp_path / "small" / f"{i}.png")
    size = ["--blocks", "1", "--channels", "4", "--growth", "4", "--encoder-width", "4", "--iterations", "2"]
    learnt = {}
    for name, flags in {"large": ["--side", "64"], "small": []}.items():
        shared = ["--pictures", str(tmp_path / name), *flags, "--patch", "64", "--turns", "false", "--batch", "2"]
        start = ["train", "esrgan-start", "--out", str(tmp_path / f"{name}-start"), *shared, "--device", "cpu"]
        assert cli.main([*start, *size]) == 0
        learnt[name] = rrdb.load(tmp_path / f"{name}-start" / esrgan.GENERATOR).state_dict()
    for parameter, value in learnt["large"].items():
        assert torch.equal(value, learnt["small"][parameter]), parameter
    capsys.readouterr()
    second = [
        "train",
        "esrgan",
        "--start",
        str(tmp_path / "large-start"),
        "--out",
        str(tmp_path / "run"),
        "--patch",
        "64",
    ]
    assert cli.main([*second, "--pictures", str(tmp_path / "large"), "--side", "32", "--device", "cpu"]) == 1
    assert "a picture of 32×32 has no patch of 64×64" in capsys.readouterr().err


def test_a_training_that_was_cut_short_is_told_by_the_exit_code(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(data, "prepared", lambda *_: None)
    command = ["train", "progressive", "--faces", str(tmp_path), "--feature", "0", "--out", str(tmp_path / "run")]
    for interrupted, code, said in ((False, 0, "done after 16"), (True, 130, "interrupted after 16")):
        report = loop.Report(16, 1, 2.0, interrupted)
        monkeypatch.setattr(progressive, "ProgressiveTraining", lambda *_, report=report, **__: report)
        assert cli.main(command) == code
        assert said in capsys.readouterr().out


def test_the_trainings_of_table_2_leave_out_what_their_rows_say(tmp_path, capsys, monkeypatch):
    def tell(pixels, config, **_):
        told.append(config)
        return loop.Report(0, 0, 0)

    told = []
    monkeypatch.setattr(data, "prepared", lambda *_: None)
    monkeypatch.setattr(losses, "block_features", lambda: ("none", None))
    monkeypatch.setattr(progressive, "ProgressiveTraining", tell)
    described = (*TABLES["progressive-2"].rows, *TABLES["progressive-2"].unaligned)
    rows = list({row.needs: row for row in reversed(described) if row.needs}.values())  # some are measured twice
    for row in rows:
        assert cli.main(["train", "progressive", "--faces", str(tmp_path), "--out", row.needs, *row.flags.split()]) == 0
    assert len({row.needs for row in rows}) == len(set(map(repr, told))) == len(rows)
    for row, config in zip(rows, told, strict=True):
        label, _, seed = row.label.partition(", seed ")
        whole = label.startswith("all")
        weighed = {name for name, weight in config.weights(3).items() if weight}
        terms = {"pixel": "pixel", "WGAN": "adversarial", "feature": "feature", "heatmap": "heatmap"}
        named = {"attention", *terms.values()} if whole else {terms[word] for word in label.split(" + ")}
        assert weighed == named
        assert config.progressive == (label != "all, no progressive")
        assert (config.seed, config.unaligned) == (int(seed or 0), "unaligned" in row.needs)
    seeds = [label for row in rows if (label := row.label.partition(", seed")[0]) in ("all", "all, no progressive")]
    assert len(seeds) == 2 * 2 * 3  # the two rows, aligned and not, three times


@pytest.fixture
def labelled(tmp_path):
    """A folder of four faces of 128², and files of what is known of them."""
    (tmp_path / "faces").mkdir()
    names = [f"{i}" for i in range(4)]
    for name, picture in zip(
        names, torch.rand(4, 3, 128, 128, generator=torch.Generator().manual_seed(0)), strict=True
    ):
        images.write(picture, tmp_path / "faces" / f"{name}.png")
    known = {"landmarks": np.full((4, 68, 2), 99, np.float32), "parsing": np.ones((4, 256, 256), np.uint8)}
    for kind, labels in known.items():
        np.savez_compressed(tmp_path / f"{kind}.npz", names=np.array(names), labels=labels)
    return tmp_path


SMALL = {
    "landmarks": ["--batch", "2", "--hours", "1e-9", "--landmarks", "landmarks.npz"],
    "progressive": ["--width", "0.03125", "--iterations", "2", "--batch", "2", "--feature", "0"],
    "supervised": ["--network", "vdsr", "--width", "0.05", "--images", "4", "--batch", "2"],
    "supervised, with priors": [
        *["--network", "fsrnet", "--width", "0.05", "--images", "4", "--batch", "2"],
        *["--landmarks", "landmarks.npz", "--parsing", "parsing.npz"],
    ],
}


@pytest.mark.parametrize("name", SMALL)
def test_networks_for_faces_are_trained_from_the_shell(name, labelled, capsys, monkeypatch):
    monkeypatch.chdir(labelled)
    network = name.partition(",")[0]
    command = ["train", network, "--faces", "faces", "--out", "run", "--device", "cpu", *SMALL[name]]
    assert cli.main(command) == 0
    seen = 2 if network == "landmarks" else 4
    assert f"done after {seen} faces; run/" in capsys.readouterr().out.replace(os.sep, "/")
    [written] = (labelled / "run").glob("*.safetensors")
    about = checkpoints.read(written)[1]
    assert about["images_seen"] == str(seen)
    assert json.loads(about["config"])["batch"] == 2
    assert cli.main(command) == 1
    assert "holds a run already: go on with it (--resume)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["landmarks", "--hours", "1"], "come without landmarks: give them"),
        (["landmarks", "--hours", "0"], "hours must be"),
        (["landmarks", "--hours", "1", "--landmarks", "parsing.npz"], "holds no landmarks"),
        (["landmarks", "--hours", "1", "--teacher", "landmark"], "did you mean landmarks"),
        (["landmarks", "--hours", "1", "--teacher", "parsing.npz"], "parsing.npz"),
        (["landmarks", "--hours", "1", "--faces", "nowhere/at-all"], "come without landmarks"),
        (["progressive", "--faces", "nowhere/at-all"], "no folder nowhere"),
        (["progressive", "--fan", "vdsr", "--feature", "0"], "another architecture or width than this DistilledFAN"),
        (["progressive", "--width", "0"], "width must be"),
        (["supervised", "--network", "vdsr", "--width", "1e-9"], "width must be a finite number, at least 0.015625"),
        (["supervised", "--network", "vdsr", "--width", "1e9"], "at most 8; got 1000000000.0"),
        (["landmarks", "--hours", "1", "--device", "meta"], "device 'meta' cannot be used here"),
        (["supervised", "--network", "fsrnett"], "did you mean fsrnet"),
        (["esrgan-start", "--patch", "40"], "patch must be a whole number, at least 32, multiple of 32; got 40"),
        (["esrgan", "--start", "none", "--batch", "1"], "batch must be a whole number, at least 2; got 1"),
        (["supervised", "--network", "fsrnet"], "come without landmarks"),
        (["supervised", "--network", "fsrgan", "--landmarks", "landmarks.npz"], "come without parsing"),
    ],
)
def test_trainings_that_cannot_be_are_told_before_anything_is_written(command, message, labelled, capsys, monkeypatch):
    monkeypatch.chdir(labelled)
    given = [] if {"--faces", "esrgan-start", "esrgan"} & set(command) else ["--faces", "faces"]
    assert cli.main(["train", command[0], "--device", "cpu", *command[1:], *given, "--out", "run"]) == 1
    assert message in capsys.readouterr().err
    assert not (labelled / "run").exists()


def test_a_network_teaches_without_landmarks(labelled, capsys, monkeypatch):
    monkeypatch.chdir(labelled)
    command = ["train", "landmarks", "--faces", "faces", "--teacher", "landmarks", "--hours", "1e-9", "--batch", "2"]
    assert cli.main([*command, "--out", "run", "--device", "cpu"]) == 0
    assert "done after 2 faces" in capsys.readouterr().out


def test_a_flow_is_trained_from_the_shell_and_comes_with_its_prior(checkpoint, tmp_path, capsys):
    size = ["--hidden", "8", "--blocks", "1", "--batch", "8", "--held-out", "100"]
    command = ["train", "flow", "--prior", checkpoint, "--out", str(tmp_path / "run"), "--device", "cpu", *size]
    assert cli.main([*command, "--hours", "1e-9"]) == 0
    assert "done after 8 codes" in capsys.readouterr().out
    assert len(FacePrior.load(tmp_path / "run" / flow.PRIOR).flow.blocks) == 1


def test_a_parsing_network_is_trained_from_the_shell(tmp_path, capsys):
    for folder in ("faces", "maps"):
        (tmp_path / folder).mkdir()
    for i in range(2):
        images.write(torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(i)), tmp_path / "faces" / f"{i}.png")
        Image.fromarray(np.full((16, 16), 13, np.uint8)).save(tmp_path / "maps" / f"{i}.png")
    small = {"size": 16, "bottleneck": 4, "width": 4, "max-width": 8, "depth": 1, "batch": 2}
    flags = [word for name, number in small.items() for word in (f"--{name}", str(number))]
    where = ["--faces", str(tmp_path / "faces"), "--out", str(tmp_path / "run"), "--hours", "1e-6", "--device", "cpu"]
    assert cli.main(["train", "parsing", *where, "--labels", str(tmp_path / "maps"), *flags]) == 0
    assert "done after 2 faces" in capsys.readouterr().out
    assert networks.parsing.load(tmp_path / "run" / parsing.NETWORK).sizes["size"] == 16
    assert cli.main(["train", "parsing", *where, "--labels", str(tmp_path / "none.npz"), *flags]) == 1
    assert "none.npz" in capsys.readouterr().err


def test_a_flag_of_another_type_is_refused(capsys, tmp_path):
    with pytest.raises(SystemExit) as refused:
        cli.main(["train", "flow", "--out", str(tmp_path), "--hours", "1", "--hidden", "wide"])
    assert refused.value.code == 2
    assert "--hidden: 'wide' cannot be given: expected a whole number." in capsys.readouterr().err


def test_the_home_of_nobody_is_refused(capsys):
    with pytest.raises(SystemExit):
        cli.main(["restore", "~nobody-of-this-name/a.png", "--out", "out"])
    assert "'~nobody-of-this-name/a.png' names the home of nobody here" in capsys.readouterr().err


@pytest.mark.parametrize("error", [ModuleNotFoundError("Ray is not installed."), MetricUnavailable("no weights.")])
def test_a_package_that_is_missing_is_told_without_a_traceback(error, capsys, monkeypatch):
    def missing(*_):
        raise error

    monkeypatch.setattr(sweep, "on_ray", missing)
    assert cli.main(["table", "dse-1", "--ray"]) == 1
    assert capsys.readouterr().err == f"facesr: {error}\n"


def test_a_book_says_what_it_is_made_with(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert cli.main(["book", "03-pulse"]) == 1
    assert capsys.readouterr().err == "facesr: yaml is not installed: pip install 'facesr_lib[book]'.\n"


def test_what_was_skipped_is_told_without_our_source(photos, tmp_path):
    (tmp_path / "photos" / "text.jpg").write_text("no picture")
    flags = ["--faces", str(tmp_path / "photos"), "--out", str(tmp_path / "run"), "--hours", "1", "--batch", "99"]
    done = shell("train", "prior", *flags)
    assert done.returncode == 1
    first, second = done.stderr.decode().splitlines()
    assert first.startswith("facesr: skipped 1 of ")
    assert second.startswith("facesr: ")


# Tables and assets


def test_a_table_replaces_no_file_unless_it_may(tmp_path, capsys):
    kept = tmp_path / "kept.csv"
    kept.write_text("mine")
    assert cli.main(["table", "dse-1", "--out", str(kept)]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert kept.read_text() == "mine"


@pytest.mark.parametrize("out", ["", "file/a.csv", "/proc/a.csv"])
def test_a_table_that_cannot_be_written_is_told_before_it_is_measured(out, tmp_path, capsys, monkeypatch):
    if out.startswith("/proc") and not Path("/proc").is_dir():
        pytest.skip("no /proc here")
    (tmp_path / "file").touch()
    monkeypatch.setattr(run, "run", lambda *_, **__: pytest.fail("was measured"))
    assert cli.main(["table", "dse-1", "--out", str(tmp_path / out), "--overwrite"]) == 1
    assert "cannot be used" in capsys.readouterr().err


def test_a_table_that_is_not_written_after_all_is_shown(tmp_path, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a.csv")

    monkeypatch.setattr(run, "run", lambda name, prior, **_: ledger.results()[name])
    monkeypatch.setattr(records, "write", full)
    assert cli.main(["table", "dse-1", "--out", str(tmp_path / "a.csv")]) == 1
    out, err = capsys.readouterr()
    assert "PULSE" in out
    assert "a.csv cannot be used (No space left on device)" in err


def test_a_table_says_what_could_not_be_measured_and_why(monkeypatch, capsys):
    monkeypatch.setattr(run, "run", lambda name, prior, **_: ledger.results()[name])
    assert cli.main(["table", "lsrgan-1"]) == 0
    shown = capsys.readouterr().out
    assert "unavailable · paper 3.755" in shown
    assert "pi is unavailable: NRQM's regression forests" in shown


def test_assets_are_listed_and_verified(capsys):
    assert cli.main(["assets", "list"]) == 0
    assert "stylegan2-ffhq-1024" in capsys.readouterr().out
    assert cli.main(["assets", "verify", "faces-64"]) == 0
    assert "faces-64: ok" in capsys.readouterr().out
    assert cli.main(["assets", "verify"]) == 0
    assert "faces-64: ok" in (out := capsys.readouterr().out)
    assert "missing" not in out
    for command in (["verify", "faces-46"], ["fetch", "faces-64", "faces-46"]):
        assert cli.main(["assets", *command]) == 1
        out, err = capsys.readouterr()
        assert out == ""  # nothing is begun where not all is known
        assert "did you mean faces-64" in err


# Terminals


@pytest.mark.parametrize("env", [ASCII, C_LOCALE], ids=["ascii", "C"])
def test_a_run_ends_well_in_any_terminal(restore, photos, tmp_path, env):
    images.write(torch.zeros(3, 5, 4), photos[1])
    done = shell(*restore(photos=photos), env=env)
    assert done.returncode == 1
    assert done.stdout.count(b" -> ") == 2
    assert b"4x5" in done.stderr
    assert images.read(tmp_path / "out" / "2.png").shape == (3, 16, 16)


def test_what_the_encoding_has_is_kept_and_the_rest_written_plainly():
    program = "from facesr_lib import cli; cli.main(['assets', 'verify', 'faces-64']); print('é × → − x² β')"
    env = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True)
    assert done.stdout.decode("cp1252").splitlines()[-1] == "é × -> - x² ?"


@pytest.mark.parametrize("command", [["assets", "list"], ["methods"]])
def test_a_closed_pipe_ends_quietly(command):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-m", "facesr_lib", *command], stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_errors_that_nobody_reads_end_quietly_too():
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "facesr_lib", "assets", "verify", "faces-46"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=writing)
    os.close(writing)
    assert (done.returncode, done.stdout) == (1, b"")


FULL = Path("/dev/full")
no_full_disk = pytest.mark.skipif(not FULL.exists(), reason="no disk here is always full")


@pytest.mark.parametrize("stream", [1, 2])
@pytest.mark.parametrize("place", [pytest.param(FULL, marks=no_full_disk), "&0", "&-"], ids=["full", "pipe", "closed"])
def test_work_goes_on_where_nobody_takes_its_output(restore, photos, tmp_path, stream, place):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "facesr_lib", *restore(photos=photos[:2])]
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {stream}>{place}', "sh", *command], stdin=writing, capture_output=True
    )
    os.close(writing)
    assert done.returncode == 0
    assert done.stdout.count(b" off by ") == (2 if stream == 2 else 0)
    assert b"facesr: " not in done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.png", "1.png"]


@no_full_disk
def test_a_list_that_finds_no_room_is_told():
    with FULL.open("wb") as full:
        done = subprocess.run([sys.executable, "-m", "facesr_lib", "methods"], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr.startswith(b"facesr: the output cannot be used (No space left on device): name another")


def test_a_closed_output_changes_nothing():
    program = "import sys; sys.stdout = None; from facesr_lib import cli; sys.exit(cli.main(['assets', 'list']))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


def test_help_needs_no_torch():
    program = (
        "import sys; from facesr_lib import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True).returncode == 0
