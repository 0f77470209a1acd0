"""Docstrings and comments use plain words: counts per 1,000 words stay below fixed bounds."""

import ast
import io
import pathlib
import re
import tokenize

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PACKAGES = ("mm_keras", "pipelines", "trainers")
BOUNDS = {
    "clauses that begin with what": (r"\bwhat\b", 1.0),
    "those of, that of": (r"\b(?:those|that) of\b", 0.3),
    "tell, told, say, says, said": (r"\b(?:tells?|told|says?|said)\b", 0.3),
}
"""{words: (pattern, largest number per 1,000 words)}."""


def text_of(source):
    """Return the docstrings and comments of a module."""
    tree = ast.parse(source)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    parts = [
        ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, documented)
    ]
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    parts += [token.string for token in tokens if token.type == tokenize.COMMENT]
    return "\n".join(parts)


def rates(text):
    """Return {words: number per 1,000 words}."""
    num_words = max(1, len(re.findall(r"[A-Za-z']+", text)))
    return {
        words: 1000 * len(re.findall(pattern, text, re.IGNORECASE)) / num_words
        for words, (pattern, _) in BOUNDS.items()
    }


def text_of_package(package):
    files = sorted((ROOT / package).rglob("*.py"))
    return "\n".join(text_of(file.read_text(encoding="utf-8")) for file in files)


@pytest.mark.parametrize("package", PACKAGES)
def test_docstrings_and_comments_use_plain_words(package):
    found = rates(text_of_package(package))
    too_many = {words: found[words] for words, (_, bound) in BOUNDS.items() if found[words] > bound}
    assert not too_many, too_many


def test_text_is_taken_from_docstrings_and_comments_alone():
    source = '''"""Module."""
NAME = "a string says"  # a comment
def f():
    """Function."""
'''
    assert text_of(source) == "Module.\nFunction.\n# a comment"


def test_words_are_counted_per_thousand():
    text = "Tells what. " + "word " * 98
    assert rates(text) == {
        "clauses that begin with what": 10.0,
        "those of, that of": 0.0,
        "tell, told, say, says, said": 10.0,
    }


def test_public_docstrings_begin_with_a_capital_and_end_their_first_sentence():
    bad = [
        f"{file.relative_to(ROOT)}:{node.lineno} {node.name}"
        for package in PACKAGES
        for file in sorted((ROOT / package).rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not re.match(r"[A-Z0-9\"`][^\n]*", ast.get_docstring(node) or "A")
    ]
    assert not bad, "\n".join(bad)
