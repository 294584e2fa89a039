r"""Write the address of the published repository everywhere it is needed.

    python tools/set_repository.py OWNER/NAME [--ref REF]

Changes repository.url in _config.yml, the set-up cells of all notebooks (they install OWNER/NAME at REF: a
branch, tag or commit; by default the one that they name already), and the links with the old address in the
other pages and papers. Running it again changes nothing.
"""

import argparse
import re
import sys
from pathlib import Path

from notebook_rules import REF, REPOSITORY, ROOT, repository_of

# where links with the address may stand; notebooks hold them in set-up cells and Colab buttons
PLACES = ("*.md", "CITATION.cff", "pyproject.toml", "chapters/*.ipynb", "appendix/*.ipynb", "appendix/*.md")


def validated(repository, ref):
    r"""The arguments, if they can be an address on GitHub and a name in git; else ValueError."""
    owner, _, name = repository.partition("/")
    fits = re.fullmatch(REPOSITORY, repository) and re.fullmatch(r"[A-Za-z0-9]+(-[A-Za-z0-9]+)*", owner)
    if not fits or len(owner) > 39 or len(name) > 100 or name in (".", "..") or name.endswith(".git"):
        raise ValueError(f"repository must be OWNER/NAME as GitHub allows it, got {repository!r}")
    if ref is not None and (not re.fullmatch(REF, ref) or ".." in ref or ref[0] in "-/." or ref[-1] in "/."):
        raise ValueError(f"ref must be a branch, tag or commit, got {ref!r}")
    return repository, ref


def readdressed(text, old, new, ref=None):
    r"""``text`` with every link to repository ``old`` leading to ``new``, and set-up cells at ``ref``."""
    end = r"(?![\w-]|\.\w)"  # not the beginning of a longer name
    text = re.sub(rf"(github\.com[/:]|/github/|/v2/gh/){re.escape(old)}(?=\.git\b|{end})", rf"\g<1>{new}", text)
    (old_owner, old_name), (new_owner, new_name) = old.split("/"), new.split("/")
    pages = rf"\b{re.escape(old_owner)}\.github\.io/{re.escape(old_name)}{end}"
    text = re.sub(pages, f"{new_owner}.github.io/{new_name}", text)
    if ref:
        text = re.sub(rf"(git\+https://github\.com/{re.escape(new)}@){REF}", rf"\g<1>{ref}", text)
    return text


def files_with_links(root=ROOT):
    r"""The files that this script rewrites, _config.yml first."""
    root = Path(root)
    return [root / "_config.yml", *sorted({path for place in PLACES for path in root.glob(place)})]


def set_repository(repository, ref=None, root=ROOT):
    r"""Do it under ``root``; returns the files that changed. On bad arguments ValueError, and no change."""
    repository, ref = validated(repository, ref)
    old = repository_of(root)
    changed = []
    for path in files_with_links(root):
        before = path.read_text(encoding="utf-8")
        after = readdressed(before, old, repository, ref)
        if after != before:
            path.write_text(after, encoding="utf-8")
            changed.append(path)
    return changed


def main(arguments=None):
    r"""Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", metavar="OWNER/NAME")
    parser.add_argument("--ref", help="branch, tag or commit that the set-up cells install")
    options = parser.parse_args(arguments)
    try:
        changed = set_repository(options.repository, options.ref)
    except ValueError as error:
        parser.error(str(error))
    for path in changed:
        print(f"changed {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
