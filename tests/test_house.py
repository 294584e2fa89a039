r"""The house is as designed: who imports whom, how long modules are, what is documented."""

import ast
import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import notebook_rules  # noqa: E402
from set_repository import files_with_links  # noqa: E402

PACKAGE = ROOT / "lora_course"
MODULES = sorted(PACKAGE.rglob("*.py"))
ARROWS = {"adapters": set(), "theory": set(), "book": set(), "labs": {"adapters", "theory"}}
# theory is for readers without torch; a page needs neither torch nor scikit-learn
ALLOWED_IN_THEORY = {"numpy"}
FORBIDDEN = {
    "book": {"torch", "sklearn", "safetensors"},
    "adapters": {"numpy", "matplotlib", "sklearn", "yaml"},
}

every_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))


def imports(path, text=None):
    r"""Full names of the modules and names that a file imports, relative imports resolved."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(text if text is not None else path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = ".".join(base + ([node.module] if node.module else []))
            yield from (f"{module}.{alias.name}" for alias in node.names)


def wrong_arrows(path, text=None):
    r"""Imports of a module of the package that the arrows do not allow."""
    part = path.relative_to(PACKAGE).parts[0]
    if part not in ARROWS:
        return
    for name in imports(path, text):
        top, *rest = name.split(".")
        if top == "lora_course" and rest and rest[0] in ARROWS and rest[0] not in ARROWS[part] | {part}:
            yield f"{path.relative_to(ROOT)} imports {name}"
        outside = top != "lora_course" and top not in sys.stdlib_module_names
        if outside and (top in FORBIDDEN.get(part, ()) or (part == "theory" and top not in ALLOWED_IN_THEORY)):
            yield f"{path.relative_to(ROOT)} imports {name}"


def undocumented(path, text=None):
    r"""Public functions, classes and methods without a raw docstring, and modules without any."""
    text = text if text is not None else path.read_text(encoding="utf-8")
    tree, where = ast.parse(text), path.relative_to(ROOT)
    if not ast.get_docstring(tree):
        yield f"{where}: the module has no docstring"
    pending = [(tree, "")]
    while pending:
        parent, prefix = pending.pop()
        for node in parent.body:
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) or node.name[0] == "_":
                continue
            name = f"{prefix}{node.name}"
            if not ast.get_docstring(node):
                yield f"{where}:{node.lineno}: {name} has no docstring"
            elif not ast.get_source_segment(text, node.body[0]).startswith('r"""'):
                yield f'{where}:{node.lineno}: the docstring of {name} must begin with r"""'
            if isinstance(node, ast.ClassDef):
                pending.append((node, f"{name}."))


def none_of(found):
    found = "\n".join(found)
    assert not found, "\n" + found


@every_module
def test_imports_follow_the_arrows(path):
    none_of(wrong_arrows(path))


@every_module
def test_public_names_have_raw_docstrings(path):
    none_of(undocumented(path))


@every_module
def test_modules_are_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) < 250, "split it: one module, one idea"


def lines_of_code(path):
    """Lines that hold code: no blank lines, comments or docstrings."""
    source = path.read_text(encoding="utf-8")
    skipped = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in skipped:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return len(lines)


# lines of code; a chapter brings an experiment and a hundred lines of answers to its exercises
LARGEST = {"adapters": 2100, "theory": 1600, "book": 1650, "labs": 2750, "labs/exercises": 130 * 13}


def test_each_part_of_the_package_is_small():
    lines = dict.fromkeys(LARGEST, 0)
    for path in MODULES:
        folder = path.relative_to(PACKAGE).parent.as_posix()
        part = folder if folder in LARGEST else folder.split("/")[0]
        if part in lines:
            lines[part] += lines_of_code(path)
    assert {part: count for part, count in lines.items() if count >= LARGEST[part]} == {}


def test_importing_theory_loads_numpy_and_nothing_heavier():
    code = "import sys, lora_course.theory; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert "numpy" in loaded.split()
    assert not {"torch", "matplotlib", "scipy", "sklearn", "IPython"} & set(loaded.split())


