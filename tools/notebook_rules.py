r"""What every notebook of the course must look like: rules that name file and cell (standard library only).

Used by clean_notebooks.py (and so by the pre-commit hook) and, with chapter_rules.py, by the tests.
"""

import json
import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}

# {repository} is OWNER/NAME, {ref} a branch, tag or commit
SETUP = (
    "import importlib.util, subprocess, sys  # course set-up, the same in every chapter\n"
    'if importlib.util.find_spec("lora_course") is None:'
    "  # e.g. in Colab: add our package, replace nothing of yours\n"
    '    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps",'
    ' "git+https://github.com/{repository}@{ref}"], check=True)'
)
REPOSITORY = r"[A-Za-z0-9-]+/[A-Za-z0-9._-]+"
REF = r"[A-Za-z0-9._/-]+"

_CELL_KEYS = {"cell_type", "id", "metadata", "source"}
_READABLE = r"[a-z][a-z0-9]*(-[a-z0-9]+)*"
_GENERATED = r"[0-9a-f]{8}(-[0-9a-f]{4}){0,3}(-[0-9a-f]{12})?"


class Problem(NamedTuple):
    r"""One broken rule: in which file, in which cell ("" for the file as a whole), and what is wrong."""

    file: str
    cell: str
    what: str

    def __str__(self):
        return f"{self.file}, cell {self.cell!r}: {self.what}" if self.cell else f"{self.file}: {self.what}"


class Notebook(NamedTuple):
    r"""A notebook file: its name as messages show it, and its JSON."""

    file: str
    json: dict

    def cells(self, kind=None):
        r"""(name, cell, source) of each cell, or of those of one kind."""
        for number, cell in enumerate(self.json["cells"], 1):
            if kind in (None, cell["cell_type"]):
                yield cell.get("id") or f"number {number}", cell, "".join(cell["source"])


