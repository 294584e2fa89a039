import html
import itertools
import json
import re

import numpy as np
import pytest

from lora_course.book.explore import explore
from lora_course.book.render import svg
from lora_course.book.style import canvas

R, ALPHA = [1, 2, 8], [4, 16]
CAPTION = "The scaling of the branch."


def draw(r, alpha):
    fig, ax = canvas(title=f"scaling {alpha / r:g}")
    ax.plot([0, 1], [0, alpha / r])
    ax.set_ylim(0, 16)
    return fig


def words(r, alpha):
    return f"The branch is scaled by {alpha / r:g}, at r < 9 & more."


def make(draw=draw, alt=words, caption=CAPTION, **kw):
    return explore(draw, alt=alt, caption=caption, **({"r": R, "alpha": ALPHA} | kw))


@pytest.fixture(autouse=True)
def live(monkeypatch):
    monkeypatch.delenv("LORA_COURSE_BOOK_BUILD", raising=False)


@pytest.fixture
def build(monkeypatch):
    monkeypatch.setenv("LORA_COURSE_BOOK_BUILD", "1")


def payload(block):
    return json.loads(re.search(r'class="lc-frames">(.*?)</script>', block, re.S)[1])


# ---------------------------------------------------------------------------------------------- frames


def test_every_frame_is_what_draw_gives_at_its_point_in_row_major_order():
    data = payload(make().html())
    points = list(itertools.product(R, ALPHA))
    assert data["frames"] == [svg(draw(r, alpha)) for r, alpha in points]
    assert data["say"] == [words(r, alpha) for r, alpha in points]


def test_neighbors_differ_along_each_axis():
    frames = np.array(payload(make().html())["frames"]).reshape(len(R), len(ALPHA))
    assert (frames[1:] != frames[:-1]).all() and (frames[:, 1:] != frames[:, :-1]).all()


def test_frame_fills_in_the_start_and_takes_equal_numbers_of_any_type():
    e = make(start={"r": 8})
    assert e.frame() == e.frame(r=8, alpha=16) == e.frame(r=np.int64(8)) == svg(draw(8, 16))
    assert e.words(alpha=4) == words(8, 4)
    assert list(e.grid()) == [{"r": r, "alpha": alpha} for r, alpha in itertools.product(R, ALPHA)]


def test_panels_of_one_draw_are_separate_pictures():
    e = make(lambda r, alpha: [draw(r, alpha), draw(2 * r, alpha)])
    assert e.frame(r=1, alpha=4) == svg(draw(1, 4)) + svg(draw(2, 4))


def test_each_point_is_drawn_once_and_live_only_when_it_is_looked_at():
    seen = []

    def counted(r, alpha):
        seen.append((r, alpha))
        return draw(r, alpha)

    e = make(counted)
    assert seen == [(2, 16)]
    e.frame(r=2, alpha=16), e.html(), e.html()
    assert sorted(seen) == sorted(itertools.product(R, ALPHA))


def test_values_arrive_in_draw_as_plain_python_numbers():
    types = set()

    def typed(r, q):
        types.update((type(r), type(q)))
        return draw(r, q)

    explore(typed, alt="A line rises to the scaling.", caption=CAPTION, r=np.array([1, 2]), q=np.linspace(0, 1, 3))
    assert types == {int, float}


# ---------------------------------------------------------------------------------------------- the page


def test_the_block_shows_the_start_without_javascript_and_hides_the_controls():
    block = make(start={"r": 8, "alpha": 4}).html()
    outside = re.sub(r"<script.*?</script>", "", block, flags=re.S)
    stage = re.search(r'<div class="lc-stage" role="img" aria-label="([^"]*)">(.*?)</div>', outside)
    assert html.unescape(stage[1]) == words(8, 4) and stage[2] == svg(draw(8, 4))
    assert re.search(r'<div class="lc-controls"[^>]* hidden>', outside)
    assert "needs JavaScript" not in re.sub("<noscript>.*?</noscript>", "", outside)
    assert "need JavaScript; it stands at rank r = 8, α = 4." in outside
    assert html.escape(words(8, 4), quote=False) in re.search(r'aria-live="polite"[^>]*>(.*?)</p>', outside)[1]
    assert f"<figcaption>{CAPTION}</figcaption>" in outside


