r"""The small scripts for authors, run on copies."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import clean_notebooks  # noqa: E402
import notebook_rules as rules  # noqa: E402
import set_repository as tool  # noqa: E402


def dirty():
    cells = [
        {"cell_type": "markdown", "id": "title", "metadata": {"id": "xYz"}, "source": "# A\n\nü"},
        {
            "cell_type": "code",
            "id": "train",
            "metadata": {"tags": ["hide-input"], "executionInfo": {}, "cellView": "form"},
            "execution_count": 4,
            "outputs": [{"output_type": "stream", "name": "stdout", "text": "x"}],
            "source": ["a = 1\n", "b = 2"],
        },
    ]
    return {"cells": cells, "metadata": {"colab": {}, "widgets": {}}, "nbformat": 4, "nbformat_minor": 5}


@pytest.fixture
def notebook(tmp_path):
    path = tmp_path / "one.ipynb"
    path.write_text(json.dumps(dirty()))
    return path


def test_check_names_file_and_cell_and_writes_nothing(notebook, capsys):
    before = notebook.read_bytes()
    assert clean_notebooks.main(["--check", str(notebook)]) == 1
    said = capsys.readouterr().err
    for what in (
        "cell 'train': has outputs",
        "cell 'title': has foreign metadata: ['id']",
        "see ['colab', 'widgets']",
    ):
        assert f"{what}" in said and str(notebook) in said
    assert notebook.read_bytes() == before


def test_cleaning_keeps_ids_source_and_tags_and_is_idempotent(notebook):
    assert clean_notebooks.main([str(notebook)]) == 0
    once = notebook.read_bytes()
    content = json.loads(once)
    assert [cell["id"] for cell in content["cells"]] == ["title", "train"]
    assert ["".join(cell["source"]) for cell in content["cells"]] == ["# A\n\nü", "a = 1\nb = 2"]
    assert content["cells"][1]["metadata"] == {"tags": ["hide-input"], "cellView": "form"}
    assert content["cells"][1]["outputs"] == [] and content["cells"][1]["execution_count"] is None
    assert content["metadata"] == rules.METADATA
    assert clean_notebooks.main(["--check", str(notebook)]) == 0
    assert clean_notebooks.main([str(notebook)]) == 0
    assert notebook.read_bytes() == once


def test_cleaned_notebook_is_valid_and_spelled_as_jupyter_spells_it(notebook):
    nbformat = pytest.importorskip("nbformat")
    clean_notebooks.main([str(notebook)])
    parsed = nbformat.read(notebook, as_version=4)
    nbformat.validate(parsed)
    assert nbformat.writes(parsed) + "\n" == notebook.read_text(encoding="utf-8")


def test_what_only_an_author_can_repair_is_reported(notebook, capsys):
    content = dirty()
    content["cells"][0]["id"] = "a1b2c3d4"
    notebook.write_text(json.dumps(content))
    assert clean_notebooks.main([str(notebook)]) == 1
    assert "cell 'a1b2c3d4': the id must be readable" in capsys.readouterr().err
    assert clean_notebooks.main([str(notebook.with_name("gone.ipynb"))]) == 1


def test_folder_stands_for_its_notebooks(notebook, capsys):
    assert clean_notebooks.main(["--check", str(notebook.parent)]) == 1
    assert "cell 'train': has outputs" in capsys.readouterr().err


def test_cleaning_runs_as_a_script(notebook):
    script = ROOT / "tools/clean_notebooks.py"
    run = subprocess.run([sys.executable, str(script), "--check", str(notebook)], capture_output=True, text=True)
    assert run.returncode == 1 and "cell 'train'" in run.stderr


# --- the address


@pytest.fixture
def copy(tmp_path):
    r"""The files of the real tree that may know the address."""
    for path in tool.files_with_links(ROOT):
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return tmp_path


def texts(root):
    return {path: path.read_text(encoding="utf-8") for path in tool.files_with_links(root)}


def test_new_address_replaces_the_old_one_everywhere(copy):
    old = rules.repository_of(copy)
    changed = tool.set_repository("ada-l/lora.book", "published", root=copy)
    assert rules.repository_of(copy) == "ada-l/lora.book"
    assert copy / "_config.yml" in changed
    for path, text in texts(copy).items():
        assert f"github.com/{old}" not in text and f"/github/{old}" not in text, path
    for notebook in rules.book_notebooks(copy):
        assert not list(rules.setup_problems(notebook, "ada-l/lora.book", "published"))


def test_setting_the_address_twice_changes_nothing_and_back_gives_the_same_bytes(copy):
    before, first = texts(copy), rules.setup_ref(rules.book_notebooks(copy)[0])
    middle = tool.set_repository("ada/lora", "v1.0", root=copy) and texts(copy)
    assert middle != before
    assert tool.set_repository("ada/lora", "v1.0", root=copy) == []
    assert tool.set_repository("ada/lora", root=copy) == []
    for path, text in middle.items():
        path.write_text(tool.readdressed(text, "ada/lora", rules.repository_of(ROOT), first), encoding="utf-8")
    assert texts(copy) == before


@pytest.mark.parametrize(
    "before,after",
    [
        ("https://github.com/ada/lora", "https://github.com/eve/book"),
        ("https://github.com/ada/lora.", "https://github.com/eve/book."),
        ("git@github.com:ada/lora.git", "git@github.com:eve/book.git"),
        ("https://github.com/ada/lora/issues", "https://github.com/eve/book/issues"),
        ("https://colab.research.google.com/github/ada/lora/blob/main/x", None),
        ("https://mybinder.org/v2/gh/ada/lora/published?urlpath=lab", None),
        ("https://ada.github.io/lora/intro.html", "https://eve.github.io/book/intro.html"),
        ("git+https://github.com/ada/lora@main", "git+https://github.com/eve/book@v2"),
        ("https://github.com/ada/lora-two", "https://github.com/ada/lora-two"),
        ("https://github.com/ada/lora.py", "https://github.com/ada/lora.py"),
        ("https://github.com/bob/lora", "https://github.com/bob/lora"),
    ],
)
def test_only_links_to_the_repository_change(before, after):
    after = after or before.replace("ada/lora", "eve/book")
    assert tool.readdressed(before, "ada/lora", "eve/book", "v2") == after


@pytest.mark.parametrize(
    "repository",
    [
        "",
        "lora",
        "ada/",
        "/lora",
        "ada/lora/x",
        "set--me/lora",
        "-ada/lora",
        "a d/lora",
        "ada/..",
        "a" * 40 + "/x",
    ],
)
def test_impossible_repository_is_refused_and_nothing_is_changed(copy, repository):
    before = texts(copy)
    with pytest.raises(ValueError, match="repository must be OWNER/NAME"):
        tool.set_repository(repository, root=copy)
    assert texts(copy) == before


@pytest.mark.parametrize("ref", ["", "a b", "-x", "a..b", "x/", 'main"'])
def test_impossible_ref_is_refused_and_nothing_is_changed(copy, ref):
    before = texts(copy)
    with pytest.raises(ValueError, match="ref must be a branch, tag or commit"):
        tool.set_repository("ada/lora", ref, root=copy)
    assert texts(copy) == before


def test_script_refuses_with_a_message(capsys):
    with pytest.raises(SystemExit) as stop:
        tool.main(["nonsense"])
    assert stop.value.code == 2
    assert "repository must be OWNER/NAME as GitHub allows it, got 'nonsense'" in capsys.readouterr().err
