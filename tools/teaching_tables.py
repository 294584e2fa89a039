r"""The tables of appendix/teaching.md, read from the chapters: times, exercises, sliders.

    python tools/teaching_tables.py [--check]

Writes each table between its two comments on the page; with --check writes nothing and exits with 1 if a table is
not what the chapters say. Run it after a change of an exercise, a slider or a chapter's title or time.
"""

import argparse
import ast
import re
import sys
from pathlib import Path
from typing import NamedTuple

from notebook_rules import ROOT, book_notebooks

PAGE = "appendix/teaching.md"
LEVELS = ("easy", "medium", "hard")
_EXERCISE = re.compile(r"^:::\{exercise\}\s*(?P<title>[^\n]*)\n(?P<body>.*?)^:::$", re.S | re.M)
_SIZE = re.compile(r"\((?P<level>\w+), (?P<minutes>\d+) minutes?\.\)")


class Slider(NamedTuple):
    r"""One call of explore(): the id of its figure, the names of its axes, its caption."""

    id: str
    axes: list[str]
    caption: str


class Chapter(NamedTuple):
    r"""What the tables need of a chapter; exercises are (title, level, minutes)."""

    name: str
    title: str
    minutes: int
    exercises: list[tuple[str, str, int]]
    sliders: list[Slider]

    @property
    def number(self):
        r"""The number of the chapter, from its file's name."""
        return int(self.name[:2])

    @property
    def page(self):
        r"""The chapter's page, seen from the teaching page."""
        return f"../chapters/{self.name}.html"


def exercises_of(notebook):
    r"""(title, level, minutes) of each exercise; ValueError that names one without level or minutes."""
    for name, _, source in notebook.cells("markdown"):
        for exercise in _EXERCISE.finditer(source):
            size = _SIZE.search(exercise["body"])
            if not size or size["level"].lower() not in LEVELS:
                what = f'an exercise must say "(Easy, 3 minutes.)" with one of {LEVELS}'
                raise ValueError(f"{notebook.file}, cell {name!r}: {what}")
            yield exercise["title"].strip(), size["level"].lower(), int(size["minutes"])


def sliders_of(notebook):
    r"""Each explore() call, in order, with the id that its figure gets (see lora_course.book.explore)."""
    times = {}
    for _, _, source in notebook.cells("code"):
        code = "\n".join(line for line in source.splitlines() if not line.lstrip().startswith(("%", "!")))
        for node in ast.walk(ast.parse(code)):
            if not (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "explore"):
                continue
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            draw = getattr(node.args[0] if node.args else given["draw"], "id", "draw")
            times[draw] = times.get(draw, 0) + 1
            own_id = f"explore-{draw}" + (f"-{times[draw]}" if times[draw] > 1 else "")
            labels = ast.literal_eval(given["labels"]) if isinstance(given.get("labels"), ast.Dict) else {}
            names = [name for name in given if name not in ("draw", "alt", "caption", "start", "labels", None)]
            symbols = {"alpha": "α"} | labels
            caption = given.get("caption")
            text = caption.value if isinstance(caption, ast.Constant) else ""
            yield Slider(own_id, [symbols.get(name, name) for name in names], text)


def chapters(root=ROOT):
    r"""All chapters of the book; ValueError if one does not say its minutes."""
    for notebook in book_notebooks(root):
        path = Path(notebook.file)
        if path.parent.name != "chapters":
            continue
        opening = next(source for _, _, source in notebook.cells("markdown"))
        minutes = re.search(r"about (\d+) minutes", opening)
        if not minutes:
            raise ValueError(f'{notebook.file}: the first cell must say "about N minutes"')
        title = opening.splitlines()[0].removeprefix("# ").strip()
        yield Chapter(path.stem, title, int(minutes[1]), list(exercises_of(notebook)), list(sliders_of(notebook)))


def tables(found):
    r"""Name of a table -> its Markdown."""
    times = ["| Chapter | To read | Exercises | Sliders |", "|---|---:|---:|---:|"]
    exercises = ["| Chapter | Easy | Medium | Hard |", "|---|---|---|---|"]
    sliders = ["| Chapter | Slider over | What it shows |", "|---|---|---|"]
    for one in found:
        minutes = sum(minutes for _, _, minutes in one.exercises)
        link = f'{one.number}. <a href="{one.page}">{one.title}</a>'
        work = f"{len(one.exercises)} in {minutes} min"
        times.append(f"| {link} | {one.minutes} min | {work} | {len(one.sliders)} |")
        named = [(t.replace("|", r"\|"), level, m) for t, level, m in one.exercises]  # a bar would end the cell
        cells = ("; ".join(f"{t} ({m} min)" for t, level, m in named if level == at) for at in LEVELS)
        exercises.append(f"| {one.number} | {' | '.join(cells)} |")
        for slider in one.sliders:
            what = f'<a href="{one.page}#{slider.id}">{", ".join(slider.axes)}</a>'
            sliders.append(f"| {one.number} | {what} | {slider.caption.replace('|', '/')} |")
    reading, count = sum(one.minutes for one in found), sum(len(one.exercises) for one in found)
    minutes, moving = sum(m for one in found for _, _, m in one.exercises), sum(len(one.sliders) for one in found)
    times.append(f"| **All** | **{reading} min** | **{count} in {minutes} min** | **{moving}** |")
    return {
        name: "\n".join(rows) for name, rows in {"times": times, "exercises": exercises, "sliders": sliders}.items()
    }


def filled(page, found):
    r"""The page's text with each table between its comments; ValueError if a table has no place."""
    for name, table in tables(found).items():
        begin, end = f"<!-- {name}: written by tools/teaching_tables.py -->", f"<!-- end of {name} -->"
        pattern = re.compile(re.escape(begin) + r".*?" + re.escape(end), re.S)
        if len(pattern.findall(page)) != 1:
            raise ValueError(f"{PAGE} must hold once: {begin} ... {end}")
        page = pattern.sub(lambda _, whole=f"{begin}\n\n{table}\n\n{end}": whole, page)
    return page


def main(arguments=None, root=ROOT):
    r"""Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, report what is stale")
    options = parser.parse_args(arguments)
    path = Path(root) / PAGE
    try:
        before = path.read_text(encoding="utf-8")
        after = filled(before, list(chapters(root)))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    if after == before:
        return 0
    if options.check:
        print(f"{PAGE} is not what the chapters say: run python tools/teaching_tables.py", file=sys.stderr)
        return 1
    path.write_text(after, encoding="utf-8")
    print(f"changed {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
