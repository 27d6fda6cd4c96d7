"""The figures that the chapters share: picture grids, curves, histograms, and tables; and what others are drawn in.

Drawing functions return a `matplotlib.figure.Figure` that pyplot no longer holds: as the last expression of a cell it
is shown once, and it can be saved with ``figure.savefig``. Figures are opaque white with dark text, so they read the
same on a light and on a dark page; colours are Okabe and Ito's, and lines differ in their dashes too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from facesr_lib import images
from facesr_lib.messages import choose
from facesr_lib.tables import Table

if TYPE_CHECKING:
    from IPython.display import HTML
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 2, 1, 2)), (0, (3, 1)), (0, (9, 2)))
STYLE = Path(__file__).with_name("plots.mplstyle")
WIDTH = 7.0  # inches; at 150 dpi a little sharper than the text column is wide

Values = Tensor | np.ndarray | Sequence[float]


@contextmanager
def drawing(
    rows: int = 1, columns: int = 1, height: float = 3.4, width: float = WIDTH, suptitle: str = "", **options: Any
) -> Iterator[tuple[Figure, Any]]:
    """Open a figure to draw in: ``with drawing(1, 2) as (figure, axes): ...``; sizes are in inches.

    ``options`` are those of ``pyplot.subplots``.
    """
    import matplotlib.pyplot as plt

    lines = plt.cycler(color=COLOURS, linestyle=DASHES)
    with plt.style.context([STYLE, {"axes.prop_cycle": lines}]):
        figure, axes = plt.subplots(rows, columns, figsize=(width, height), **options)
        plt.close(figure)  # pyplot would show it a second time at the end of the cell
        if suptitle:
            figure.suptitle(suptitle, x=0.01, ha="left")
        yield figure, axes


def faces(
    rows: Tensor | Mapping[str, Tensor],
    titles: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    columns: int | None = None,
    suptitle: str = "",
) -> Figure:
    """Pictures side by side, each pixel a square; a ``ValueError`` if shapes or titles do not fit, or pixels are NaN.

    Parameters
    ----------
    rows : (N, 3, H, W) or dict of (N, 3, H, W)
        In [0, 1]. A dict gives one row per entry, with its name at the left; the rows may differ in size and number.
    titles
        One per picture, shown above it; for a dict of rows, a dict that names those rows that have titles.
    columns : int, optional
        Pictures per row of a single batch; default: up to eight.
    """
    if isinstance(rows, Mapping) and columns is not None:
        raise ValueError("columns wraps a single batch; a dict of rows has one row per entry.")
    if titles is not None and isinstance(titles, Mapping) != isinstance(rows, Mapping):
        raise ValueError("rows and titles are both dicts, or neither: name the titles as the rows are named.")
    batches = rows if isinstance(rows, Mapping) else {"": rows}
    named = titles if isinstance(titles, Mapping) else {"": titles} if titles is not None else {}
    if unknown := named.keys() - batches.keys():
        raise ValueError(f"titles for {', '.join(unknown)}, but the rows are {', '.join(batches)}")
    table: list[tuple[str, np.ndarray[Any, Any], Sequence[str]]] = []  # the figure's rows: name, pixels, titles
    for name, batch in batches.items():
        pixels, words = images.to_uint8(batch), named.get(name, [""] * len(batch))
        if len(words) != len(pixels):
            what = repr(name) if name else "the batch"
            raise ValueError(f"{what} has {len(pixels)} pictures but {len(words)} titles: give one per picture")
        step = max(1, len(pixels) if isinstance(rows, Mapping) else columns or 8)
        table += [(name, pixels[i : i + step], words[i : i + step]) for i in range(0, len(pixels) or 1, step)]
    most = max((len(pixels) for _, pixels, _ in table), default=0)
    if not most:
        raise ValueError("there is no picture to show")

    side = min(WIDTH / most, 1.8)
    height = 0.35 * bool(suptitle)  # inches, with the titles
    for _, pixels, words in table:
        lines = max((1 + word.count("\n") for word in words if word), default=0)
        height += side * pixels.shape[1] / pixels.shape[2] + 0.18 * lines
    with drawing(len(table), most, height, side * most, suptitle, squeeze=False) as (figure, axes):
        figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.03, wspace=0, hspace=0)
        for line, (name, pixels, words) in zip(axes, table, strict=True):
            for ax in line:
                ax.set(xticks=[], yticks=[])
                ax.spines[:].set_visible(False)
            for ax, picture, word in zip(line, pixels, words, strict=False):
                ax.imshow(picture)
                ax.set_title(word, loc="center", fontsize=9, fontweight="normal", pad=3)
            line[0].set_ylabel(name, rotation=90, fontsize=10)
    return figure


def curves(
    series: Mapping[str, Values],
    x: Values | None = None,
    xlabel: str = "step",
    ylabel: str = "",
    title: str = "",
    logy: bool = False,
) -> Figure:
    """Lines over a common axis: name → values (S,), over ``x`` (S,) or 0, 1, 2, ….

    A ``ValueError`` says that a series and x differ in length, or that there is none.
    """
    if not series:
        raise ValueError("there is no series to draw")
    with drawing() as (figure, ax):
        for name, values in series.items():
            y = _array(values)
            at = np.arange(y.size) if x is None else _array(x)
            if y.ndim != 1 or at.shape != y.shape:
                raise ValueError(f"{name!r} has shape {y.shape} over an x of shape {at.shape}; give (S,) for both")
            ax.plot(at, y, label=name, linewidth=1.8)
        ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
        if logy:
            ax.set_yscale("log")
        if len(series) > 1:
            ax.legend()
    return figure


def histogram(
    values: Mapping[str, Values],
    bins: int | Sequence[float] = 60,
    reference: tuple[Values, Values, str] | None = None,
    title: str = "",
    xlabel: str = "",
) -> Figure:
    """Densities of several samples, name → (M,), over the same bins, and a curve to hold them against.

    ``bins`` is their number over the joint range, or their edges; ``reference`` is x, density and label, such as ``(x,
    chi2_pdf(x, d), "χ²")`` for the squared norms of vectors that should be Gaussian. A ``ValueError`` says that a
    sample is empty or not finite.
    """
    samples = {name: _array(sample).ravel() for name, sample in values.items()}
    for name, sample in samples.items():
        if not sample.size or not np.isfinite(sample).all():
            raise ValueError(f"sample {name!r} is empty or has values that are not finite: it has no histogram")
    edges = np.histogram_bin_edges(np.concatenate(list(samples.values())), bins)
    with drawing() as (figure, ax):
        for i, (name, sample) in enumerate(samples.items()):
            colour, dash = COLOURS[i % len(COLOURS)], DASHES[i % len(DASHES)]
            density, _ = np.histogram(sample, edges, density=True)
            ax.stairs(density, edges, fill=True, color=colour, alpha=0.25)
            ax.stairs(density, edges, color=colour, linestyle=dash, linewidth=1.6, label=name)
        if reference is not None:
            at, curve, label = reference
            ax.plot(_array(at), _array(curve), color="#1f2328", linestyle="-", linewidth=1.6, label=label)
        ax.set(xlabel=xlabel, ylabel="density", title=title)
        ax.legend()
    return figure


def table(columns: Sequence[str], *rows: Sequence[object]) -> Table:
    """Rows of words and numbers, shown as a table in a notebook and on a page; errors as `Table`."""
    return Table(columns, rows)


def diagram(name: str) -> HTML:
    """Show a drawing of how data flows, one of the files in ``diagrams``; its colours follow the page's."""
    from IPython.display import HTML

    drawings = {path.stem: path for path in sorted((Path(__file__).parent / "diagrams").glob("*.svg"))}
    return HTML(drawings[choose(name, drawings, "diagram")].read_text(encoding="utf-8"))