def read_notebook(path, root=ROOT):
    r"""The notebook at ``path``; ValueError that names the file if it is none."""
    path = Path(path).resolve()
    file = str(path.relative_to(root) if path.is_relative_to(root) else path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        notebook = Notebook(file, content)
        list(notebook.cells())
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{file}: this is no notebook") from None
    return notebook


def write_notebook(path, content):
    r"""Write the notebook's JSON as Jupyter does: one space of indentation, keys sorted, text as text."""
    text = json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    Path(path).write_text(text, encoding="utf-8")


def book_notebooks(root=ROOT):
    r"""All notebooks of the book, in order: chapters, then appendix."""
    root = Path(root).resolve()
    paths = [p for folder in ("chapters", "appendix") for p in sorted((root / folder).glob("*.ipynb"))]
    return [read_notebook(path, root) for path in paths]


def repository_of(root=ROOT):
    r"""OWNER/NAME from ``repository: url:`` of _config.yml; ValueError if it is not there."""
    text = (Path(root) / "_config.yml").read_text(encoding="utf-8")
    block = re.search(r"^repository:[^\n]*\n((?:[ \t]+[^\n]*\n|[ \t]*#[^\n]*\n)+)", text, re.MULTILINE)
    url = block and re.search(rf"^\s+url:\s*https://github\.com/({REPOSITORY})\s*$", block[1], re.MULTILINE)
    if not url:
        raise ValueError("_config.yml: repository.url must be https://github.com/OWNER/NAME")
    return url[1]


def _allowed_metadata(cell):
    r"""The part of a cell's metadata that belongs to the book: tags, and what folds a solution."""
    metadata, kept = cell.get("metadata", {}), {}
    if metadata.get("tags"):
        kept["tags"] = metadata["tags"]
    if cell["cell_type"] == "code":
        if metadata.get("cellView") == "form":
            kept["cellView"] = "form"
        if metadata.get("jupyter", {}).get("source_hidden"):
            kept["jupyter"] = {"source_hidden": True}
        prompts = {"code_prompt_show", "code_prompt_hide"} & set(metadata.get("mystnb", {}))
        if prompts:
            kept["mystnb"] = {key: metadata["mystnb"][key] for key in sorted(prompts)}
    return kept


def cleaned(content):
    r"""A copy of the notebook's JSON without outputs, counts and foreign metadata; ids stay."""
    cells = []
    for old in content["cells"]:
        cell = {key: old[key] for key in _CELL_KEYS & set(old)} | {"metadata": _allowed_metadata(old)}
        if isinstance(old["source"], str):
            cell["source"] = old["source"].splitlines(keepends=True)
        if old["cell_type"] == "code":
            cell |= {"outputs": [], "execution_count": None}
        elif old.get("attachments"):
            cell["attachments"] = old["attachments"]  # a picture is no dirt: the rule below reports it
        cells.append(cell)
    return {"cells": cells, "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5}


def dirt(notebook):
    r"""What :func:`cleaned` would remove or repair, as problems."""
    file, content = notebook
    version = (content.get("nbformat"), content.get("nbformat_minor"))
    if version != (4, 5):
        yield Problem(file, "", f"the notebook format must be 4.5, it is {version[0]}.{version[1]}")
    if content.get("metadata") != METADATA:
        keys = sorted(set(content.get("metadata", {})) - set(METADATA)) or "kernelspec or language_info"
        yield Problem(file, "", f"the metadata must be kernelspec python3 and nothing foreign: see {keys}")
    for name, cell, _ in notebook.cells():
        if cell.get("outputs"):
            yield Problem(file, name, "has outputs")
        if cell.get("execution_count") is not None:
            yield Problem(file, name, f"has execution_count {cell['execution_count']}, must be null")
        if cell.get("metadata") != _allowed_metadata(cell):
            yield Problem(file, name, f"has foreign metadata: {sorted(cell.get('metadata', {}))}")
        if "\n" in cell["source"] and isinstance(cell["source"], str):
            yield Problem(file, name, "has its source as one string: a diff would show the whole cell for a word")


def misnamed(notebook):
    r"""Cells whose id is missing, repeated or not readable; attachments; solutions that are not folded."""
    seen = set()
    for name, cell, source in notebook.cells():
        id = cell.get("id", "")
        if not re.fullmatch(_READABLE, id) or (re.fullmatch(_GENERATED, id) and re.search(r"\d", id)):
            yield Problem(notebook.file, name, f"the id must be readable, as in fig-funnel, it is {id!r}")
        if id in seen:
            yield Problem(notebook.file, name, "the id comes twice")
        seen.add(id)
        if cell.get("attachments"):
            yield Problem(notebook.file, name, "has attachments: draw the picture in a cell or add a file")
        folded = {"cellView": "form", "jupyter": {"source_hidden": True}}
        if source.startswith("# @title Solution") and not folded.items() <= cell["metadata"].items():
            yield Problem(notebook.file, name, f"a solution must be folded: its metadata needs {folded}")


def setup_problems(notebook, repository, ref=None):
    r"""Whether the first code cell is the set-up cell, byte for byte, for this repository (and ref)."""
    name, cell, source = next(notebook.cells("code"), ("", {}, ""))
    expected = SETUP.replace("{repository}", repository)
    before, after = expected.split("{ref}")
    middle = source.removeprefix(before).removesuffix(after)
    same = source == before + middle + after and re.fullmatch(re.escape(ref) if ref else REF, middle)
    if not same or cell.get("id") != "setup":
        wanted = expected.replace("{ref}", ref or "REF")
        what = f"the first code cell must be the set-up cell, with id 'setup' and exactly this text:\n{wanted}"
        yield Problem(notebook.file, name, what)


def setup_ref(notebook):
    r"""The ref that the set-up cell installs; None if there is none."""
    for _, _, source in notebook.cells("code"):
        found = re.search(rf"git\+https://github\.com/{REPOSITORY}@({REF})\"", source)
        return found and found[1]