def address_leaks(root, files, config_owner_name):
    r"""Links to the repository that set_repository would miss, and links to the book at other owners."""
    owner, name = config_owner_name.split("/")
    rewritten = {path.relative_to(root) for path in files_with_links(root)}
    link = re.compile(
        rf"(?:github\.com[/:]|/github/|/v2/gh/)([\w-]+)/{re.escape(name)}(?![\w-])|([\w-]+)\.github\.io/{re.escape(name)}\b"
    )
    for file in files:
        try:
            text = (root / file).read_text(encoding="utf-8")
        except (UnicodeDecodeError, OSError):
            continue
        for found in link.finditer(text):
            line = text.count("\n", 0, found.start()) + 1
            if (found[1] or found[2]) != owner:
                yield f"{file}:{line}: {found[0]} is not the address in _config.yml, {config_owner_name}"
            elif Path(file) not in rewritten:
                yield f"{file}:{line}: knows the address, but set_repository.py does not rewrite this file"


def tracked(root):
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this tree is no git checkout")
    return [file for file in listed.stdout.splitlines() if not file.startswith("_build/") and ".egg-info/" not in file]


def test_only_config_knows_the_address():
    none_of(address_leaks(ROOT, tracked(ROOT), notebook_rules.repository_of(ROOT)))


# --- the rules find what breaks them


@pytest.mark.parametrize(
    "module,text,found",
    [
        ("theory/a.py", "from ..adapters import LoRALinear", "lora_course.adapters.LoRALinear"),
        ("theory/a.py", "import torch", "torch"),
        ("theory/a.py", "def f():\n    from scipy.linalg import svd", "scipy.linalg.svd"),
        ("theory/a.py", "import lora_course.labs.digits", "lora_course.labs.digits"),
        ("adapters/a.py", "from lora_course import theory", "lora_course.theory"),
        ("book/a.py", "import sklearn.datasets", "sklearn.datasets"),
        ("labs/exercises/a.py", "from ...book import claim", "lora_course.book.claim"),
    ],
)
def test_wrong_arrow_is_found(module, text, found):
    assert list(wrong_arrows(PACKAGE / module, text)) == [f"lora_course/{module} imports {found}"]


@pytest.mark.parametrize(
    "module,text",
    [
        (
            "theory/a.py",
            "import math\nimport numpy as np\nfrom ._validate import matrix\nfrom . import counting",
        ),
        (
            "labs/a.py",
            "from ..theory import stable_rank\nimport torch\nfrom lora_course.adapters import inject",
        ),
        ("rank_demo.py", "from .theory import stable_rank\nfrom .adapters import LoRALinear"),
    ],
)
def test_right_arrow_is_accepted(module, text):
    assert list(wrong_arrows(PACKAGE / module, text)) == []


def test_missing_or_cooked_docstring_is_found():
    text = 'def f(): 1\n\nclass C:\n    r"""C."""\n    def g(self):\n        """G."""\n    def _h(): 1\n'
    assert list(undocumented(PACKAGE / "theory/a.py", text)) == [
        "lora_course/theory/a.py: the module has no docstring",
        "lora_course/theory/a.py:1: f has no docstring",
        'lora_course/theory/a.py:5: the docstring of C.g must begin with r"""',
    ]


def test_stray_address_is_found(tmp_path):
    (tmp_path / "chapters").mkdir()
    (tmp_path / "_config.yml").write_text("repository:\n  url: https://github.com/ada/lora\n")
    (tmp_path / "README.md").write_text("https://github.com/ada/lora\nhttps://github.com/eve/lora\n")
    (tmp_path / "Makefile").write_text("# https://ada.github.io/lora\n# https://github.com/huggingface/peft\n")
    assert list(address_leaks(tmp_path, ["_config.yml", "README.md", "Makefile"], "ada/lora")) == [
        "README.md:2: github.com/eve/lora is not the address in _config.yml, ada/lora",
        "Makefile:1: knows the address, but set_repository.py does not rewrite this file",
    ]
