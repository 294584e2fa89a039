"""What the repository says about itself is so: commands, pins, workflows, license files."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def read(name: str) -> str:
    return (ROOT / name).read_text("utf8")


def pins(name: str) -> dict[str, str]:
    """Name and version of the `name==version` lines of a file; any other line fails."""
    lines = [line.split("#")[0].strip() for line in read(name).splitlines()]
    found = [
        re.fullmatch(r"([\w.-]+)==([\w.]+)", line) or pytest.fail(f"{name}: not exact: {line!r}")
        for line in lines
        if line
    ]
    return {re.sub(r"[-_.]+", "-", match[1]).lower(): match[2] for match in found}


def lower_bounds() -> dict[str, str]:
    dependencies = tomllib.loads(read("pyproject.toml"))["project"]["dependencies"]
    found = [re.fullmatch(r"([\w-]+)>=([\d.]+)(,<\d+)?", line) for line in dependencies]
    assert all(found), f"pyproject.toml: lower bounds only, got {dependencies}"
    return {match[1].lower(): match[2] for match in found}


def targets() -> dict[str, tuple[list[str], bool]]:
    """Each target of the Makefile: its prerequisites, and whether `make help` lists it."""
    rules = re.findall(r"^([a-z-]+):([^#\n]*)(##.*)?$", read("Makefile"), re.MULTILINE)
    return {name: (needs.split(), bool(note)) for name, needs, note in rules}


def commands(text: str) -> set[str]:
    """Targets named after `make` in code: in backticks, in blocks and in `run:` lines."""
    code = re.findall(r"`([^`\n]+)`|^\s*(?:-? ?run: )?(make .*)$", text, re.MULTILINE)
    lines = [" ".join(parts).strip() for parts in code]
    words = [word for line in lines if re.match(r"make( |$)", line) for word in line.split("#")[0].split()[1:]]
    return {word for word in words if "=" not in word}


@pytest.mark.parametrize(
    "name", ["README.md", "CONTRIBUTING.md", ".ci/run", *(f".github/workflows/{p.name}" for p in WORKFLOWS)]
)
def test_every_make_command_that_is_named_exists(name):
    assert commands(read(name)) <= targets().keys()


def test_readme_names_the_two_commands_and_ci_runs_the_tests():
    assert {"book", "test"} <= commands(read("README.md"))
    assert "make test" in read(".ci/run").splitlines()
    assert any("run: .ci/run" in path.read_text("utf8") for path in WORKFLOWS)


def test_make_help_lists_every_target_that_a_person_calls():
    known = targets()
    phony = set(re.search(r"^\.PHONY: (.*)$", read("Makefile"), re.MULTILINE)[1].split())
    parts = {need for needs, listed in known.values() if listed for need in needs}
    assert phony == known.keys()
    assert [name for name in sorted(phony - parts) if not known[name][1]] == []
    shown = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {line.split()[0] for line in shown.splitlines()} == {name for name in known if known[name][1]}


def test_book_and_tests_are_pinned_exactly_and_the_two_lists_agree():
    direct, frozen = pins("requirements.txt"), pins("constraints.txt")
    # torch alone stands in one list only: it may come from another index, with another suffix
    assert {name: frozen.get(name) for name in direct if name != "torch"} == {
        name: version for name, version in direct.items() if name != "torch"
    }


def test_the_package_has_lower_bounds_only_and_the_pins_meet_them():
    assert "==" not in read("pyproject.toml")
    assert lower_bounds().keys() <= pins("requirements.txt").keys()


def test_the_oldest_environment_is_the_lower_bounds():
    oldest = pins("tests/environments/oldest.txt")
    for name, bound in lower_bounds().items():
        assert name == "torch" or oldest[name] == bound or oldest[name] == f"{bound}.0", name


def test_the_colab_environment_is_pinned_and_has_the_widgets_of_colab():
    assert pins("tests/environments/colab.txt")["ipywidgets"] == "7.7.1"


def check(schema: str, *paths: Path) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, paths)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_workflows_are_valid_and_each_job_has_a_time_limit():
    check("vendor.github-workflows", *WORKFLOWS)
    check("custom.github-workflows-require-timeout", *WORKFLOWS)


def test_actions_are_pinned_by_commit_with_the_version_beside():
    for path in WORKFLOWS:
        for line in re.findall(r"uses:.*", path.read_text("utf8")):
            assert re.fullmatch(r"uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+(\.\d+)*", line), f"{path.name}: {line}"


def test_the_citation_file_is_valid():
    check("vendor.citation-file-format", ROOT / "CITATION.cff")
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["version"] == tomllib.loads(read("pyproject.toml"))["project"]["version"]


def test_license_files_and_citation_name_the_same_licenses():
    assert read("LICENSE").startswith("MIT License")
    assert "Creative Commons Attribution 4.0 International Public License" in read("LICENSE-text")
    assert set(yaml.safe_load(read("CITATION.cff"))["license"]) == {"MIT", "CC-BY-4.0"}


def test_pre_commit_needs_no_network_and_its_files_exist():
    repositories = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    assert [repository["repo"] for repository in repositories] == ["local"]
    for hook in repositories[0]["hooks"]:
        for word in hook["entry"].split():
            assert not word.startswith("tools/") or (ROOT / word).is_file(), word


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_files_that_the_papers_link_to_exist(name):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", read(name))
    assert links and [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_the_papers_show_no_picture_from_another_host(name):
    assert not re.search(r"!\[[^]]*\]\(https?:|<img", read(name))
