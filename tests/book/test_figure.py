import re

import pytest
from matplotlib.figure import Figure

from lora_course.book.figure import figure
from lora_course.book.style import canvas

ALT = "One straight line rises from 1 to 2."


def line(height=2):
    fig, ax = canvas()
    ax.plot([0, 1], [1, height])
    return fig


@pytest.fixture(params=[False, True], ids=["live", "build"])
def build(request, monkeypatch):
    monkeypatch.delenv("LORA_COURSE_BOOK_BUILD", raising=False)
    if request.param:
        monkeypatch.setenv("LORA_COURSE_BOOK_BUILD", "1")
    return request.param


def test_a_figure_is_a_labelled_stage_with_its_caption(build):
    html = figure(line(), alt=ALT, caption="Rank < error & more.")._repr_html_()
    assert html.startswith('<figure class="lc-figure">' if build else "<style>")
    assert f'<div class="lc-stage" role="img" aria-label="{ALT}"><svg' in html
    assert "<figcaption>Rank &lt; error &amp; more.</figcaption>" in html


def test_alt_text_cannot_break_out_of_its_attribute():
    assert 'aria-label="A &quot;line&quot; &lt;rises&gt; here."' in figure(line(), alt='A "line" <rises> here.').html


def test_panels_stand_in_their_order():
    html = figure([line(2), line(3)], alt=ALT).html
    alone = [figure(line(h), alt=ALT).html for h in (2, 3)]
    assert re.findall("<svg.*?</svg>", html) == [re.search("<svg.*?</svg>", h)[0] for h in alone]
    assert "figcaption" not in html


def test_a_figure_is_drawn_at_once():
    fig = line()
    shown = figure(fig, alt=ALT)
    before = shown._repr_html_()
    fig.axes[0].set_title("too late")
    assert shown._repr_html_() == before


def test_pyplot_forgets_a_figure_that_we_show(monkeypatch):
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    fig = plt.figure()
    figure(fig, alt=ALT)
    assert fig.number not in plt.get_fignums()


def test_in_text_a_figure_is_its_sentence():
    assert repr(figure(line(), alt=ALT)) == f"<figure: {ALT}>"


@pytest.mark.parametrize("alt", ["", "short.", "a long line without its period", None, 7])
def test_alt_must_be_a_sentence(alt):
    with pytest.raises(ValueError, match="alt=.*sentence"):
        figure(line(), alt=alt)


@pytest.mark.parametrize("caption", ["", "  ", 3])
def test_a_caption_is_text_or_absent(caption):
    with pytest.raises(ValueError, match="caption="):
        figure(line(), alt=ALT, caption=caption)


@pytest.mark.parametrize("wrong", [None, [], [None], "fig", canvas])
def test_only_figures_are_shown(wrong):
    with pytest.raises(TypeError, match="fig_or_figs must be a matplotlib Figure"):
        figure(wrong, alt=ALT)


def test_one_figure_cannot_be_two_panels():
    fig = Figure()
    with pytest.raises(TypeError, match="same Figure twice"):
        figure([fig, fig], alt=ALT)
