"""The benchmark measures what it says: its plain loop is the same search, its table holds every number."""

import re
from functools import partial
from math import isnan
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from facesr_lib.benchmark import clock, networks, photos
from facesr_lib.benchmark import search as benchmark
from facesr_lib.benchmark import training as throughput
from facesr_lib.metrics import pretrained
from facesr_lib.networks.flow import Flow
from facesr_lib.networks.landmarks import DistilledFAN
from facesr_lib.networks.progressive import ProgressiveGenerator
from facesr_lib.networks.rrdb import RRDBNet
from facesr_lib.networks.stylegan2 import Discriminator, Generator, SynthesisLayer
from facesr_lib.prior import FacePrior
from facesr_lib.restoration import METHODS
from facesr_lib.tables import Table
from facesr_lib.training import esrgan
from facesr_lib.training.processes import Processes
from facesr_lib.training.stylegan2 import Config, PriorTraining
from facesr_lib.training.supervised import RECIPES


@pytest.mark.parametrize("up", [False, True])
def test_the_textbook_layer_computes_the_same(up):
    torch.manual_seed(0)
    layer = SynthesisLayer(6, 4, 8, 16 if up else 8, up=up)
    torch.nn.init.ones_(layer.noise_strength)
    x, w, noise = torch.randn(1, 6, 8, 8), torch.randn(1, 8), torch.randn(1, 1, *layer.noise_const.shape)
    assert_close(benchmark.textbook_layer(layer, x, w, noise), layer(x, w, noise), atol=1e-5, rtol=1e-5)


def test_rows_compare_batches_with_the_plain_loop():
    rows = benchmark.run(device="cpu", quick=True)
    assert [(row["PULSE step"], row["batch"]) for row in rows] == [
        ("plain loop", 1),
        ("facesr_lib", 1),
        ("facesr_lib", 16),
    ]
    for row in rows:
        times = float(rows[0]["ms per step"]) / float(row["ms per step and image"])
        assert_close(float(row["times faster than the plain loop"]), times, atol=0.02, rtol=0.02)
    for row in rows[1:]:
        rate, lowest, highest = map(float, re.findall(r"[\d.]+", row["of the convolution rate"]))
        assert 0 < lowest <= rate <= highest
    peaks = [float(row["peak MB"]) for row in rows]
    assert isnan(peaks[0]) or peaks[2] > peaks[1] > 0  # memory grows with the batch, where it can be counted
    assert len(Table.of(rows).rows) == len(rows)


@pytest.mark.parametrize("measure", [clock.seconds, clock.peak_megabytes])
def test_what_was_cut_short_is_not_measured(measure):
    with pytest.raises(KeyboardInterrupt):
        measure(lambda: SimpleNamespace(interrupted=True), torch.device("cpu"))  # a search keeps its best so far
    assert not measure(lambda: SimpleNamespace(interrupted=False), torch.device("cpu")) < 0


def test_every_method_is_measured_with_what_its_networks_take(monkeypatch):
    sizes = {"channel_base": 256, "channel_max": 8}
    prior = FacePrior("tiny", Generator(4, 4, 32, **sizes, num_mapping_layers=2), Discriminator(32, **sizes))
    prior.flow = Flow(4, 16, 1).requires_grad_(False).eval()
    monkeypatch.setattr(benchmark.FacePrior, "load", lambda *a, **o: prior)
    rows = benchmark.methods(device="cpu", quick=True)
    searches = [name for name, method in METHODS.items() if "steps" in method.options]
    assert {"pulse", "dse", "rls", "rls_plus", "brgm", "mganprior"} <= set(searches)
    assert [(row["method"], row["batch"]) for row in rows] == [(name, batch) for name in searches for batch in (1, 8)]
    for row in rows:
        assert float(row["steps per second"]) > 0
        assert bool(row["discriminator"]) == (row["method"] == "dse")
        assert bool(row["flow"]) == (row["method"] == "rls")
        assert bool(row["generator"]) == bool(row["the rest"]) == (row["method"] != "mganprior")


def test_photographs_have_a_row_for_each_part():
    rows = photos.run(device="cpu", quick=True, size=(300, 400))
    assert [row["photographs"].partition(",")[0] for row in rows] == ["camera pipeline", "finding", "restoring"]
    assert [row["faces"] for row in rows] == [64, 10, 10]
    assert all(float(row["faces per second"]) > 0 for row in rows)


