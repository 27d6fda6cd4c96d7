"""The chapters' figures: what is drawn where, and that each is shown once."""

from __future__ import annotations

import io
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from IPython.core.formatters import HTMLFormatter
from PIL import Image
from scipy import stats
from torch.testing import assert_close

from facesr_lib import plots


@pytest.fixture(autouse=True)
def _no_window() -> None:
    plt.switch_backend("agg")


def pictured(figure: plt.Figure) -> list[plt.Axes]:
    return [ax for ax in figure.axes if ax.images]


def test_rows_of_different_sizes_stand_below_each_other() -> None:
    low, high = torch.rand(2, 3, 8, 8), torch.rand(3, 3, 64, 64)
    figure = plots.faces({"input": low, "PULSE": high}, titles={"PULSE": ["1 dB", "2 dB", "3 dB"]}, suptitle="Faces")
    shown = pictured(figure)
    assert [ax.images[0].get_array().shape[0] for ax in shown] == [8, 8, 64, 64, 64]
    assert_close(torch.tensor(shown[3].images[0].get_array()) / 255, high[1].permute(1, 2, 0), atol=0.51 / 255, rtol=0)
    assert [ax.get_title() for ax in shown] == ["", "", "1 dB", "2 dB", "3 dB"]
    assert {ax.get_ylabel() for ax in figure.axes} == {"input", "PULSE", ""}
    assert {ax.images[0].get_interpolation() for ax in shown} == {"nearest"}
    assert figure.get_suptitle() == "Faces"


def test_a_batch_wraps_and_keeps_its_titles() -> None:
    batch = torch.rand(5, 3, 8, 8)
    figure = plots.faces(batch, titles=list("abcde"), columns=2)
    assert len(figure.axes) == 6
    assert [ax.get_title() for ax in pictured(figure)] == list("abcde")


def test_faces_that_do_not_fit_are_refused() -> None:
    batch = torch.rand(2, 3, 8, 8)
    with pytest.raises(ValueError, match="2 pictures but 1 titles"):
        plots.faces(batch, titles=["a"])
    with pytest.raises(ValueError, match="titles for b, but the rows are a"):
        plots.faces({"a": batch}, titles={"b": ["1", "2"]})
    with pytest.raises(ValueError, match="name the titles"):
        plots.faces({"a": batch}, titles=["1", "2"])
    with pytest.raises(ValueError, match="one row per entry"):
        plots.faces({"a": batch}, columns=3)
    with pytest.raises(ValueError, match="no picture"):
        plots.faces({})
    with pytest.raises(ValueError, match="no picture"):
        plots.faces(torch.rand(0, 3, 8, 8))
    with pytest.raises(ValueError, match="NaN"):
        plots.faces(batch * torch.nan)


def test_curves_are_told_apart_by_colour_and_by_dash() -> None:
    figure = plots.curves({"a": torch.arange(5.0), "b": [1, 2, 3, 4, 5]}, ylabel="loss", title="T", logy=True)
    (ax,) = figure.axes
    first, second = ax.lines
    assert list(first.get_ydata()) == [0, 1, 2, 3, 4]
    assert first.get_color() != second.get_color()
    assert first.get_linestyle() != second.get_linestyle()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]
    assert (ax.get_yscale(), ax.get_ylabel(), ax.get_title(loc="left")) == ("log", "loss", "T")


def test_curves_need_one_x_per_y() -> None:
    with pytest.raises(ValueError, match=r"'a' has shape \(5,\) over an x of shape \(4,\)"):
        plots.curves({"a": torch.rand(5)}, x=[1, 2, 3, 4])
    with pytest.raises(ValueError, match="no series"):
        plots.curves({})


@pytest.mark.parametrize("dof", [1, 2, 128, 512])
def test_chi2_density_is_that_of_squared_gaussian_lengths(dof: int) -> None:
    x = torch.linspace(1e-9, 4 * dof + 60, 400_001, dtype=torch.float64)
    density = plots.chi2_pdf(x, dof)
    if dof > 1:
        assert_close(torch.trapezoid(density, x), torch.tensor(1.0, dtype=x.dtype), rtol=1e-3, atol=0)
        assert_close(torch.trapezoid(x * density, x), torch.tensor(float(dof), dtype=x.dtype), rtol=1e-3, atol=0)
    assert_close(density[1:], torch.from_numpy(stats.chi2.pdf(x[1:].numpy(), dof)))
    assert plots.chi2_pdf(torch.tensor([-1.0, 0.0]), dof).tolist() == [0, 0]


def test_chi2_needs_a_dimension() -> None:
    with pytest.raises(ValueError, match="dof"):
        plots.chi2_pdf(torch.rand(3), 0)


