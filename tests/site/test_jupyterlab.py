r"""In JupyterLab with a live kernel the sliders call Python: real server, real kernel, real browser."""

import contextlib
import json
import os
import subprocess
import sys
import time

import pytest
from playwright.sync_api import TimeoutError

CELLS = {
    "draw": """
from lora_course.book import canvas, explore

def draw(r, alpha):
    fig, ax = canvas()
    ax.plot([0, 1], [0, alpha / r])
    ax.set_title(f"Python computed {1000 * alpha // r}")
    return fig
""",
    "differs": "from lora_course.book import observed\nobserved('most are right', 'share > 0.7', share=1 / 2)",
    "show": "explore(draw, alt=lambda r, alpha: f'A line of slope {alpha / r:g}.', caption='x', "
    "r=[1, 2, 4, 8], alpha=[8, 16])",
}
MINUTES = 2 * 60 * 1000  # ms; a machine that does other things as well


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    r"""Address of a running JupyterLab whose folder holds one notebook, sliders.ipynb."""
    pytest.importorskip("jupyterlab")
    home = tmp_path_factory.mktemp("lab")
    cells = [
        {"cell_type": "code", "id": id, "metadata": {}, "execution_count": None, "outputs": [], "source": text.strip()}
        for id, text in CELLS.items()
    ]
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    notebook = {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    (home / "work").mkdir()
    (home / "work/sliders.ipynb").write_text(json.dumps(notebook))
    # nothing of the user's: neither settings nor open tabs
    own = {f"JUPYTER_{name}_DIR": str(home / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    own |= {f"JUPYTERLAB_{name}_DIR": str(home / name.lower()) for name in ("SETTINGS", "WORKSPACES")}
    env = os.environ | own | {"IPYTHONDIR": str(home / "ipython"), "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    env.pop("LORA_COURSE_BOOK_BUILD", None)  # a page of the book would be drawn instead of live sliders
    env.pop("LORA_COURSE_STRICT", None)  # a reader's notebook goes on
    options = [
        "--no-browser",
        "--allow-root",
        "--ip=127.0.0.1",
        "--port=0",
        "--IdentityProvider.token=",
        "--expose-app-in-browser",
    ]
    options += ["--LabApp.news_url=", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    with (home / "log").open("wb") as log:
        command = [sys.executable, "-m", "jupyterlab", *options, f"--ServerApp.root_dir={home / 'work'}"]
        server = subprocess.Popen(command, env=env, cwd=home / "work", stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 120
        while not (found := list((home / "runtime").glob("jpserver-*.json"))):
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"JupyterLab did not start:\n{(home / 'log').read_text()}", pytrace=False)
            time.sleep(0.2)
        yield json.loads(found[0].read_text())["url"]
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture
def notebook(lab, browser):
    r"""The notebook, open in the browser, all cells run."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(MINUTES)
    page.goto(f"{lab}lab/tree/sliders.ipynb?reset")
    page.locator(".jp-Notebook .jp-CodeCell").nth(len(CELLS) - 1).wait_for()
    # with no kernel, "Run All" does nothing or asks in a dialog for one: then take what it offers
    page.add_locator_handler(page.locator(".jp-Dialog"), lambda dialog: dialog.locator(".jp-mod-accept").click())
    # the circle beside the kernel's name says idle before there is a kernel; the status bar does not
    page.locator("#jp-main-statusbar").get_by_text("| Idle").wait_for()
    picture = page.locator(".lc-explore .lc-stage svg")
    for _ in range(4):  # as a user would, should nothing happen
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        with contextlib.suppress(TimeoutError):
            picture.wait_for(timeout=MINUTES / 4)
            break
    picture.wait_for(timeout=1000)
    yield page
    context.close()


def test_sliders_call_python(notebook):
    title = notebook.locator(".lc-explore svg text", has_text="Python computed")
    handles = notebook.locator(".jp-OutputArea-output .noUi-handle, .jp-OutputArea-output input[type=range]")
    assert title.inner_html() == "Python computed 4000"  # r = 4, α = 16
    assert handles.count() == 2
    # the other pictures do not exist yet: no kernel, no picture
    assert "Python computed 2000" not in notebook.content()

    handles.first.press("ArrowRight")
    notebook.locator(".lc-explore svg text", has_text="Python computed 2000").wait_for()
    stage = notebook.locator(".lc-explore .lc-stage")
    assert stage.get_attribute("aria-label") == "A line of slope 2."
    assert notebook.locator(".lc-say").inner_text() == "A line of slope 2."
    assert title.count() == 1

    handles.nth(1).press("ArrowLeft")
    notebook.locator(".lc-explore svg text", has_text="Python computed 1000").wait_for()

    notebook.get_by_role("button", name="Reset").click()
    notebook.locator(".lc-explore svg text", has_text="Python computed 4000").wait_for()
    assert notebook.locator(".lc-error").count() == 0


def test_a_result_that_differs_is_a_box_and_stops_nothing(notebook):
    box = notebook.locator(".jp-OutputArea-output .lc-differs")
    assert box.count() == 1 and box.is_visible()  # and the sliders of the cell below it are there
    assert "share = 0.500, instead of share > 0.7" in box.inner_text()
