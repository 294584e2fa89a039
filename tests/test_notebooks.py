r"""The notebooks obey the rules of tools/, and each rule finds the notebook that breaks it."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import chapter_rules  # noqa: E402
import claim_rules  # noqa: E402
import notebook_rules as rules  # noqa: E402

from lora_course.book.claims import load_claims  # noqa: E402
from lora_course.book.replications import guards  # noqa: E402

NOTEBOOKS = rules.book_notebooks()
BIBLIOGRAPHY = chapter_rules.bibliography_keys(ROOT)

every_notebook = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.file)


def none_of(problems):
    found = "\n".join(map(str, problems))
    assert not found, "\n" + found


# --- the real notebooks


def test_there_are_notebooks():
    assert any(notebook.file.startswith("chapters/") for notebook in NOTEBOOKS)


@every_notebook
def test_notebook_is_clean(notebook):
    none_of(rules.dirt(notebook))


@every_notebook
def test_cells_have_readable_ids_and_solutions_are_folded(notebook):
    none_of(rules.misnamed(notebook))


@every_notebook
def test_first_code_cell_is_the_set_up_cell_of_all_notebooks(notebook):
    ref = rules.setup_ref(NOTEBOOKS[0])
    none_of(rules.setup_problems(notebook, rules.repository_of(ROOT), ref))


@every_notebook
def test_claims_get_what_was_measured(notebook):
    none_of(claim_rules.claim_problems(notebook, load_claims())[0])


@every_notebook
def test_guarded_sentences_get_what_was_measured(notebook):
    none_of(claim_rules.guard_problems(notebook))


@every_notebook
def test_figures_and_sliders_have_words(notebook):
    none_of(chapter_rules.word_problems(notebook))


@every_notebook
def test_citations_exist_and_nothing_is_fetched(notebook):
    none_of(chapter_rules.page_problems(notebook, BIBLIOGRAPHY))


@every_notebook
def test_one_letter_has_one_meaning(notebook):
    none_of(chapter_rules.symbol_problems(notebook))


def test_labels_are_unique_in_the_whole_book():
    none_of(chapter_rules.label_problems(NOTEBOOKS))


def test_every_claim_is_settled_once_in_its_home():
    claims = load_claims()
    uses = [use for notebook in NOTEBOOKS for use in claim_rules.claim_problems(notebook, claims)[1]]
    none_of(chapter_rules.home_problems(claims, uses, ROOT))


def test_sources_of_claims_are_in_the_bibliography():
    none_of(chapter_rules.source_problems(load_claims(), BIBLIOGRAPHY))


# --- the rules themselves, on small notebooks

CONFIG = "title: x\nrepository:\n  # the address\n  url: https://github.com/ada/lora\n  branch: main\nhtml: {}\n"
SETUP = rules.SETUP.replace("{repository}", "ada/lora").replace("{ref}", "main")

LEDGER = """
- {id: S9-1, says: x, source: 000, verdict: "true", condition: y, home: chapters/one, settled: cell,
   measured: {gain: the gain, r: rank}, relation: gain > r, counterexample: {gain: 1, r: 2}}
- {id: S9-2, says: x, source: 000, verdict: "true", condition: y, home: chapters/one, settled: derivation,
   test: "tests/test_sum.py::test_sum"}
- {id: S9-3, says: x, source: 000, verdict: "true", condition: y, home: chapters/one, settled: source,
   citation: hu2022lora, place: Section 4, figure: "3"}
