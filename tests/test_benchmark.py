"""The benchmark measures what it says: its plain loop is the same search, its table holds every number."""

import re
from math import isnan

import pytest
import torch
from torch.testing import assert_close

from facesr_lib import search
from facesr_lib.benchmark import search as benchmark
from facesr_lib.networks.flow import Flow
from facesr_lib.networks.stylegan2 import SynthesisLayer
from facesr_lib.prior import FacePrior


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
    lines = benchmark.table(rows).splitlines()
    assert len(lines) == 2 + len(rows)
    assert len({line.count("|") for line in lines}) == 1


def test_every_method_is_measured_with_what_its_networks_take(monkeypatch):
    prior = FacePrior.load("faces-64")
    prior.flow = prior.flow or Flow(prior.w_dim, 16, 1).requires_grad_(False).eval()
    monkeypatch.setattr(benchmark.FacePrior, "load", lambda *a, **o: prior)
    rows = benchmark.methods(device="cpu", quick=True)
    assert [(row["method"], row["batch"]) for row in rows] == [(m, b) for m in search.METHODS for b in (1, 8)]
    for row in rows:
        assert float(row["steps per second"]) > 0
        assert bool(row["discriminator"]) == (row["method"] == "dse")
        assert bool(row["flow"]) == (row["method"] == "rls")
        assert bool(row["generator"]) == bool(row["the rest"]) == (row["method"] != "mganprior")
