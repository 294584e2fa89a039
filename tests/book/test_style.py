import itertools
import re

import matplotlib
import numpy as np
import pytest

from lora_course.book import style
from lora_course.book.sheet import STATIC
from lora_course.book.style import BLUE, GRAY, INK, RED, SIZES, TONES, canvas, ink_on, stroke

LIGHT_PAGES, DARK_PAGES = ["#ffffff"], ["#121212", "#1e1e1e"]  # the book's; Colab's and VS Code's dark
# sRGB (linear) as seen without one kind of cone: Machado, Oliveira, Fernandes (2009), severity 1
EYES = {
    "all cones": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.01182, 0.04294, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.3039],
    ],
}


def linear(color):
    c = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    low, high = sorted(linear(c) @ [0.2126, 0.7152, 0.0722] + 0.05 for c in (one, other))
    return high / low


def lab(rgb):
    to_xyz = [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.072175],
        [0.0193339, 0.119192, 0.9503041],
    ]
    x, y, z = (np.array(to_xyz) @ np.clip(rgb, 0, 1)) / [0.95047, 1, 1.08883]
    f = [np.cbrt(v) if v > 0.008856 else 7.787 * v + 16 / 116 for v in (x, y, z)]
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def css_colors():
    """(light, dark): the variables as the style sheet defines them."""
    css = (STATIC / "lora_course.css").read_text(encoding="utf-8")
    light, dark = (re.search(rf"{re.escape(start)}.*?\}}", css, re.S)[0] for start in (":root {", "html[data-theme="))
    return [dict(re.findall(r"--lc-(\w+): (#\w{6});", block)) for block in (light, dark)]


def test_the_style_sheet_and_the_palette_agree():
    light, dark = css_colors()
    for name, (on_light, on_dark, _) in TONES.items():
        assert (light[name], dark[name]) == (on_light, on_dark)


@pytest.mark.parametrize("theme, pages", [(0, LIGHT_PAGES), (1, DARK_PAGES)])
def test_every_line_and_every_word_has_a_contrast_of_4_5_on_its_page(theme, pages):
    colors = css_colors()[theme]
    for name, page in itertools.product([*TONES, "quiet"], pages):
        assert contrast(colors[name], page) >= 4.5, (name, page)
    assert all(contrast(colors["rule"], page) >= 3 for page in pages)  # the slider's track, WCAG 1.4.11


def test_without_a_style_sheet_colors_are_readable_on_white_and_on_black_alike():
    # no color can have 4.5 on both #ffffff and #121212 (at most 4.3); WCAG asks 3 of graphics
    for _, _, either in TONES.values():
        assert contrast(either, "#ffffff") >= 4 and contrast(either, "#121212") >= 4


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("eye", EYES)
def test_any_two_colors_differ_for_every_kind_of_eye(theme, eye):
    seen = [lab(np.array(EYES[eye]) @ linear(tones[theme])) for tones in TONES.values()]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 17


def test_no_two_colors_share_dashes_or_marker_so_that_color_is_never_alone():
    strokes = [stroke(light, marker=True) for light, _, _ in TONES.values()]
    assert len({str(s["linestyle"]) for s in strokes}) == len({s["marker"] for s in strokes}) == 6
    fig, ax = canvas()
    lines = [ax.plot([0, 1], [0, k])[0] for k in range(6)]
    assert len({(line.get_color(), str(line._dash_pattern)) for line in lines}) == 6
    with pytest.raises(ValueError, match="#123456.*BLUE"):
        stroke("#123456")


@pytest.mark.parametrize("name", SIZES)
def test_a_canvas_has_its_size_and_changes_nothing_global(name):
    before = dict(matplotlib.rcParams)
    fig, ax = canvas(name, xlabel="rank r", yscale="log", title="error")
    ax.plot([1, 2], [1, 10])
    assert tuple(fig.get_size_inches()) == SIZES[name]
    assert ax.get_xlabel() == "rank r" and ax.get_yscale() == "log"
    assert dict(matplotlib.rcParams) == before
    assert "matplotlib.pyplot" not in type(fig.canvas).__module__


def test_the_house_style_holds_whatever_the_reader_has_set():
    def look():
        fig, ax = canvas()
        (line,) = ax.plot([0, 1], [1, 2], label="a")
        text = ax.text(0, 1, "x")
        return (
            line.get_linewidth(),
            line.get_color(),
            text.get_size(),
            text.get_color(),
            ax.get_title(loc="left"),
        )

    plain = look()
    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 30, "text.color": "red"}):
        assert look() == plain == (2, BLUE, 11, INK, "")


def test_two_canvases_are_two_figures_and_one_that_failed_leaves_nothing_behind():
    one, ax = canvas()
    ax.plot([0, 1], [0, 1])
    with pytest.raises(ValueError):
        ax.plot([1, 2], [1, 2, 3])
    other, clean = canvas()
    assert one is not other and not clean.lines


def test_several_axes_come_as_an_array_and_may_share_a_scale():
    fig, axes = canvas("wide", ncols=2, sharey=True)
    axes[0].plot([0, 1], [0, 7])
    assert axes.shape == (2,) and axes[0].get_ylim() == axes[1].get_ylim()


@pytest.mark.parametrize("wrong", [{"name": "huge"}, {"nrows": 0}, {"ncols": 1.5}, {"ncols": True}])
def test_a_wrong_canvas_is_refused_by_name(wrong):
    ((argument, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"{argument}={re.escape(repr(value))}"):
        canvas(**wrong)


@pytest.mark.parametrize(
    "low, high, base, shown",
    [
        (1, 1e8, 10, {"1", "10⁶"}),
        (1e-8, 1e-5, 10, {"10⁻⁶"}),
        (1, 64, 2, {"1", "2", "64"}),
        (0.2, 0.9, 10, {"0.2", "0.5"}),
        (2e5, 9e5, 10, {"5·10⁵"}),
    ],
)
def test_powers_are_written_in_unicode_and_never_as_tex(low, high, base, shown):
    fig, ax = canvas()
    ax.set_yscale("log", base=base)
    ax.set_ylim(low, high)
    fig.draw_without_rendering()
    labels = {t.get_text() for t in ax.get_yticklabels()}
    assert shown <= labels and not any("$" in t for t in labels)


def test_a_dollar_sign_is_a_dollar_sign():
    fig, ax = canvas(title="$1 and $2")
    assert not ax.title.get_parse_math() and not ax.text(0, 0, "$x$").get_parse_math()


def test_text_on_a_heat_map_is_readable_on_any_cell():
    for color in [*matplotlib.colormaps[style.HEAT]([0.0, 0.3, 0.5, 0.7, 1.0]), "white", "black", RED, GRAY]:
        color = matplotlib.colors.to_hex(color)
        assert contrast(ink_on(color), color) >= 4.5
