r"""Every slider follows mouse, keyboard, touch and reset, tells what it shows, and moves no other figure."""

import re

import pytest

from tests.site.sliders import Sliders

THUMB = 11  # px, half of the thumb


@pytest.fixture
def figures(explore_page, explores, visitor):
    r"""`figures()`: the sliders of the open page, each with what it drew, all at their start; `by_hand` on a phone."""

    def opened(by_hand=False):
        page = (visitor.by_hand if by_hand else visitor.kept)(explore_page).page
        return [(Sliders(page, own_id), drawn) for own_id, drawn in explores(explore_page).items()]

    return opened


def spot(slider, position):
    r"""Where on the screen the thumb stands at a position."""
    slider.evaluate("e => e.scrollIntoView({block: 'center', behavior: 'instant'})")
    box, last = slider.bounding_box(), int(slider.get_attribute("max"))
    way = (box["width"] - 2 * THUMB) * position / max(last, 1)
    return box["x"] + THUMB + way, box["y"] + box["height"] / 2


def places(sliders, drawn):
    r"""Each slider with its axis, the position of its start and its last one, all others being at their start."""
    for axis, values in drawn.axes.items():
        yield axis, sliders.slider(axis), values.index(drawn.start[axis]), len(values) - 1
        sliders.put({axis: values.index(drawn.start[axis])})


def stands(sliders, drawn, axis, position):
    r"""Whether slider and picture stand at a position, the other sliders being at their start."""
    number = drawn.number(**{axis: drawn.axes[axis][position]})
    return sliders.position(axis) == position and sliders.shows(number)


def test_mouse_drags_the_thumb_to_the_other_end(figures):
    for sliders, drawn in figures():
        mouse = sliders.page.mouse
        for axis, slider, start, last in places(sliders, drawn):
            goal = 0 if start > last / 2 else last
            mouse.move(*spot(slider, start))
            mouse.down()
            mouse.move(*spot(slider, goal), steps=3)
            mouse.up()
            assert stands(sliders, drawn, axis, goal)


def test_arrows_home_and_end_move_the_picture(figures):
    for sliders, drawn in figures():
        for axis, slider, _, last in places(sliders, drawn):
            steps = [("Home", 0), ("ArrowLeft", 0), ("ArrowRight", 1), ("ArrowLeft", 0), ("ArrowUp", 1)]
            steps += [("End", last), ("ArrowRight", last), ("ArrowDown", last - 1)]
            slider.focus()
            for key, goal in steps:
                sliders.page.keyboard.press(key)
                assert stands(sliders, drawn, axis, goal), key


def test_touch_moves_the_picture_on_a_phone(figures):
    for sliders, drawn in figures(by_hand=True):
        for axis, slider, start, last in places(sliders, drawn):
            for goal in (0 if start > last / 2 else last, start):
                sliders.page.touchscreen.tap(*spot(slider, goal))
                assert stands(sliders, drawn, axis, goal)


def test_touch_targets_are_wide_enough_for_a_finger(figures):
    for sliders, drawn in figures(by_hand=True):
        for control in [*map(sliders.slider, drawn.axes), sliders.root.locator(".lc-reset")]:
            box = control.bounding_box()
            assert box["height"] >= 24 and box["width"] >= 24  # WCAG 2.2, 2.5.8 (AA)


@pytest.mark.parametrize("by", ["mouse", "keyboard"])
def test_reset_brings_the_default_frame_back(by, figures):
    for sliders, drawn in figures():
        sliders.put({axis: 0 for axis in drawn.axes})
        assert not sliders.shows(drawn.number())
        reset = sliders.root.locator(".lc-reset")
        reset.click() if by == "mouse" else reset.press("Enter")
        assert all(stands(sliders, drawn, axis, start) for axis, _, start, _ in places(sliders, drawn))


def test_slider_has_its_symbol_as_its_name(figures):
    for sliders, drawn in figures():
        for axis, label in drawn.labels.items():
            slider = sliders.root.get_by_role("slider", name=re.compile(rf"^{re.escape(label)}( =)?$"))
            assert slider.count() == 1 and slider.get_attribute("data-axis") == axis


def test_sentence_below_follows_when_the_slider_rests(figures):
    for sliders, drawn in figures():
        live = sliders.root.locator("[aria-live=polite]")
        for axis, _, start, last in places(sliders, drawn):
            before, position = live.text_content(), 0 if start > last / 2 else last
            sliders.put({axis: position})
            words = drawn.words[drawn.number(**{axis: drawn.axes[axis][position]})]
            wanted = [live.element_handle(), words]
            sliders.page.wait_for_function("([e, words]) => e.textContent === words", arg=wanted)
            assert words != before


def test_figures_on_one_page_are_independent(figures):
    opened = figures()
    starts = [sliders.frame() for sliders, _ in opened]
    for number, (sliders, drawn) in enumerate(opened):
        sliders.put({axis: 0 for axis in drawn.axes})
        changed = [still.frame() != start for (still, _), start in zip(opened, starts, strict=True)]
        assert changed == [other == number for other in range(len(opened))]
        sliders.root.locator(".lc-reset").click()
