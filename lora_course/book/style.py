"""The look of every picture in the book: one palette, one size grid, one way to make a figure.

Legend: a color constant is a plain "#rrggbb" that matplotlib understands; `render.svg` turns it into a CSS
variable, so that light and dark pages give each its own value. TONES: name -> (light, dark, either).
"""

from functools import wraps

import matplotlib
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import Formatter, LogLocator, NullLocator

# name: (on a light page, on a dark page, readable on both where no style sheet is at hand). Hues after Okabe
# and Ito, moved apart in lightness: the nearest pair is ΔE 17 apart for any kind of color blindness.
TONES = {
    "blue": ("#2158c8", "#4c98ff", "#2f7ad6"),
    "orange": ("#c25205", "#e3aa35", "#b86a10"),
    "green": ("#127a55", "#6df0b6", "#1d8560"),
    "red": ("#8a0f2b", "#ee7668", "#d2484f"),
    "purple": ("#451766", "#dfbcff", "#9a5bd0"),
    "gray": ("#747489", "#8890a2", "#777b82"),
}
BLUE, ORANGE, GREEN, RED, PURPLE, GRAY = (light for light, _, _ in TONES.values())
INK, FAINT, PAPER = "#1b1f24", "#d9dce1", "#fefefe"  # text and axes; grid; the page behind the picture
HEAT, DIVERGING = "cividis", "RdBu_r"  # color maps: one-sided, and around zero

_DASHES = {
    BLUE: "-",
    ORANGE: (0, (4.5, 1.6)),
    GREEN: (0, (1, 1.3)),
    RED: (0, (6, 1.5, 1, 1.5)),
    PURPLE: (0, (9, 2)),
    GRAY: (0, (2.2, 1.2)),
}
_MARKERS = dict(zip(_DASHES, "os^DvX", strict=True))

# inches; one panel stands two abreast on a desktop page and alone on a phone with text of 10 to 11 px
SIZES = {"panel": (4.6, 3.4), "square": (4.6, 4.4), "wide": (5.8, 2.8)}
_MARGINS = {"left": 56, "right": 12, "bottom": 37, "top": 26, "between": 50}  # points

STYLE = {
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],  # ships with matplotlib, wider than a browser's: labels never collide
    "font.size": 11,
    "font.weight": "normal",
    "text.color": INK,
    "text.parse_math": False,  # Unicode only: mathematics set as paths could not be read aloud or searched
    "axes.labelsize": 11,
    "axes.labelcolor": INK,
    "axes.titlesize": 11.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.titley": 1.0,  # left to find its height itself, a title costs a quarter of a frame's time
    "axes.facecolor": "none",
    "axes.edgecolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=list(_DASHES), linestyle=list(_DASHES.values())),
    "grid.color": FAINT,
    "grid.linewidth": 0.8,
    "grid.linestyle": "-",
    "xtick.color": INK,
    "xtick.labelsize": 10,
    "xtick.major.size": 0,
    "xtick.minor.size": 0,
    "xtick.major.pad": 5,
    "ytick.color": INK,
    "ytick.labelsize": 10,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "ytick.major.pad": 5,
    "lines.linewidth": 2,
    "lines.markersize": 6,
    "lines.solid_capstyle": "round",
    "lines.dash_capstyle": "butt",
    "patch.linewidth": 0.8,
    "hatch.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "legend.handlelength": 2.6,
    "legend.labelspacing": 0.35,
    "legend.borderaxespad": 0.3,
    "image.cmap": HEAT,
    "image.interpolation": "none",  # one pixel per entry: a resampled heat map weighs twenty times as much
    "figure.facecolor": "none",
    "figure.edgecolor": "none",
}

_DRAWING = (
    "plot scatter bar barh bar_label hist step stairs stem errorbar boxplot fill_between fill_betweenx "
    "axhline axvline axline axhspan axvspan hlines vlines text annotate legend imshow pcolormesh contour "
    "contourf quiver semilogx semilogy loglog twinx twiny secondary_xaxis secondary_yaxis inset_axes table"
).split()


_NO_GRID = {"bar": "x", "barh": "y", "imshow": "both"}  # grid lines that mean nothing there


class _Decades(LogLocator):
    """Powers of the base; 1, 2 and 5 in between where the axis spans less than two decades."""

    def __init__(self, base):
        super().__init__(base)
        self.decimal = base == 10

    def tick_values(self, vmin, vmax):
        low, high = sorted((abs(vmin), abs(vmax)))
        self.set_params(subs=(1, 2, 5) if self.decimal and high < 100 * low else (1,))
        return super().tick_values(vmin, vmax)


class _Powers(Formatter):
    """Labels of a logarithmic axis: plain numbers while they are short, else powers in Unicode (10⁶)."""

    def __call__(self, x, pos=None):
        if x == 0 or 1e-3 <= abs(x) < 1e4:
            return f"{x:g}".replace("-", "\u2212")
        digits, exponent = f"{x:.0e}".split("e")
        power = "10" + str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        return (power if digits == "1" else f"{digits}·{power}").replace("-", "\u2212")


