"""The notebooks as a reader in Colab runs them: each in an empty folder, the package brought by its set-up cell.

Legend: mirror = a bare repository that holds this checkout's HEAD under the name that the set-up cells ask for;
git is told to take it for github.com, everything else is unreachable.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import notebook_rules as rules  # noqa: E402

NOWHERE = "http://127.0.0.1:9"  # the port "discard": whatever wants another host fails at once
INSTALLED = ("lora_course", "pyproject.toml", "README.md", "chapters", "appendix")

# A last cell: every slider goes to both its ends, as messages of a browser would move it, and is reset. In a
# function, because the notebook's own draw may use any global name.
SLIDERS = """
def sliders_follow():
    import gc
    pictures = [thing for thing in gc.get_objects() if type(thing).__name__ == "Explore"]
    assert len(pictures) >= {least}, f"{{len(pictures)}} pictures with sliders, but {least} cells make one"
    for picture in pictures:
        shown, *sliders, reset = picture.widget.children
        assert len(sliders) == len(picture.axes)
        first = shown.value
        for slider in sliders:
            for index in (0, len(slider.options) - 1):
                before, moved = shown.value, slider.index != index
                slider.set_state({{"index": index}})
                assert (shown.value != before) == moved, (picture, slider.description, index)
                assert 'class="lc-error"' not in shown.value, shown.value
        reset.click()
        assert shown.value == first
    print(len(pictures), "pictures followed their sliders")

sliders_follow()
"""


def git(*command: str | Path, **more) -> str:
    """Run git in the repository root; return what it says. Exits with its message if it fails."""
    done = subprocess.run(["git", *map(str, command)], cwd=ROOT, capture_output=True, text=True, **more)
    if done.returncode:
        sys.exit(f"git {' '.join(map(str, command))}: {done.stderr.strip()}")
    return done.stdout.strip()


def redirected(python: Path, folder: Path) -> tuple[str, dict[str, str]]:
    """Make the mirror in `folder`; return (the commit that set-up cells will get, environment variables).

    Under these variables git takes the mirror for github.com, and pip finds what builds the package (setuptools)
    and nothing else. Exits if something that is tested here is not committed.
    """
    repository, ref = rules.repository_of(ROOT), rules.setup_ref(rules.book_notebooks(ROOT)[0])
    mirror, wheels, config = folder / "github" / repository, folder / "wheels", folder / "gitconfig"
    for old in (folder / "github", wheels):
        shutil.rmtree(old, ignore_errors=True)
    mirror.mkdir(parents=True)
    # a file of its own, because git does not hand other settings on to the process that serves the mirror;
    # safe.directory: in a container the checkout belongs to somebody else
    config.write_text(
        f'[safe]\n\tdirectory = *\n[url "{(folder / "github").as_uri()}/"]\n\tinsteadOf = https://github.com/\n', "utf8"
    )
    env = os.environ | {"GIT_CONFIG_GLOBAL": str(config), "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0"}
    if changed := git("status", "--porcelain", "--", *INSTALLED, env=env):
        sys.exit(f"set-up cells install what is committed; commit first:\n{changed}")
    git("init", "--quiet", "--bare", mirror, env=env)
    git("-C", mirror, "config", "receive.shallowUpdate", "true", env=env)  # CI's checkout has no history
    git("-C", mirror, "config", "uploadpack.allowFilter", "true", env=env)  # pip clones without old files
    head = git("rev-parse", "HEAD", env=env)
    name = "main" if ref == head else ref  # a set-up cell that names the commit itself finds it on any branch
    git("-C", mirror, "symbolic-ref", "HEAD", f"refs/heads/{name}", env=env)
    git("push", "--quiet", "--no-verify", mirror.as_uri(), f"HEAD:refs/heads/{name}", env=env)
    download = [python, "-m", "pip", "download", "-q", "--no-deps", "-d", wheels, "setuptools>=68"]
    if subprocess.run([str(part) for part in download]).returncode:
        sys.exit("pip download setuptools failed")
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), NOWHERE)
    pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return head, env | pip | proxies | {"no_proxy": "127.0.0.1,localhost", "NO_PROXY": "127.0.0.1,localhost"}


def with_slider_cell(notebook: dict) -> dict:
    """The notebook's JSON with the cell above at its end; the others stay as they are."""
    codes = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    source = SLIDERS.format(least=sum("explore(" in code for code in codes)).strip()
    cell = {"cell_type": "code", "id": "sliders", "metadata": {}, "source": source}
    cell |= {"outputs": [], "execution_count": None}
    return notebook | {"cells": [*notebook["cells"], cell]}


def execute(python: Path, notebook: Path, folder: Path, env: dict[str, str]) -> None:
    """Run a copy of the notebook alone in a new folder below `folder`, from its set-up cell on; exit if it fails."""
    here = folder / "reader" / notebook.stem
    shutil.rmtree(here, ignore_errors=True)
    here.mkdir(parents=True)
    content = with_slider_cell(json.loads(notebook.read_text("utf8")))
    (here / notebook.name).write_text(json.dumps(content), "utf8")
    # -P and no PYTHONPATH: nothing of the tree can be imported
    env = {name: value for name, value in env.items() if name != "PYTHONPATH"}
    env["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # else every kernel prints four lines of warning
    nbval = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout", "120"]
    command = [str(python), "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", *nbval, notebook.name]
    print("$ (empty folder)", *command[1:], flush=True)
    if subprocess.run(command, cwd=here, env=env).returncode:
        sys.exit(f"{notebook.relative_to(ROOT)} failed, started in an empty folder")


def installed_commit(python: Path) -> str:
    """The commit from which pip installed lora_course, by its own record; exits if it did not."""
    code = "import importlib.metadata as m; print(m.distribution('lora_course').read_text('direct_url.json'))"
    found = subprocess.run([python, "-P", "-c", code], cwd=python.parent, capture_output=True, text=True)
    try:
        return json.loads(found.stdout)["vcs_info"]["commit_id"]
    except (ValueError, KeyError, TypeError):
        sys.exit(f"the set-up cell did not install lora_course from git: {found.stdout}{found.stderr}")