def number(x: float | Tensor, digits: int = 2, sign: str = "") -> str:
    """A number as text, with a true minus; by ``sign`` "+" what is positive is marked, too."""
    return f"{float(x):{sign}.{digits}f}".replace("-", "−")


def spread(x: Tensor, digits: int = 2) -> str:
    """Mean and standard deviation over images, as in "17.08 ± 1.24": (N,) → text."""
    return f"{number(x.mean(), digits)} ± {number(x.std(), digits)}"


def interval(x: Tensor, digits: int = 2, sign: str = "") -> str:
    """Mean over images and its 95 % interval, as in "0.31 [0.22, 0.40]": (N,) → text."""
    around = 1.96 * x.std() / len(x) ** 0.5
    mean, low, high = (number(x.mean() + by, digits, sign) for by in (0, -around, around))
    return f"{mean} [{low}, {high}]"


def chi2_pdf(x: Tensor, dof: int) -> Tensor:
    r"""Density of the squared length of a standard Gaussian vector in ``dof`` dimensions.

    .. math:: p(x) = \frac{x^{d/2 - 1} e^{-x/2}}{2^{d/2} \, \Gamma(d/2)}

    (M,) → (M,), 0 where x is not positive; ``dof`` is d, at least 1.
    """
    if dof < 1:
        raise ValueError(f"dof must be at least 1, got {dof}")
    density = torch.distributions.Chi2(x.new_tensor(dof)).log_prob(x.clamp_min(torch.finfo(x.dtype).tiny)).exp()
    return torch.where(x > 0, density, 0)


def _array(values: Values) -> np.ndarray[Any, Any]:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
