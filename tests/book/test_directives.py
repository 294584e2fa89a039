r"""The table of the environment says what is installed."""

from importlib.metadata import version

import pytest

pytest.importorskip("sphinx")  # the environments of Colab and of the oldest versions build no pages

from lora_course.book.directives import DIRECTIVES, environment_html  # noqa: E402


def test_versions_are_those_that_are_installed():
    html = environment_html("# a comment\nnumpy==0.0.1\nno-such-package==3\n")
    assert f'<th scope="row">numpy</th><td>{version("numpy")}</td>' in html
    assert '<th scope="row">no-such-package</th><td>not installed</td>' in html
    assert "comment" not in html and "0.0.1" not in html


def test_directives_have_the_names_that_pages_use():
    assert set(DIRECTIVES) == {
        *("claims-ledger", "claims-counts", "claims-history", "claims-replicated"),
        "build-environment",
    }
