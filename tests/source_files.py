"""Python files as syntax trees."""

import ast
from pathlib import Path


def parse(path: Path) -> ast.Module:
    """Return the file's syntax tree.

    After many other tests in one process, Python 3.11.7 was seen to end once in "SystemError: AST constructor recursion
    depth mismatch" on a file that is sound, which is a matter of the interpreter's own counter: then once more.
    """
    text = path.read_text(encoding="utf-8")
    try:
        return ast.parse(text)
    except SystemError:
        return ast.parse(text)