"""

GOOD = [
    (
        "markdown",
        "title",
        "# Title\n\nHu et al. (2022) {cite}`hu2022lora`, ![local](a.png), [PEFT](https://x.org)",
    ),
    ("code", "setup", SETUP),
    ("code", "train", "r = 8\nmodel = train(r)"),
    ("code", "settle", "gain = model.gain()\nclaim('S9-1').check(gain=gain, r=model.r)"),
    ("code", "show", "display(claim('S9-2').show())\nclaim('S9-3').show()"),
    (
        "code",
        "fig",
        "figure(draw(8), alt='A line.', caption='x')\nplt.figure()\nexplore(draw, alt=words, r=[1, 2])",
    ),
]


def cell(kind, id, source, **more):
    code = {"outputs": [], "execution_count": None} if kind == "code" else {}
    lines = source.splitlines(keepends=True)
    return {"cell_type": kind, "id": id, "metadata": {}, "source": lines} | code | more


def content(cells):
    cells = [cell(*c) if isinstance(c, tuple) else c for c in cells]
    return {"cells": cells, "metadata": rules.METADATA, "nbformat": 4, "nbformat_minor": 5}


@pytest.fixture
def tree(tmp_path):
    r"""A small book: (root, write(cells) -> its one notebook, claims)."""
    (tmp_path / "chapters").mkdir()
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_sum.py").write_text("def test_sum():\n    assert 1 + 1 == 2\n")
    (tmp_path / "_config.yml").write_text(CONFIG)
    (tmp_path / "references.bib").write_text("@article{hu2022lora,\n title={LoRA}}\n")
    (tmp_path / "ledger.yml").write_text(LEDGER)
    claims = load_claims(tmp_path / "ledger.yml")

    def write(cells=GOOD, **changes):
        rules.write_notebook(tmp_path / "chapters/one.ipynb", content(cells) | changes)
        return rules.book_notebooks(tmp_path)[0]

    return tmp_path, write, claims


def all_problems(tree, notebook):
    root, _, claims = tree
    bibliography = chapter_rules.bibliography_keys(root)
    problems, uses = claim_rules.claim_problems(notebook, claims)
    problems += [*rules.dirt(notebook), *rules.misnamed(notebook)]
    problems += rules.setup_problems(notebook, rules.repository_of(root))
    problems += [*chapter_rules.word_problems(notebook), *chapter_rules.page_problems(notebook, bibliography)]
    problems += chapter_rules.home_problems(claims, uses, root)
    return [str(p) for p in [*problems, *chapter_rules.source_problems(claims, bibliography)]]


def test_good_notebook_has_no_problem(tree):
    assert all_problems(tree, tree[1]()) == []


def replaced(id, source, **more):
    return [cell(kind, name, source, **more) if name == id else (kind, name, s) for kind, name, s in GOOD]


CHECK = "claim('S9-1').check(gain={}, r=model.r)"


@pytest.mark.parametrize(
    "source",
    [
        CHECK.format("0.3"),
        CHECK.format("-8 / 4096"),
        CHECK.format("float('0.3')"),
        CHECK.format("np.float64(0.3)"),
        CHECK.format("torch.tensor(0.3).item()"),
        CHECK.format("[0.1, 0.3][1]"),
        CHECK.format("min(0.3, 4)"),
        CHECK.format("r"),
        CHECK.format("2 * r"),
        "gain = 0.3\n" + CHECK.format("gain"),
        "gain: float = 0.3\n" + CHECK.format("gain"),
        "gain, other = 0.3, 4\n" + CHECK.format("gain"),
        "gain, other = values = (0.3, 4)\n" + CHECK.format("values[0]"),
        "gain = 0.3\ngain *= 2\n" + CHECK.format("gain"),
        "gain = model.gain()\ngain = 0.3\n" + CHECK.format("gain"),
        "with no_grad():\n    gain = 0.3\n" + CHECK.format("gain"),
        "gains = {'a': 0.1}\ngains['a'] = 0.3\n" + CHECK.format("gains['a']"),
        "for gain in (0.1, 0.3):\n    print(gain)\n" + CHECK.format("gain"),
    ],
)
def test_typed_value_of_a_claim_is_found(tree, source):
    problems = all_problems(tree, tree[1](replaced("settle", source)))
    assert len(problems) == 1
    assert problems[0].startswith("chapters/one.ipynb, cell 'settle': claim S9-1: gain=")
    assert "typed" in problems[0] and "must be measured" in problems[0]


def test_typed_value_of_an_earlier_cell_is_found_with_its_cell(tree):
    [problem] = all_problems(tree, tree[1](replaced("settle", CHECK.format("r"))))
    assert "gain=r is typed, bound in cell 'train'" in problem


@pytest.mark.parametrize(
    "source",
    [
        CHECK.format("model.gain()"),
        CHECK.format("float(gains[0]) / 2"),
        CHECK.format("adapter_parameters(1024, 1024, 8)"),
        CHECK.format("errors.max(0)"),
        CHECK.format("abs(f(8)).sum(1)"),
        "try:\n    f()\n    gain = False\nexcept ValueError:\n    gain = True\n" + CHECK.format("gain"),
        "gain = 0\nfor x in f():\n    gain += 1\n" + CHECK.format("gain"),
        "gain = 0\ngain += f()\n" + CHECK.format("gain"),
        "gain, other = f()\n" + CHECK.format("gain"),
        "gains = {'a': []}\nfor x in f():\n    gains['a'].append(x)\n" + CHECK.format("max(gains['a'])"),
        "gains = {'a': 0}\ngains['a'] = f()\n" + CHECK.format("gains['a']"),
        "gains = {'a': 0}\ngains['a'] += f()\n" + CHECK.format("gains['a']"),
        "def gain():\n    return f()\n" + CHECK.format("gain()"),
        "%timeit f()\n" + CHECK.format("f()"),
    ],
)
def test_measured_value_of_a_claim_is_accepted(tree, source):
    assert all_problems(tree, tree[1](replaced("settle", source))) == []


@pytest.mark.parametrize(
    "source,what",
    [
        ("claim('S9-1').check(gain=f())", "names are ['gain'], the ledger has ['gain', 'r']"),
        ("claim('S9-1').check(gain=f(), r=g(), s=h())", "names are ['gain', 'r', 's']"),
        ("claim('S9-1').check(**values)", "every measured value as name=value"),
        ("claim('S9-1').check(f(), r=g())", "every measured value as name=value"),
        ("claim('S9-7').check(gain=f())", "there is no claim 'S9-7'"),
        ("claim(name).check(gain=f())", "the id of a claim must be written out"),
        ("claim('S9-1').show()", "claim S9-1 is settled by cell: write claim('S9-1').check(gain=..., r=...)"),
        (
            "c = claim('S9-1')\nc.check(gain=f(), r=g())",
            "write claim('S9-1').check(gain=..., r=...) in one go",
        ),
        ("from lora_course.book import claim as c", "claim must be imported under its own name"),
        ("claim('S9-1').check(gain=f(), r=g())\nprint('x')", "show its box"),
        ("box = claim('S9-1').check(gain=f(), r=g())", "show its box"),
        ("if False:\n    claim('S9-1').check(gain=f(), r=g())", "show its box"),
        ("gain = = 3", "is no Python"),
    ],
)
def test_misuse_of_a_claim_is_found(tree, source, what):
    problems = all_problems(tree, tree[1](replaced("settle", source)))
    assert problems[0].startswith("chapters/one.ipynb, cell 'settle': ") and what in problems[0]


@pytest.mark.parametrize(
    "source,what",
    [
        ("observed('big', 'gain > 1', gain=2)", "gain=2 is typed"),
        ("x = 3\nobserved('big', 'gain > 1', gain=x)", "gain=x is typed"),
        ("for r in f():\n    observed('big', 'gain > 1', gain=r)", "must be a statement of its cell"),
        ("if f():\n    observed('big', 'gain > 1', gain=f())", "must be a statement of its cell"),
        ("observed('', 'gain > 1', gain=f())", "must name the sentence"),
        ("observed('big', 'gain >', gain=f())", "written out: relation is no expression"),
        ("observed(words, 'gain > 1', gain=f())", "both written out"),
        ("observed('big', 'gain > 1')", "the relation uses ['gain'], measured are []"),
        ("observed('big', 'gain > 1', **f())", "measured are ['None']"),
    ],
)
def test_misuse_of_a_guard_is_found(tree, source, what):
    [problem] = claim_rules.guard_problems(tree[1](replaced("train", source)))
    assert str(problem).startswith("chapters/one.ipynb, cell 'train': ") and what in str(problem)


def test_guard_of_measured_values_is_accepted_and_listed(tree):
    notebook = tree[1](
        replaced("train", "%time\nobserved('one', 'a > 1', a=f())\nobserved('two', 'a > b', a=f(), b=g())")
    )
    assert claim_rules.guard_problems(notebook) == []
    assert [tuple(g) for g in guards(notebook[1])] == [
        ("train/1", "one", "a > 1", ("a",)),
        ("train/2", "two", "a > b", ("a", "b")),
    ]


def test_formula_that_sphinx_would_break_is_found(tree):
    source = dict((name, s) for _, name, s in GOOD)["title"]
    [problem] = all_problems(tree, tree[1](replaced("title", source + "\n\n$$\na\\\\b\n\\tag{1.1}\n$$")))
    assert "cell 'title': has \\tag and a row break" in problem
    assert all_problems(tree, tree[1](replaced("title", source + "\n\n$$\na\\cr b\n\\tag{1.1}\n$$"))) == []


@pytest.mark.parametrize(
    "first,second",
    [
        ("Let $A$ $(r,k)$ be random.", "Let $A$ be a $(d,d)$ matrix."),
        ("Let $n$ be the number of examples.", "where $n$ is the number of layers"),
    ],
)
def test_letter_with_two_meanings_is_found(tree, first, second):
    notebook = tree[1]([*GOOD, ("markdown", "one", first), ("markdown", "two", second)])
    [problem] = chapter_rules.symbol_problems(notebook)
    assert "'one'" in str(problem) and "'two'" in str(problem)
    again = tree[1]([*GOOD, ("markdown", "one", first), ("markdown", "two", first)])
    assert list(chapter_rules.symbol_problems(again)) == []


def test_label_that_comes_twice_is_found(tree):
    exercise = ":::{exercise} Count\n:label: ex-count\n\nHow many?\n:::"
    notebook = tree[1]([*GOOD, ("markdown", "ex-count", exercise)])
    assert list(chapter_rules.label_problems([notebook])) == []
    [problem] = chapter_rules.label_problems([notebook, notebook._replace(file="chapters/two.ipynb")])
    assert str(problem).endswith("cell 'ex-count': the label ex-count stands in chapters/one.ipynb already")


@pytest.mark.parametrize("tag", ["skip-execution", "raises-exception"])
def test_claim_in_a_cell_that_need_not_succeed_is_found(tree, tag):
    source = dict((name, s) for _, name, s in GOOD)["settle"]
    [problem] = all_problems(tree, tree[1](replaced("settle", source, metadata={"tags": [tag]})))
    assert "cell 'settle': claim S9-1: this cell is not executed, or may fail" in problem


def test_claim_that_no_cell_settles_is_found(tree):
    problems = all_problems(tree, tree[1](replaced("show", "claim('S9-3').show()")))
    assert problems == ["chapters/one.ipynb: claim S9-2 must be settled here once, claim('S9-2').show(), not 0 times"]


def test_claim_that_is_settled_twice_or_elsewhere_is_found(tree):
    root, write, claims = tree
    notebook = write([*GOOD, ("code", "again", "claim('S9-3').show()")])
    assert any("claim S9-3 must be settled here once" in p and "not 2 times" in p for p in all_problems(tree, notebook))
    elsewhere = notebook._replace(file="chapters/two.ipynb")
    uses = claim_rules.claim_problems(elsewhere, claims)[1]
    found = list(map(str, chapter_rules.home_problems(claims, uses, root)))
    assert "chapters/two.ipynb, cell 'settle': claim S9-1 has its home in chapters/one.ipynb" in found


def test_claim_without_home_test_or_source_is_found(tree):
    root, write, _ = tree
    (root / "tests/test_sum.py").write_text("class TestSum:\n    def test_sum(self):\n        assert True\n")
    (root / "references.bib").write_text("")
    problems = all_problems(tree, write())
    assert "the ledger: claim S9-2: there is no test tests/test_sum.py::test_sum" in problems
    assert "the ledger: claim S9-3: references.bib has no entry 'hu2022lora'" in problems
    assert chapter_rules.test_exists(root, "tests/test_sum.py::TestSum::test_sum")
    assert not chapter_rules.test_exists(root, "tests/test_gone.py::test_sum")
    (root / "chapters/one.ipynb").unlink()
    problems = list(map(str, chapter_rules.home_problems(tree[2], [], root)))
    assert "the ledger: claim S9-1: its home chapters/one.ipynb does not exist" in problems


@pytest.mark.parametrize(
    "more,what",
    [
        ({"outputs": [{"output_type": "stream"}]}, "has outputs"),
        ({"execution_count": 3}, "has execution_count 3"),
        ({"metadata": {"colab": {"base_uri": "x"}}}, "has foreign metadata: ['colab']"),
        ({"metadata": {"jupyter": {"outputs_hidden": True}}}, "has foreign metadata: ['jupyter']"),
        ({"id": "a1b2c3d4"}, "the id must be readable"),
        ({"id": "5c27a3a1-0000-4a4a-9b9b-aaaaaaaaaaaa"}, "the id must be readable"),
        ({"id": "Fig_1"}, "the id must be readable"),
        ({"id": ""}, "the id must be readable"),
        ({"id": "setup"}, "the id comes twice"),
        ({"attachments": {"a.png": {}}}, "has attachments"),
        ({"source": ["# @title Solution\n", "x = 1"]}, "a solution must be folded"),
        ({"source": "x = 1\ny = 2"}, "has its source as one string"),
    ],
)
def test_unclean_cell_is_found(tree, more, what):
    notebook = tree[1]([*GOOD, cell("code", "last", "pass") | more])
    [problem] = all_problems(tree, notebook)
    name = more.get("id", "last") or "number 7"
    assert problem.startswith(f"chapters/one.ipynb, cell '{name}': ") and what in problem


def test_folded_solution_and_tags_belong_to_the_book(tree):
    metadata = {"cellView": "form", "jupyter": {"source_hidden": True}, "tags": ["hide-input"]}
    metadata["mystnb"] = {"code_prompt_show": "Show the solution"}
    notebook = tree[1]([*GOOD, cell("code", "last", "# @title Solution\nx = 1", metadata=metadata)])
    assert all_problems(tree, notebook) == []


def test_foreign_notebook_metadata_and_format_are_found(tree):
    kernel = {"kernelspec": {"display_name": "venv", "language": "python", "name": "venv"}}
    [problem] = all_problems(tree, tree[1](metadata=rules.METADATA | kernel))
    assert problem.startswith("chapters/one.ipynb: the metadata must be kernelspec python3")
    [problem] = all_problems(tree, tree[1](metadata=rules.METADATA | {"colab": {}}))
    assert "['colab']" in problem
    [problem] = all_problems(tree, tree[1](nbformat_minor=2))
    assert problem == "chapters/one.ipynb: the notebook format must be 4.5, it is 4.2"


@pytest.mark.parametrize(
    "setup",
    [
        SETUP + "\n",
        SETUP.replace("ada", "eve"),
        SETUP.replace("@main", ""),
        SETUP.replace('"-q", ', ""),
        SETUP.replace("main", "main', 'numpy"),
        "import lora_course",
    ],
)
def test_other_set_up_cell_is_found(tree, setup):
    [problem] = all_problems(tree, tree[1](replaced("setup", setup)))
    assert problem.startswith("chapters/one.ipynb, cell 'setup': the first code cell must be the set-up cell")


def test_set_up_cell_that_is_not_first_or_of_another_ref_is_found(tree):
    notebook = tree[1]([GOOD[0], ("code", "early", "x = f()"), *GOOD[1:]])
    [problem] = all_problems(tree, notebook)
    assert "cell 'early': the first code cell must be the set-up cell" in problem
    assert not list(rules.setup_problems(tree[1](), "ada/lora", "main"))
    [problem] = rules.setup_problems(tree[1](), "ada/lora", "published")
    assert "ada/lora@published" in problem.what


@pytest.mark.parametrize(
    "source,what",
    [
        ("{cite:t}`hu2022lora, who2020`", "references.bib has no entry 'who2020'"),
        ("![x](https://a.org/x.png)", "has an external image"),
        ("![x](//a.org/x.png)", "has an external image"),
        ('<img alt="x" src="http://a.org/x.png">', "has an external image"),
        ("```{figure} https://a.org/x.png\n```", "has an external image"),
        ("![x][pic]\n\n[pic]: https://a.org/x.svg", "has an external image"),
        ("<script>alert(1)</script>", "has a script"),
        ("<iframe src='a.html'></iframe>", "has an embedded page"),
        ("<style>@import 'a.css'</style>", "has an external style"),
    ],
)
def test_foreign_matter_on_a_page_is_found(tree, source, what):
    [problem] = all_problems(tree, tree[1]([*GOOD, ("markdown", "more", source)]))
    assert problem.startswith("chapters/one.ipynb, cell 'more': ") and what in problem


@pytest.mark.parametrize(
    "source",
    [
        "figure(draw(8), caption='x')",
        "explore(draw, alt='', r=[1])",
        "book.figure(f, alt=None)",
        "x = [figure(f)]",
    ],
)
def test_picture_without_words_is_found(tree, source):
    [problem] = all_problems(tree, tree[1]([*GOOD, ("code", "more", source)]))
    assert problem.startswith("chapters/one.ipynb, cell 'more': ") and "needs alt=" in problem


def test_file_that_is_no_notebook_is_named(tree):
    (tree[0] / "chapters/one.ipynb").write_text("{}")
    with pytest.raises(ValueError, match="chapters/one.ipynb: this is no notebook"):
        rules.book_notebooks(tree[0])


@pytest.mark.parametrize("text", ["title: x\n", "repository:\n  url: https://example.org/a/b\n", "html:\n  url: x\n"])
def test_config_without_address_is_an_error(tree, text):
    (tree[0] / "_config.yml").write_text(text)
    with pytest.raises(ValueError, match="_config.yml: repository.url must be"):
        rules.repository_of(tree[0])