# --- training


TINY = Config(resolution=8, z_dim=4, w_dim=4, mapping_layers=2, channel_base=64, channel_max=8, batch=4)


def test_training_speed_has_a_row_for_each_training():
    first = esrgan.Start(blocks=1, channels=8, growth=4, encoder_width=8, patch=32, batch=2)
    second = esrgan.Config(latent=True, discriminator_width=4, patch=32, batch=2)
    small = {"width": 1 / 16, "batch": 2}
    trainings = {
        "tiny": partial(throughput.prior, TINY, bf16=False),
        "first": partial(throughput.patches, first, bf16=False),
        "vdsr": partial(throughput.supervised, "vdsr", **small),
        "fsrnet": partial(throughput.supervised, "fsrnet", **small),
        "growing": partial(throughput.progressive, DistilledFAN, **small),
        "second": partial(throughput.patches, second),
    }
    rows = throughput.run("cpu", quick=True, trainings=trainings)
    there = pretrained.reason(pretrained.efficientnet_file) is None
    assert [row["training"].partition(", features of ")[0] for row in rows] == [*trainings][: 5 + there]
    assert [row["batch"] for row in rows] == [4, 2, 2, 2, 2, 2][: 5 + there]
    assert [row["precision"] for row in rows[:5]] == ["float32"] * 5
    for row in rows:
        assert float(row["images per second"]) > 0
        assert 0 <= float(row["loading images"].rstrip(" %")) < 100
    assert re.search(r"features of \w+", rows[4]["training"])


def test_every_training_is_timed():
    assert {"64×64", "ESRGAN's first stage", *(f"{name}, width 0.5" for name in RECIPES)} < throughput.TRAININGS.keys()


def test_networks_for_faces_are_timed_against_their_own_convolutions():
    tiny = {
        "grown": (lambda: ProgressiveGenerator(1 / 64), 16, (1, 16)),
        "landmarks": (DistilledFAN, 64, (1, 16)),
        "enlarging": (lambda: RRDBNet(2, 8, 4), 9, (1,)),
        "RRDBNet": networks.NETWORKS["RRDBNet"],
    }
    rows = networks.run("cpu", quick=True, networks=tiny)
    expected = [("grown", 1), ("grown", 16), ("landmarks", 1), ("landmarks", 16), ("enlarging", 1)]
    assert [(row["network"], row["batch"]) for row in rows] == expected  # ESRGAN's full size takes its time
    for row in rows:
        share, lowest, highest = map(float, re.findall(r"[\d.]+", row["of the convolution rate"]))
        assert 0 < lowest <= share <= highest
        assert float(row["pictures per second"]) > 0
    assert len(Table.of(rows).rows) == len(rows)


@torch.no_grad()
@pytest.mark.parametrize("make", [lambda: RRDBNet(2, 8, 4), lambda: ProgressiveGenerator(1 / 64)])
def test_all_of_a_networks_convolutions_are_timed_and_nothing_else(make):
    network, x = make().eval(), torch.rand(2, 3, 16, 16)
    with throughput.Operations() as whole:
        network(x)
    alone = networks.convolutions(network, lambda: network(x))
    with throughput.Operations() as counted:
        alone()
    assert counted.total == whole.total > 0


def test_operations_are_counted_through_both_passes():
    layer = torch.nn.Conv2d(4, 4, 3, padding=1, bias=False)
    x = torch.randn(2, 4, 8, 8, requires_grad=True)
    with throughput.Operations() as counted:
        layer(x).sum().backward()
    forward = 2 * 2 * 4 * 64 * 4 * 9
    assert counted.total == 3 * forward  # backward is one for the input, one for the weights


def test_loading_reads_every_image(tmp_path):
    pixels = np.arange(4, dtype=np.uint8)[:, None, None, None].repeat(8, 1).repeat(8, 2).repeat(3, 3)
    np.save(tmp_path / "pixels.npy", pixels)
    trainee = PriorTraining(np.load(tmp_path / "pixels.npy", mmap_mode="r"), TINY, Processes("cpu"))
    levels = {round(float(level) * 127.5 + 127.5) for _ in range(8) for level in trainee.real()[:, 0, 0, 0].detach()}
    assert levels == {0, 1, 2, 3}