def test_each_slider_is_labelled_with_its_symbol_and_value():
    block = make(start={"r": 8}, labels={"alpha": "strength α"}).html()
    for name, label, values, at in (("r", "rank r", R, 2), ("alpha", "strength α", ALPHA, 1)):
        (tag,) = re.findall(rf'<input [^>]*data-axis="{name}"[^>]*>', block)
        attribute = dict((k, html.unescape(v)) for k, v in re.findall(r'([\w-]+)="([^"]*)"', tag))
        assert attribute["type"] == "range" and attribute["max"] == str(len(values) - 1)
        assert json.loads(attribute["data-values"]) == values and attribute["value"] == str(at)
        assert attribute["aria-valuetext"] == f"{label} = {values[at]}"
        assert f'<label for="{attribute["id"]}">{label}</label>' in block


def test_text_from_authors_cannot_end_the_script_or_become_markup():
    nasty = "Ends </script><script>alert(1)</script> and <!-- this."
    block = make(alt=lambda r, alpha: nasty, caption="<b>bold</b>", labels={"r": '"><i>'}).html()
    assert payload(block)["say"] == [nasty] * 6
    assert block.count("<script") == block.count("</script>") == 1
    assert "<b>" not in block and "<i>" not in block and "<!--" not in block


def test_two_explores_do_not_share_ids_and_a_block_is_the_same_each_time():
    one, other = make(), make(lambda r, alpha: draw(r, alpha + 1))
    twin = make()
    ids = [set(re.findall(r' id="(explore[^"]*)"', e.html())) for e in (one, other, twin)]
    assert all(len(i) == 3 for i in ids) and len(set.union(*ids)) == 9
    inner = [set(re.findall(r' id=\\?"(lc[^"\\]*)', e.html())) for e in (one, other)]
    assert inner[0] and not inner[0] & inner[1]
    assert one.html() == one.html()
    assert one.html().replace(one.id, "x") == twin.html().replace(twin.id, "x")


def test_a_plain_alt_is_read_with_the_values():
    e = make(alt="A line rises to the scaling.")
    assert e.words(r=1) == "At rank r = 1, α = 16: A line rises to the scaling."


def test_fractions_and_words_can_be_axes():
    e = explore(
        lambda eps, kind: draw(1 + eps, len(kind)),
        alt="A line rises to the scaling.",
        caption=CAPTION,
        eps=[1e-5, 0.1, 0.1 + 0.2],
        kind=["random", "trained"],
        labels={"eps": "ε"},
    )
    assert e.words(eps=0.1 + 0.2).startswith("At ε = 0.3, kind = trained")
    assert "&quot;random&quot;" in e.html()


# ---------------------------------------------------------------------------------------------- building


def fails_at_8(r, alpha):
    if (r, alpha) == (8, 4):
        raise ZeroDivisionError("no <such> scaling")
    return draw(r, alpha)


def test_a_build_draws_everything_and_names_the_point_that_fails(build):
    with pytest.raises(RuntimeError, match=r"draw failed at r = 8, alpha = 4: ZeroDivisionError: no <such>") as info:
        make(fails_at_8)
    assert "raise ZeroDivisionError" in str(info.value)  # the reader's own line
    assert isinstance(info.value.__cause__, ZeroDivisionError)


def test_a_build_names_the_point_where_words_fail_or_are_missing(build):
    with pytest.raises(RuntimeError, match="alt failed at r = 1, alpha = 4: ValueError: what alt returns=''"):
        make(alt=lambda r, alpha: "")


def test_after_a_failure_the_next_explore_is_clean():
    def spoils(r, alpha):
        fig, ax = canvas()
        ax.plot([0, 1], [5, 5], label="left over")
        raise KeyError("gone")

    with pytest.raises(RuntimeError, match="KeyError"):
        make(spoils)
    assert make().frame() == svg(draw(2, 16))


@pytest.mark.parametrize("returned", [None, [], "svg", [None]])
def test_draw_must_return_figures(returned):
    with pytest.raises(RuntimeError, match="r = 2, alpha = 16: TypeError: what draw returns must be"):
        make(lambda r, alpha: returned)


def displayed(e, monkeypatch):
    import IPython.display

    shown = []
    monkeypatch.setattr(IPython.display, "display", lambda what, raw=False: shown.append((what, raw)))
    e._ipython_display_()
    return shown


