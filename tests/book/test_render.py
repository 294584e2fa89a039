import base64
import io
import re
from xml.etree import ElementTree

import matplotlib
import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from lora_course.book import render
from lora_course.book.render import svg
from lora_course.book.style import BLUE, FAINT, GREEN, INK, PAPER, RED, TONES, canvas


def picture(slope=2.0, color=BLUE):
    fig, ax = canvas(xlabel="rank r", ylabel="‖ΔW‖²", title="α / r")
    ax.plot([1, 2, 4], [1, slope, 4], color=color, label="kept < full & rest")
    ax.plot([1, 2, 4], [4, 2, 1], "s", color=RED)
    ax.legend()
    return fig


def words(text):
    return ["".join(e.itertext()) for e in ElementTree.fromstring(text).iter("text")]


def test_text_stays_text():
    shown = words(svg(picture()))
    assert {"rank r", "‖ΔW‖²", "α / r", "kept < full & rest", "4.0"} <= set(shown)


def test_the_same_picture_gives_the_same_bytes_each_time_and_from_each_figure():
    fig = picture()
    assert svg(fig) == svg(fig) == svg(picture()) != svg(picture(slope=3))


def test_the_result_is_one_well_formed_svg_element_with_nothing_superfluous():
    text = svg(picture())
    root = ElementTree.fromstring(text)
    assert root.tag == "svg" and text.startswith("<svg ")
    assert not {"metadata", "style", "title", "script"} & {e.tag for e in root.iter()}
    assert not re.search(r"<!--|<\?xml|<!DOCTYPE|xlink|DejaVu|\n|\.\d{3}", text)
    assert "width" not in root.attrib and root.get("viewBox") == "0 0 331.2 244.8"
    assert root.get("role") == "presentation" and root.get("aria-hidden") == "true"


def test_sentinel_colors_become_variables_and_none_is_left():
    fig, ax = canvas()
    for k, (light, _, _) in enumerate(TONES.values()):
        ax.plot([0, 1], [k, k], color=light)
    ax.fill_between([0, 1], 0, 1, color=GREEN, alpha=0.3)
    ax.text(0, 0, "word", color=RED, bbox={"facecolor": PAPER, "edgecolor": INK})
    text = svg(fig)
    for name, (light, _, either) in TONES.items():
        assert f"var(--lc-{name},{either})" in text and light not in text
    assert not any(sentinel in text for sentinel in (INK, FAINT, PAPER, "#000000"))
    assert "opacity:0.3" in text and "fill:var(--lc-paper,transparent)" in text and "var(--lc-faint" in text


def test_a_figure_of_the_readers_own_gets_no_white_sheet_and_keeps_its_state():
    fig = Figure()
    ax = fig.add_subplot()
    ax.plot([0, 1], [0, 1], color="black", label="a")
    ax.legend()
    ax.text(0.5, 0.5, "on something dark", color="white")
    before, drawn_by = dict(matplotlib.rcParams), fig.canvas
    text = svg(fig)
    assert not re.search(r"fill:#ffffff[^>]*/>", text) and "stroke:currentColor" in text
    assert "fill:#ffffff" in text  # the word, which stands on something dark, stays white
    assert fig.patch.get_visible() and ax.patch.get_visible() and fig.canvas is drawn_by
    assert dict(matplotlib.rcParams) == before


def test_every_id_is_referenced_every_reference_resolves_and_other_pictures_have_other_ids():
    seen = []
    for fig in (picture(), picture(3), picture(color=GREEN)):
        text = svg(fig)
        ids = re.findall(r' id="([^"]+)"', text)
        assert ids and len(set(ids)) == len(ids)
        assert set(ids) == set(re.findall(r'(?:url\(|href=")#([^")]+)', text))
        seen += ids
    assert len(set(seen)) == len(seen)


def test_a_picture_can_be_read_as_data():
    fig, ax = canvas()
    ax.set(xlim=(0, 10), ylim=(0, 10))
    (line,) = ax.plot([0, 5], [0, 10])
    line.set_gid("lc-error")
    root = ElementTree.fromstring(svg(fig))
    (group,) = [e for e in root.iter() if e.get("data-lc") == "error"]
    x0, y0, x1, y1 = map(float, re.findall(r"[\d.]+", group.find("path").get("d")))
    box = ax.get_position()
    width, height = fig.get_size_inches() * 72
    assert np.allclose([x0, height - y0], [box.x0 * width, box.y0 * height], atol=0.02)
    assert np.allclose([x1, height - y1], [(box.x0 + box.width / 2) * width, box.y1 * height], atol=0.02)


def test_a_heat_map_keeps_one_pixel_per_entry():
    fig, ax = canvas("square")
    ax.imshow(np.arange(6.0).reshape(2, 3))
    image = next(ElementTree.fromstring(svg(fig)).iter("image"))
    assert "image-rendering:pixelated" in image.get("style")
    data = base64.b64decode(image.get("href").partition(",")[2])
    assert matplotlib.image.imread(io.BytesIO(data)).shape[:2] == (2, 3)


def test_older_matplotlib_writes_fonts_as_shorthand_and_that_is_understood():
    style = "font: italic 700 10px 'DejaVu Sans', 'Arial', sans-serif; text-anchor: middle"
    assert render._declarations(style, "text") == "font-size:10px;font-style:italic;font-weight:700;text-anchor:middle"
    assert "font-family:ui-monospace" in render._declarations("font: 10px 'DejaVu Sans Mono', monospace", "text")
    assert render._declarations("font-size: 10px; font-family: 'DejaVu Sans', sans-serif", "text") == "font-size:10px"


def test_numbers_inside_words_are_not_shortened():
    fig, ax = canvas(title="π = 3.14159265")
    ax.text(0.5, 0.5, "0.123456\nsecond line")
    assert {"π = 3.14159265", "0.123456", "second line"} <= set(words(svg(fig)))


@pytest.mark.parametrize("wrong", [None, "figure", canvas])
def test_what_is_no_figure_is_refused(wrong):
    with pytest.raises(TypeError, match="fig=.*Figure"):
        svg(wrong)