class HouseAxes(Axes):
    r"""Matplotlib's axes, drawing in house style whatever the reader's global settings are."""

    def _label_powers(self, axis, scale):
        if scale == "log":
            axis.set_major_locator(_Decades(getattr(axis.get_transform(), "base", 10)))
            axis.set_minor_locator(NullLocator())  # minor ticks are not shown, and cost a millisecond each
        if scale in ("log", "symlog"):
            axis.set_major_formatter(_Powers())
        elif scale == "linear":
            axis.get_major_locator().set_params(nbins=5)

    def set_xscale(self, value, **kwargs):
        r"""Set the scale of the x axis, with powers written in Unicode."""
        super().set_xscale(value, **kwargs)
        self._label_powers(self.xaxis, value)

    def set_yscale(self, value, **kwargs):
        r"""Set the scale of the y axis, with powers written in Unicode."""
        super().set_yscale(value, **kwargs)
        self._label_powers(self.yaxis, value)


class HouseFigure(Figure):
    r"""Matplotlib's figure, drawing in house style whatever the reader's global settings are."""


def _in_house_style(method, no_grid=None):
    @wraps(method)
    def styled(self, *args, **kwargs):
        with matplotlib.rc_context(STYLE):
            drawn = method(self, *args, **kwargs)
            if no_grid:
                self.grid(False, axis=no_grid)
            return drawn

    return styled


for _verb in _DRAWING:
    if hasattr(Axes, _verb):
        setattr(HouseAxes, _verb, _in_house_style(getattr(Axes, _verb), _NO_GRID.get(_verb)))
for _verb in ("draw", "text", "legend", "suptitle", "supxlabel", "supylabel", "colorbar"):
    setattr(HouseFigure, _verb, _in_house_style(getattr(Figure, _verb)))


def canvas(name="panel", nrows=1, ncols=1, **axes_kw):
    r"""Return a new figure of the house and its axes, `(fig, ax)`; with several axes, an array of them.

    `name` is one of SIZES; `sharex`, `sharey`, `width_ratios` and `height_ratios` are those of
    `Figure.subplots`; every other keyword is a property of each axes (`xlabel="rank r"`, `yscale="log"`).
    Nothing global changes and pyplot never learns of the figure. Each call makes a new figure: clearing and
    reusing one was measured to cost as much (6 ms), and two panels of one picture must not share one.
    Raises ValueError for an unknown size or a count of axes that is not a positive integer.
    """
    if name not in SIZES:
        raise ValueError(f"name={name!r} is no size of the house; choose one of {', '.join(SIZES)}")
    for what, count in (("nrows", nrows), ("ncols", ncols)):
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ValueError(f"{what}={count!r} must be a positive integer")
    shared = ("sharex", "sharey", "width_ratios", "height_ratios")
    grid = {key: axes_kw.pop(key) for key in shared if key in axes_kw}
    width, height = (72 * inches for inches in SIZES[name])
    m = _MARGINS
    across = (width - m["left"] - m["right"] - (ncols - 1) * m["between"]) / ncols
    down = (height - m["bottom"] - m["top"] - (nrows - 1) * m["between"]) / nrows
    with matplotlib.rc_context(STYLE):
        fig = HouseFigure(figsize=SIZES[name])
        axes = fig.subplots(
            nrows,
            ncols,
            **grid,
            subplot_kw={"axes_class": HouseAxes, **axes_kw},
            gridspec_kw={
                "left": m["left"] / width,
                "right": 1 - m["right"] / width,
                "bottom": m["bottom"] / height,
                "top": 1 - m["top"] / height,
                "wspace": m["between"] / max(across, 1),
                "hspace": m["between"] / max(down, 1),
            },
        )
    for ax in fig.axes:  # stays put while a slider changes the width of the numbers beside it
        ax.yaxis.set_label_coords(-(m["left"] - 16) / across, 0.5)
    return fig, axes


def stroke(color, marker=False):
    r"""Return the keywords of a line in one color of the house: always the same dashes (and marker) with it.

    `ax.plot(x, y, **stroke(RED))`: nobody has to tell lines apart by color alone. Raises ValueError for a
    color that is not one of the six.
    """
    if color not in _DASHES:
        raise ValueError(f"color={color!r} is not one of the six line colors: {', '.join(TONES).upper()}")
    line = {"color": color, "linestyle": _DASHES[color]}
    return {**line, "marker": _MARKERS[color]} if marker else line


def ink_on(color):
    r"""Return near-black or near-white, whichever reads better on `color` (words on a heat map)."""
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color))
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return "#020202" if luminance > 0.179 else "#fdfdfd"  # neither is a color that a theme changes