def test_the_environment_decides_what_is_displayed(monkeypatch):
    e = make()
    assert displayed(e, monkeypatch) == [(e.widget, False)]
    monkeypatch.setenv("LORA_COURSE_BOOK_BUILD", "1")
    assert displayed(e, monkeypatch) == [({"text/html": e.html(), "text/plain": repr(e)}, True)]


def test_in_text_an_explore_is_short_and_always_the_same():
    def short(r, alpha):
        return draw(r, alpha)

    assert repr(make(short)) == "<explore short: r in [1, 2, 8], alpha in [4, 16]; starts at r = 2, alpha = 16>"


# ---------------------------------------------------------------------------------------------- live


def parts(e):
    picture, *sliders, button = e.widget.children
    return picture, sliders, button


def test_live_sliders_show_the_frame_and_words_of_their_values():
    e = make()
    picture, (r, alpha), _ = parts(e)
    assert (r.description, alpha.description) == ("rank r", "α")
    for r.value, alpha.value in itertools.product(R, ALPHA):
        assert svg(draw(r.value, alpha.value)) in picture.value
        assert html.escape(words(r.value, alpha.value), quote=False) in picture.value
    assert "--lc-blue" in picture.value and CAPTION in picture.value


def test_reset_returns_to_the_start():
    e = make(start={"r": 1, "alpha": 4})
    picture, (r, alpha), button = parts(e)
    before = picture.value
    r.value, alpha.value = 8, 16
    assert picture.value != before
    button.click()
    assert (r.value, alpha.value) == (1, 4) and picture.value == before


def test_an_exception_at_a_moved_slider_is_shown_and_the_widget_lives_on():
    picture, (r, alpha), button = parts(make(fails_at_8))
    r.value, alpha.value = 8, 4
    assert "draw failed at r = 8, alpha = 4: ZeroDivisionError: no &lt;such&gt; scaling" in picture.value
    assert "<svg" not in picture.value
    r.value = 1
    assert svg(draw(1, 4)) in picture.value


def test_an_exception_of_the_first_picture_is_raised_in_the_cell():
    with pytest.raises(RuntimeError, match="r = 8, alpha = 4"):
        make(fails_at_8, start={"r": 8, "alpha": 4})


# ---------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "kw, error, says",
    [
        ({"draw": None}, TypeError, "draw=None must be a function"),
        ({"draw": lambda r: None}, TypeError, "draw must take the axes r, alpha.*alpha"),
        ({"r": []}, ValueError, "r=.*at least one"),
        ({"r": 8}, TypeError, "r=8 must be a list"),
        ({"r": "12"}, TypeError, "r='12' must be a list"),
        ({"r": [2, 1]}, ValueError, "r=.*increase"),
        ({"r": [1, 1]}, ValueError, "r=.*increase"),
        ({"r": ["a", "a"]}, ValueError, "r=.*twice"),
        ({"r": [1, "a"]}, TypeError, "r=.*'a' is neither"),
        ({"r": [1, float("nan")]}, TypeError, "r=.*nan is neither"),
        ({"r": [False, True]}, TypeError, "r=.*False is neither"),
        ({"r": range(33)}, ValueError, r"33 \(r\) × 2 \(alpha\) make 66 frames, more than 64"),
        ({"start": {"r": 3}}, ValueError, r"start: r=3 is not on the grid \[1, 2, 8\]"),
        ({"start": {"d": 3}}, ValueError, "start names 'd', but the axes are r, alpha"),
        ({"labels": {"d": "width d"}}, ValueError, "labels names 'd'"),
        ({"alt": ""}, ValueError, "alt='' must be a sentence"),
        ({"alt": None}, ValueError, "alt=None must be a sentence"),
        ({"caption": " "}, ValueError, "caption=' ' must be text"),
    ],
)
def test_a_wrong_argument_is_refused_by_name(kw, error, says):
    with pytest.raises(error, match=says):
        make(**kw)


def test_alt_and_caption_cannot_be_left_out_and_an_axis_is_needed():
    with pytest.raises(TypeError, match="alt"):
        explore(draw, caption=CAPTION, r=R, alpha=ALPHA)
    with pytest.raises(TypeError, match="caption"):
        explore(draw, alt=words, r=R, alpha=ALPHA)
    with pytest.raises(ValueError, match="at least one axis"):
        explore(draw, alt=words, caption=CAPTION)


def test_frames_off_the_grid_are_refused():
    with pytest.raises(ValueError, match="frame: r=3 is not on the grid"):
        make().frame(r=3)
