r"""What `make colab` relies on: set-up cells get this checkout for github.com, and the slider cell can fail."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/environments"))

import course  # noqa: E402

rules = course.rules


def head():
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else pytest.skip("this tree is no git checkout")


@pytest.fixture
def without_index(monkeypatch):
    r"""No pip download; and work in progress is no obstacle here."""
    monkeypatch.setattr(course, "INSTALLED", (".git-nothing",))
    run = subprocess.run

    def instead(command, **more):
        return run([sys.executable, "-c", ""] if "download" in command else command, **more)

    monkeypatch.setattr(course.subprocess, "run", instead)


def test_address_and_ref_of_the_set_up_cells_lead_to_this_checkout(tmp_path, without_index):
    commit, env = course.redirected(Path(sys.executable), tmp_path)
    assert commit == head()
    address = f"https://github.com/{rules.repository_of(ROOT)}"
    ref = rules.setup_ref(rules.book_notebooks(ROOT)[0])
    found = subprocess.check_output(["git", "ls-remote", address, ref], env=env, cwd=tmp_path, text=True)
    assert found.split()[0] == commit
    # and pip and everything else have no way out
    assert env["PIP_NO_INDEX"] == "1" and env["https_proxy"] == course.NOWHERE


def test_what_is_not_committed_is_named(tmp_path, monkeypatch):
    head()
    monkeypatch.setattr(course, "git", lambda *command, **more: " M chapters/01_funnel.ipynb")
    with pytest.raises(SystemExit, match="commit first:\n M chapters/01_funnel.ipynb"):
        course.redirected(Path(sys.executable), tmp_path)


def test_slider_cell_comes_last_and_leaves_the_others_alone():
    path = ROOT / "chapters/01_funnel.ipynb"
    before = json.loads(path.read_text("utf8"))
    after = course.with_slider_cell(before)
    assert after["cells"][:-1] == before["cells"] and after["cells"][-1]["id"] == "sliders"
    assert "assert len(pictures) >= 2" in after["cells"][-1]["source"]


PICTURE = """
from lora_course.book import canvas, explore
def draw(r):
    if r == {bad}:
        raise ValueError
    fig, ax = canvas()
    ax.set_title(f"rank {{r}}")
    return fig
shown = explore(draw, alt="A title above an empty picture.", caption="x", r=[1, 2, 4])
{more}
"""


@pytest.mark.parametrize(
    "bad,more,least,said",
    [
        (0, "", 1, None),
        (4, "", 1, "lc-error"),
        (0, "shown.widget.children[1].unobserve_all()", 1, "AssertionError"),
        (0, "", 2, "1 pictures with sliders, but 2 cells make one"),
    ],
    ids=["good", "frame that fails", "slider without effect", "picture that is missing"],
)
def test_slider_cell_finds_what_does_not_follow(bad, more, least, said):
    code = PICTURE.format(bad=bad, more=more) + course.SLIDERS.format(least=least)
    env = {name: value for name, value in os.environ.items() if name != "LORA_COURSE_BOOK_BUILD"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True)
    assert (done.returncode == 0) == (said is None), done.stderr
    assert "1 pictures followed their sliders" in done.stdout if said is None else said in done.stderr