def test_histograms_are_densities_over_the_same_bins() -> None:
    v = torch.randn(5_000, 128, generator=torch.Generator().manual_seed(0))
    norms = {"z": v.square().sum(1), "wide": (1.5 * v).square().sum(1)}
    x = torch.linspace(50, 450, 300)
    figure = plots.histogram(norms, bins=40, reference=(x, plots.chi2_pdf(x, 128), "χ²"), title="T", xlabel="|v|²")
    (ax,) = figure.axes
    outlines = [patch.get_data() for patch in ax.patches if not patch.get_fill()]
    assert len(outlines) == 2
    for values, edges, _ in outlines:
        assert np.array_equal(edges, outlines[0].edges)
        assert np.isclose((values * np.diff(edges)).sum(), 1)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["z", "wide", "χ²"]
    # The density of true Gaussians follows the curve.
    values, edges, _ = outlines[0]
    middle = torch.tensor((edges[1:] + edges[:-1]) / 2)
    assert np.abs(values - plots.chi2_pdf(middle, 128).numpy()).max() < 0.1 * values.max()


def test_histogram_refuses_what_has_none() -> None:
    with pytest.raises(ValueError, match="'a' is empty"):
        plots.histogram({"a": []})
    with pytest.raises(ValueError, match="not finite"):
        plots.histogram({"a": [1.0, float("inf")]})


def test_a_figure_is_opaque_white_and_no_longer_pyplots() -> None:
    with plt.rc_context({"figure.facecolor": "black", "savefig.transparent": False}):
        figure = plots.curves({"a": [1.0, 2.0]})
        assert plt.get_fignums() == []  # pyplot would show it a second time
        file = io.BytesIO()
        figure.savefig(file, format="png")
    corner = Image.open(file).convert("RGBA").getpixel((1, 1))
    assert corner == (255, 255, 255, 255)


def test_style_ends_with_its_context() -> None:
    before = plt.rcParams["figure.dpi"]
    with plots.drawing():
        assert plt.rcParams["figure.dpi"] != before
    assert plt.rcParams["figure.dpi"] == before


def test_a_figure_of_ones_own_is_drawn_in_the_books_style() -> None:
    with plots.drawing(1, 2, height=2, suptitle="T", sharey=True) as (figure, (left, right)):
        left.plot([0, 1], [0, 5])
    assert plt.get_fignums() == []
    assert (figure.get_suptitle(), figure.get_size_inches().tolist()) == ("T", [plots.WIDTH, 2])
    assert right.get_ylim() == left.get_ylim()
    assert left.lines[0].get_color() == plots.COLOURS[0]


def test_numbers_have_a_true_minus():
    assert (plots.number(-1.234), plots.number(torch.tensor(0.5), 1, "+")) == ("−1.23", "+0.5")
    assert plots.interval(torch.tensor([-1.0, 1.0]), 1) == "0.0 [−2.0, 2.0]"  # 1.96 · √2 / √2


def test_a_table_holds_its_cells_as_text():
    shown = plots.table(("name", "PSNR"), ("<pulse>", 17.1), ("bicubic", plots.spread(torch.tensor([1.0, 3.0]))))
    shown = HTMLFormatter()(shown)  # what a notebook does with a cell's last value
    assert "<th>PSNR</th>" in shown
    assert "<td>&lt;pulse&gt;</td><td>17.1</td>" in shown
    assert "2.00 ± 1.41" in shown
    assert plots.table(("a", "b", "c"), (1, 2, 3)).without("b").rows == [[1, 3]]
    with pytest.raises(ValueError, match="3 cells in a row of a table with 2 columns"):
        plots.table(("a", "b"), (1, 2, 3))


@pytest.mark.parametrize(
    "name",
    ["generator", "pulse", "dse", "rls", "landmarks", "progressive", "lsrgan", "camera", "photograph", "parsing"],
)
def test_diagrams_are_drawings_with_words_for_those_who_cannot_see_them(name):
    root = ElementTree.fromstring(plots.diagram(name).data)
    space = "{http://www.w3.org/2000/svg}"
    assert len(root.find(f"{space}desc").text) > 100
    assert root.get("fill") == "currentColor"  # light on a dark page, dark on a light one
    _, _, width, height = map(float, root.get("viewBox").split())
    for box in root.iter(f"{space}rect"):
        x, y, w, h = (float(box.get(side)) for side in ("x", "y", "width", "height"))
        assert 0 <= x <= x + w <= width
        assert 0 <= y <= y + h <= height


def test_an_unknown_diagram_is_told():
    with pytest.raises(ValueError, match="no diagram 'puls': did you mean pulse"):
        plots.diagram("puls")
