"""What the moving figures carry; that they move is tested in a browser (test_widgets_browser.py)."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.testing import assert_close
from traitlets import TraitError

from facesr_lib.degrade import CameraPipeline, Downsample, camera
from facesr_lib.prior import FacePrior
from facesr_lib.search.engine import History, SearchResult
from facesr_lib.widgets import (
    BeforeAfter,
    CameraStages,
    LambdaExplorer,
    LatentTrajectory,
    NormHistogram,
    Playground,
    Run,
    Sweep,
)


def decode(data: bytes) -> Tensor:
    """WebP bytes -> (3, H, W) in [0, 1]."""
    picture = Image.open(io.BytesIO(data))
    assert picture.format == "WEBP"
    return torch.from_numpy(np.asarray(picture.convert("RGB"), np.float32) / 255).permute(2, 0, 1)


def tile(widget: CameraStages | LambdaExplorer | LatentTrajectory | Playground, number: int) -> Tensor:
    """A picture cut out of the sheet."""
    row, column = divmod(number, widget.columns)
    size = widget.resolution
    return decode(widget.sheet)[:, row * size : (row + 1) * size, column * size : (column + 1) * size]


def colour(picture: Tensor) -> Tensor:
    """Mean away from the border, where WebP lets neighbouring tiles run into each other."""
    return picture[:, 8:-8, 8:-8].mean((1, 2))


def state_size(widget: BeforeAfter | LatentTrajectory) -> int:
    """Bytes that the widget adds to a page: pictures as base64, the rest as JSON."""
    state = {name: value for name, value in widget.get_state().items() if name != "layout"}
    pictures = [value for value in state.values() if isinstance(value, bytes)]
    rest = {name: value for name, value in state.items() if not isinstance(value, bytes)}
    return sum(map(len, pictures)) * 4 // 3 + len(json.dumps(rest, allow_nan=False))


def run(k: int = 4, size: int = 32, hue: int = 0, steps: list[int] | None = None) -> Run:
    """K steps whose faces get brighter in one channel."""
    faces = torch.full((k, 3, size, size), 0.2)
    faces[:, hue] = torch.linspace(0.2, 0.9, k)[:, None, None]
    steps = steps or list(range(0, 10 * k, 10))
    losses = {"pixel": torch.linspace(5, 1, steps[-1] + 1), "cross": torch.linspace(0, 1, steps[-1] + 1)}
    return Run(steps, torch.rand(k, 2), faces, losses)


def test_wipe_keeps_every_pixel_of_small_pictures() -> None:
    before, after = torch.rand(1, 3, 8, 8), torch.rand(3, 64, 64)
    widget = BeforeAfter(before, after, labels=("8 × 8", "64 × 64"), alt="a face")
    assert_close(decode(widget.before), before[0], atol=0.5 / 255 + 1e-6, rtol=0)
    assert_close(decode(widget.after), after, atol=0.5 / 255 + 1e-6, rtol=0)
    assert (widget.size, widget.labels, widget.position) == ([64, 64], ["8 × 8", "64 × 64"], 0.5)


def test_wipe_accepts_any_two_sizes_of_the_same_proportions_only() -> None:
    BeforeAfter(torch.rand(3, 4, 6), torch.rand(3, 32, 48), alt="a pair")
    with pytest.raises(ValueError, match=r"4 x 4 .* 32 x 48.*proportions"):
        BeforeAfter(torch.rand(3, 4, 4), torch.rand(3, 32, 48), alt="a pair")


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (1, 8, 8), (8, 8), (3, 0, 8)])
def test_wipe_names_the_picture_whose_shape_is_wrong(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="after has shape"):
        BeforeAfter(torch.rand(3, 8, 8), torch.rand(shape), alt="a pair")


def test_nan_pixels_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        BeforeAfter(torch.full((3, 8, 8), torch.nan), torch.rand(3, 8, 8), alt="a pair")


def test_bytes_are_refused() -> None:
    given = 255 * torch.rand(2, 3, 16, 16)
    with pytest.raises(ValueError, match=r"before ranges from .* pixels are in \[0, 1\]: divide bytes by 255"):
        BeforeAfter(given[0], torch.rand(3, 8, 8), alt="a pair")
    with pytest.raises(ValueError, match="truth ranges from"):
        Playground({4: {"own": given}}, given, alt="two faces")
    with pytest.raises(ValueError, match="'own' at scale 4 ranges from"):
        Playground({4: {"own": given}}, given / 255, alt="two faces")
    steps = run()
    steps.faces.mul_(255)
    with pytest.raises(ValueError, match="divide bytes by 255"):
        LatentTrajectory({"a": steps}, alt="a path")


def test_nothing_cannot_be_shown() -> None:
    truth = torch.rand(2, 3, 16, 16)
    for make in (
        lambda: Playground({}, truth, alt="two faces"),
        lambda: LatentTrajectory({}, alt="a path"),
        lambda: LatentTrajectory.from_result({}, PAINTER, alt="a path"),
        lambda: LambdaExplorer({}, fidelity="x", realism="y", alt="a trade"),
        lambda: NormHistogram({}),
    ):
        with pytest.raises(ValueError, match=r"nothing|expected one to"):
            make()


@pytest.mark.parametrize("given", [{}, "face", None, [[1.0], [1.0, 2.0]]], ids=["dict", "str", "None", "ragged"])
def test_what_makes_no_tensor_is_named(given: object) -> None:
    picture, batch = torch.rand(3, 8, 8), torch.rand(2, 3, 16, 16)
    axes = {"fidelity": "x", "realism": "y", "alt": "a trade"}
    for make in (
        lambda: BeforeAfter(given, picture, alt="a pair"),
        lambda: BeforeAfter(picture, given, alt="a pair"),
        lambda: Playground({4: {"own": batch}}, given, alt="two faces"),
        lambda: Playground({4: {"own": given}}, batch, alt="two faces"),
        lambda: LatentTrajectory({"a": broken(path=given)}, alt="a path"),
        lambda: LatentTrajectory({"a": broken(faces=given)}, alt="a path"),
        lambda: LatentTrajectory({"a": broken(losses={"pixel": given})}, alt="a path"),
        lambda: LatentTrajectory({"a": run()}, background=given or {}, alt="a path"),
        lambda: LambdaExplorer({"a": sweep(values=given)}, **axes),
        lambda: LambdaExplorer({"a": sweep(faces=given)}, **axes),
        lambda: LambdaExplorer({"a": sweep(realism=given)}, **axes),
        lambda: LambdaExplorer({"a": sweep()}, beside={"truth": given}, **axes),
        lambda: NormHistogram({"z": given}),
        lambda: CameraStages(given, alt="a face"),
    ):
        with pytest.raises(ValueError, match="makes no tensor"):
            make()


def test_what_has_no_names_is_told_so() -> None:
    batch = torch.rand(2, 3, 16, 16)
    for make in (
        lambda: NormHistogram(codes(9)),
        lambda: LatentTrajectory(run(), alt="a path"),
        lambda: LambdaExplorer([sweep()], fidelity="x", realism="y", alt="a trade"),
    ):
        with pytest.raises(ValueError, match=r"expected one to 6 .*, got a (Tensor|Run|list): give them by name"):
            make()
    for faces in (batch, {4: batch}, []):
        with pytest.raises(ValueError, match="give scale → method → pictures"):
            Playground(faces, batch, alt="two faces")


def test_empty_batches_are_refused() -> None:
    none = torch.rand(0, 3, 16, 16)
    for make in (
        lambda: BeforeAfter(none, torch.rand(3, 8, 8), alt="a pair"),
        lambda: Playground({4: {"own": none}}, none, alt="no face"),
        lambda: LatentTrajectory({"a": broken(faces=torch.rand(4, 3, 0, 0))}, alt="a path"),
        lambda: LambdaExplorer({"a": sweep(n=0)}, fidelity="x", realism="y", alt="a trade"),
        lambda: NormHistogram({"z": torch.rand(9, 0)}),
        lambda: NormHistogram({"z": torch.tensor(1.0)}),
    ):
        with pytest.raises(ValueError, match=r"shape \("):
            make()


def test_arrays_and_lists_are_taken_like_tensors() -> None:
    before, after, v = torch.rand(3, 8, 8), torch.rand(3, 64, 64), codes(50)
    ours, theirs = (BeforeAfter(a, b, alt="a") for a, b in ((before, after), (before.numpy(), after.numpy())))
    assert (ours.before, ours.after) == (theirs.before, theirs.after)
    assert NormHistogram({"z": v.tolist()}).series == NormHistogram({"z": v}).series


def test_codes_beyond_all_measure_are_counted_as_cut_off() -> None:
    v = codes(50)
    v[7] = 1e25  # whose squares float32 cannot hold
    assert sum(NormHistogram({"z": v}).series[0]["counts"]) == 49


def test_position_stays_on_the_picture() -> None:
    widget = BeforeAfter(torch.rand(3, 8, 8), torch.rand(3, 8, 8), alt="a pair")
    widget.position = 1.0
    with pytest.raises(TraitError):
        widget.position = 1.1


def test_wipe_may_be_enlarged_as_far_as_it_says() -> None:
    widget = BeforeAfter(torch.rand(3, 8, 8), torch.rand(3, 8, 8), alt="a pair", closest=4)
    assert (widget.closest, widget.zoom) == (4, 1)
    with pytest.raises(TraitError):
        widget.zoom = 0.5


def test_a_photograph_is_packed_smaller_still() -> None:
    speckled = (torch.linspace(0, 1, 2048).expand(3, 1024, 2048) + 0.03 * torch.randn(1, 1024, 2048)).clamp(0, 1)
    assert state_size(BeforeAfter(speckled, speckled, alt="a pair")) < 1_500_000


def test_large_pictures_are_packed_small() -> None:
    smooth = torch.linspace(0, 1, 1024).expand(3, 1024, 1024)
    speckled = (smooth + 0.05 * torch.randn(3, 1024, 1024)).clamp(0, 1)
    assert state_size(BeforeAfter(smooth, speckled, alt="a pair")) < 1_500_000  # 4 MB as PNG


def test_text_alternative_is_required_and_reaches_programs_without_widgets() -> None:
    with pytest.raises(ValueError, match="alt is empty"):
        BeforeAfter(torch.rand(3, 8, 8), torch.rand(3, 8, 8), alt=" ")
    with pytest.raises(TypeError, match="BeforeAfter takes no captoin"):
        BeforeAfter(torch.rand(3, 8, 8), torch.rand(3, 8, 8), alt="a pair", captoin="what is seen")
    alt = "Left eight by eight squares, right a face. " * 4
    bundle, _ = BeforeAfter(torch.rand(3, 8, 8), torch.rand(3, 8, 8), alt=alt)._repr_mimebundle_()
    assert bundle["text/plain"] == f"BeforeAfter: {alt}"
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_sheet_holds_each_face_where_the_runs_say() -> None:
    runs = {"a": run(5, hue=0), "b": run(3, hue=2)}
    widget = LatentTrajectory(runs, alt="two paths")
    for i, one in enumerate(runs.values()):
        for k, face in enumerate(one.faces):
            assert_close(colour(tile(widget, widget.runs[i]["first"] + k)), colour(face), atol=0.02, rtol=0)
    assert widget.step == 40


def test_numbers_survive_and_terms_keep_their_order() -> None:
    one = run()
    widget = LatentTrajectory({"a": one}, alt="a path", background=torch.tensor([[1.23456789, -2.0]]))
    assert [term for term, _ in widget.runs[0]["losses"]] == ["pixel", "cross"]
    assert_close(torch.tensor(widget.runs[0]["losses"][0][1]), one.losses["pixel"], rtol=1e-5, atol=0)
    assert_close(torch.tensor(widget.runs[0]["path"]), one.path, rtol=1e-5, atol=0)
    assert widget.background == [[1.23457, -2.0]]


def broken(**changes: object) -> Run:
    return Run(**{**vars(run()), **changes})


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ({}, "one to 6 runs, got 0"),
        ({str(i): run() for i in range(7)}, "one to 6 runs, got 7"),
        ({"a": run(size=16), "b": run(size=24)}, "different resolutions"),
        ({"a": broken(path=torch.rand(3, 2))}, r"'path' of 'a' has shape \(3, 2\); give a point .* steps, \(4, 2\)"),
        ({"a": broken(faces=torch.rand(4, 3, 8, 9))}, r"'faces' of 'a' has shape \(4, 3, 8, 9\); .* \(4, 3, R, R\)"),
        ({"a": broken(steps=[0, 20, 10, 30])}, "must increase"),
        ({"a": broken(losses={"pixel": torch.rand(9, 2)})}, r"'pixel' of 'a' has shape \(9, 2\)"),
        ({"a": broken(losses={"pixel": torch.tensor([1.0, torch.nan])})}, "'pixel' of 'a' is NaN.* at entry 1"),
        ({"a": broken(path=torch.full((4, 2), torch.nan))}, "'path' of 'a' is NaN"),
    ],
)
def test_runs_that_do_not_fit_are_refused(runs: dict[str, Run], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LatentTrajectory(runs, alt="a path")


def test_background_must_lie_in_the_plane() -> None:
    with pytest.raises(ValueError, match=r"background.*\(5, 3\)"):
        LatentTrajectory({"a": run()}, alt="a path", background=torch.rand(5, 3))


L, D = 3, 8


def searched(latents: Tensor) -> SearchResult:
    """A search result whose history is ``latents`` (K, N, L, d), recorded every 5 steps."""
    k, n = latents.shape[:2]
    steps = list(range(0, 5 * k, 5))
    losses = {"pixel": torch.arange(5.0 * k)[:, None] + 100 * torch.arange(n)}
    history = History(losses, latents, steps)
    return SearchResult(torch.rand(n, 3, 8, 8), latents[-1], torch.rand(n), torch.zeros(n), history)


# Draws a flat picture whose colour is the first three numbers of the first code.
PAINTER = SimpleNamespace(synthesise=lambda w: w[:, 0, :3, None, None].expand(-1, -1, 32, 32).clamp(0, 1))


def planar(points: Tensor) -> Tensor:
    """Points (K, 2) -> codes (K, L, d) on a tilted plane; distances stay."""
    basis = torch.linalg.qr(torch.randn(L * D, 2, generator=torch.Generator().manual_seed(3))).Q
    return (points @ basis.T + 0.5).view(-1, L, D)


def test_the_plane_keeps_distances_of_a_path_that_lies_in_one() -> None:
    points = torch.randn(9, 2) * torch.tensor([3.0, 1.0])
    cloud = torch.randn(20, 2)
    latents = torch.stack([torch.rand(9, L, D), planar(points)], 1)  # (K, N=2, L, d)
    widget = LatentTrajectory.from_result(searched(latents), PAINTER, image=1, background=planar(cloud), alt="a path")
    shown = torch.tensor(widget.runs[0]["path"] + widget.background)
    assert_close(torch.cdist(shown, shown), torch.cdist(*[torch.cat([points, cloud])] * 2), atol=0.02, rtol=0.01)
    assert "100%" in widget.caption
    assert widget.runs[0]["steps"] == list(range(0, 45, 5))
    assert widget.runs[0]["losses"][0][1][:2] == [100.0, 101.0]  # of image 1, not of its batch-mate
    for k, code in enumerate(latents[:, 1]):
        assert_close(colour(tile(widget, k)), code[0, :3].clamp(0, 1), atol=0.03, rtol=0)


def test_several_methods_share_one_plane() -> None:
    a, b = torch.randn(4, 2), torch.randn(6, 2) + 5
    results = {"PULSE": searched(planar(a)[:, None]), "RLS": searched(planar(b)[:, None])}
    widget = LatentTrajectory.from_result(results, PAINTER, alt="two paths")
    shown = torch.tensor(widget.runs[0]["path"] + widget.runs[1]["path"])
    assert_close(torch.cdist(shown, shown), torch.cdist(*[torch.cat([a, b])] * 2), atol=0.02, rtol=0.01)
    assert [one["name"] for one in widget.runs] == ["PULSE", "RLS"]
    assert widget.step == 25


def test_a_cloud_of_plain_w_stands_for_all_layers() -> None:
    result, w = searched(torch.randn(5, 1, L, D)), torch.randn(7, D)
    narrow = LatentTrajectory.from_result(result, PAINTER, background=w, alt="a path")
    wide = LatentTrajectory.from_result(result, PAINTER, background=w[:, None].expand(-1, L, -1), alt="a path")
    assert narrow.background == wide.background
    with pytest.raises(ValueError, match=r"background has shape \(7, 9\)"):
        LatentTrajectory.from_result(result, PAINTER, background=torch.randn(7, D + 1), alt="a path")


def test_results_that_have_no_path_are_refused() -> None:
    with pytest.raises(ValueError, match="searched 1 images, so image 1"):
        LatentTrajectory.from_result(searched(torch.randn(5, 1, L, D)), PAINTER, image=1, alt="a path")
    with pytest.raises(ValueError, match="record_every"):
        LatentTrajectory.from_result(searched(torch.randn(2, 1, L, D)), PAINTER, alt="a path")
    with pytest.raises(ValueError, match="diverged"):
        LatentTrajectory.from_result(searched(torch.full((5, 1, L, D), torch.nan)), PAINTER, alt="a path")


def test_25_real_faces_stay_under_300_kb_and_look_like_themselves() -> None:
    prior = FacePrior.load("faces-64")
    w = prior.sample_w(2, seed=0)
    latents = torch.stack([torch.lerp(w[:1], w[1:], t) for t in torch.linspace(0, 1, 25).tolist()])  # (25, 1, L, d)
    widget = LatentTrajectory.from_result(searched(latents), prior, background=prior.sample_w(400), alt="a walk")
    assert state_size(widget) < 300_000
    faces = prior.synthesise(latents[:, 0])
    error = torch.stack([(tile(widget, k) - face).square().mean() for k, face in enumerate(faces)])
    assert error.max() < 10 ** (-28 / 10)  # 28 dB


def codes(n: int = 4000, d: int = 16, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(n, d, generator=torch.Generator().manual_seed(n))


def test_counts_are_those_of_the_codes() -> None:
    v = codes()
    widget = NormHistogram({"z": v})
    norms = v.square().sum(1)
    edges = widget.bin_width * np.arange(len(widget.density))
    assert widget.series[0]["counts"] == np.histogram(norms, edges)[0].tolist()
    assert widget.upper == pytest.approx(edges[-1])
    [one] = widget.series
    assert one["mean"] == pytest.approx(float(norms.mean()), rel=1e-4)
    assert one["std"] == pytest.approx(float(norms.std()), rel=1e-4)
    low, high = widget.band
    assert one["outside"] == pytest.approx(float(((norms < low) | (norms > high)).float().mean()), abs=1e-3)
    assert 0.003 < one["outside"] < 0.02
    assert one["ks"] < 0.03


def test_the_density_drawn_is_that_of_a_gaussian() -> None:
    widget = NormHistogram({"z": codes(200_000)})
    drawn = np.array(widget.series[0]["counts"]) / (200_000 * widget.bin_width)
    middle = (np.array(widget.density[1:]) + widget.density[:-1]) / 2
    assert_close(torch.tensor(drawn), torch.tensor(middle), atol=0.06 * max(middle), rtol=0)


@pytest.mark.parametrize("d", [1, 2, 16, 512])
def test_bars_are_few_and_show_nearly_all_whatever_the_dimension(d: int) -> None:
    widget = NormHistogram({"z": codes(d=d), "wide": codes(3000, d, scale=1.5), "huge": codes(100, d, scale=100)})
    assert 32 <= len(widget.density) <= 600
    assert sum(widget.series[1]["counts"]) > 0.95 * 3000
    assert sum(widget.series[2]["counts"]) < 30  # beyond the axis, and not piled up at its end
    assert len(json.dumps(widget.get_state(["series", "density"]))) < 15_000


def test_a_spread_that_is_wrong_shows_in_every_number() -> None:
    right, wide = NormHistogram({"z": codes(), "wide": codes(scale=1.2)}, dof=16).series
    assert wide["mean"] > 1.3 * right["mean"]
    assert wide["ks"] > 10 * right["ks"]
    assert wide["outside"] > 5 * right["outside"]


@pytest.mark.parametrize(
    ("sets", "dof", "message"),
    [
        ({}, None, "one to 6 sets of codes, got 0"),
        ({str(i): codes(9) for i in range(7)}, None, "one to 6 sets"),
        ({"z": codes(9), "w": codes(9, 8)}, None, "'w' has codes of 8 dimensions where dof is 16"),
        ({"z": codes(9)}, 128, "'z' has codes of 16 dimensions where dof is 128"),
        ({"z": codes(1)}, None, r"'z' has shape \(1, 16\)"),
        ({"z": torch.rand(9, 2, 16)}, None, r"'z' has shape \(9, 2, 16\)"),
        ({"z": torch.tensor([[1.0, 2.0], [3.0, torch.nan]])}, None, "'z' is NaN or infinite at entry 1"),
    ],
)
def test_codes_that_do_not_fit_are_refused(sets: dict[str, Tensor], dof: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NormHistogram(sets, dof)


def test_histogram_says_its_numbers_in_words() -> None:
    widget = NormHistogram({"z": codes(), "flow": codes(scale=1.2)})
    assert "z: mean 16, spread 6" in widget.alt
    assert NormHistogram({"z": codes()}, alt="mine").alt == "mine"
    with pytest.raises(TraitError):
        widget.coarseness = 0


def sweep(k: int = 3, n: int = 2, hue: int = 0, **changes: object) -> Sweep:
    faces = torch.full((k, n, 3, 32, 32), 0.2)
    faces[:, :, hue] = torch.linspace(0.2, 0.9, k * n).view(k, n)[:, :, None, None]
    start = {"values": [10.0**i for i in range(k)], "fidelity": range(k), "realism": -torch.arange(k), "faces": faces}
    return Sweep(**{**start, **changes})


def test_explorer_holds_each_face_where_its_sweep_says() -> None:
    sweeps = {"a": sweep(3, hue=0), "b": sweep(4, hue=2)}
    truth, small = torch.rand(2, 3, 1, 1).expand(-1, -1, 32, 32), torch.rand(2, 3, 1, 1).expand(-1, -1, 4, 4)
    beside = {"truth": truth, "LR": small}
    widget = LambdaExplorer(sweeps, beside=beside, fidelity="residual", realism="log p", alt="a trade")
    for entry, one in zip(widget.sweeps, sweeps.values(), strict=True):
        for number, expected in enumerate(one.faces.flatten(0, 1)):
            assert_close(colour(tile(widget, entry["first"] + number)), colour(expected), atol=0.03, rtol=0)
    for entry, pictures in zip(widget.beside, beside.values(), strict=True):
        for number, picture in enumerate(pictures):
            assert_close(colour(tile(widget, entry["first"] + number)), picture[:, 0, 0], atol=0.03, rtol=0)
    assert [entry["values"] for entry in widget.sweeps] == [[1, 10, 100], [1, 10, 100, 1000]]
    assert (widget.count, widget.axes, widget.sweep, widget.point) == (2, ["residual", "log p"], 0, 0)


def test_explorer_takes_one_face_and_plain_lists() -> None:
    faces = torch.rand(2, 3, 16, 16)
    widget = LambdaExplorer({"λ": Sweep([0, 1e-4], [1, 2.5], [-3, -4], faces)}, fidelity="x", realism="y", alt="a")
    assert (widget.count, widget.resolution) == (1, 16)
    assert widget.sweeps[0]["fidelity"] == [1.0, 2.5]


@pytest.mark.parametrize(
    ("sweeps", "message"),
    [
        ({}, "one to 6 sweeps, got 0"),
        ({"a": sweep(values=[])}, r"'values' of 'a' has shape \(0,\); give one or more"),
        ({"a": sweep(values=[1, 2])}, r"'faces' of 'a' has shape \(3, 2, 3, 32, 32\); give .* \(2, N, 3, R, R\)"),
        ({"a": sweep(values=[1, 3, 2])}, r"must increase, got \[1.0, 3.0, 2.0\]"),
        ({"a": sweep(fidelity=[1, 2])}, r"'fidelity' of 'a' has shape \(2,\); give one for each of the values, \(3,\)"),
        ({"a": sweep(realism=torch.zeros(3, 2))}, r"'realism' of 'a' has shape \(3, 2\)"),
        ({"a": sweep(realism=[1, float("nan"), 2])}, "'realism' of 'a' is NaN or infinite at entry 1"),
        ({"a": sweep(faces=torch.full((3, 3, 8, 8), torch.nan))}, "'faces' of 'a' is NaN or infinite at entry 0"),
        ({"a": sweep(), "b": sweep(n=3)}, "different faces"),
    ],
)
def test_sweeps_that_do_not_fit_are_refused(sweeps: dict[str, Sweep], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LambdaExplorer(sweeps, fidelity="x", realism="y", alt="a trade")


def test_pictures_beside_are_one_per_face() -> None:
    with pytest.raises(ValueError, match=r"'truth' has shape \(3, 3, 32, 32\).*\(2, 3, R, R\)"):
        LambdaExplorer({"a": sweep()}, beside={"truth": torch.rand(3, 3, 32, 32)}, fidelity="", realism="", alt="a")


def test_playground_measures_what_it_shows() -> None:
    truth = torch.linspace(0.1, 0.9, 6).view(2, 3, 1, 1).expand(-1, -1, 16, 16)
    faces = {scale: {"bicubic": truth * 0.5, "PULSE": truth} for scale in (4, 8)}
    widget = Playground(faces, truth, alt="two faces")
    assert (widget.scales, widget.methods, widget.guess) == ([4, 8], ["bicubic", "PULSE"], [1])
    assert_close(
        torch.tensor(widget.psnr[1][0]), -10 * (truth * 0.5).square().mean((1, 2, 3)).log10(), rtol=1e-4, atol=0
    )
    assert widget.psnr[0][1] == [99, 99]  # no infinity: JSON has none
    lost = Downsample(4)(truth * 0.5).square().mean((1, 2, 3)).sqrt()  # half of the picture is missing
    assert_close(torch.tensor(widget.residual[0][0]), 255 * lost, rtol=1e-4, atol=1e-3)
    assert_close(torch.tensor(widget.residual[0][1]), torch.zeros(2), atol=1e-3, rtol=0)
    last = tile(widget, 13)  # per scale the inputs and two methods, then the truth: 2 × 3 × 2 + 2 tiles
    assert_close(last[:, 4:-4, 4:-4], truth[1, :, 4:-4, 4:-4], atol=0.05, rtol=0)


@pytest.mark.parametrize(
    ("faces", "says"),
    [
        ({}, "nothing to show"),
        ({4: {"a": torch.rand(1, 3, 16, 16)}}, r"'a' at scale 4 has shape"),
        ({4: {"a": torch.rand(2, 3, 16, 16)}, 8: {"b": torch.rand(2, 3, 16, 16)}}, "the same"),
        ({4: {"a": torch.full((2, 3, 16, 16), torch.nan)}}, "NaN"),
    ],
)
def test_playground_says_what_does_not_fit(faces: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Playground(faces, torch.rand(2, 3, 16, 16), alt="two faces")


def test_playground_carries_no_more_pixels_than_it_shows() -> None:
    large = torch.rand(1, 3, 512, 512)
    widget = Playground({8: {"a": large}}, large, alt="a face")
    assert widget.resolution == 256
    assert decode(widget.sheet).shape[1:] == (512, 512)
    assert widget.psnr == [[[99]]]


def test_camera_shows_what_the_pipeline_makes() -> None:
    face = FacePrior.load("faces-64").sample(1, seed=0)[0]
    widget = CameraStages(face, blurs=(0, 15), sides=(255, 64), noises=(0,), compressions=(0, 64), alt="a face")
    assert [stage["says"] for stage in widget.stages] == [
        ["kept", "grey"],
        ["none", "15"],
        ["255 of 512", "64 of 512"],
        ["none"],
        ["none", "37"],
    ]
    drawn = CameraPipeline(grey_p=0, noise_p=0, jpeg_p=1, side=(64, 65), compression=(64, 64)).choose(1)
    by_hand = {"blur": torch.tensor([1]), "extent": torch.tensor([15.0]), "kernel": torch.tensor([2])}
    said = "Gaussian blur, σ = 15.0, made small to 64 of 512 (area), JPEG of quality 37."
    for number, grey in ((7, False), (15, True)):
        choices = replace(drawn, **by_hand, grey=torch.tensor([grey]))
        expected = camera.stages(face, choices)["enlarged"][0]
        assert_close(tile(widget, 1 + number), expected, atol=0.1, rtol=0)
        worst = -10 * (expected - face[0]).square().mean().log10()
        assert widget.psnr[number] == pytest.approx(float(worst), abs=0.01)
        assert widget.told[number] == "made grey, " * grey + said
    assert_close(tile(widget, 0), face[0], atol=0.25, rtol=0)
    assert widget.psnr[0] > widget.psnr[7] + 3


def test_a_hundred_photographs_stay_under_600_kb() -> None:
    face = FacePrior.load("faces-64").sample(1, seed=0)[0]
    widget = CameraStages(torch.nn.functional.interpolate(face, scale_factor=4, mode="bicubic").clamp(0, 1), alt="one")
    assert (len(widget.told), widget.resolution) == (108, 128)
    assert state_size(widget) < 600_000


@pytest.mark.parametrize(
    ("face", "options", "message"),
    [
        (torch.rand(3, 8, 9), {}, r"shape \(1, 3, 8, 9\); give square pictures, \(1, 3, S, S\)"),
        (torch.rand(2, 3, 8, 8), {}, r"shape \(2, 3, 8, 8\)"),
        (torch.full((3, 8, 8), torch.nan), {}, "NaN"),
        (255 * torch.rand(3, 8, 8), {}, "the face ranges from"),
        (torch.rand(3, 8, 8), {"noises": ()}, "0 combinations"),
        (torch.rand(3, 8, 8), {"blurs": range(30)}, "1080 combinations"),
    ],
)
def test_what_cannot_be_photographed_is_refused(face: Tensor, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CameraStages(face, alt="a face", **options)
