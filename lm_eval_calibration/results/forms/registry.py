"""Every form of other people's files: each module of this folder that has an object ``FORM``."""

from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.results import forms as folder
from lm_eval_calibration.results.forms.form import Form
from lm_eval_calibration.results.names import parse

SUFFIXES = (".json", ".jsonl", ".parquet", ".eval")
"""Files whose beginning is looked at."""


class NoDocsError(UserError):
    """A file of another program that holds no docs; the message says where they are."""


@cache
def forms() -> tuple[Form, ...]:
    """Return the forms, by name of their module."""
    modules = (import_module(f"{folder.__name__}.{found.name}") for found in iter_modules(folder.__path__))
    return tuple(module.FORM for module in modules if hasattr(module, "FORM"))


def form_of(path: Path, head: bytes) -> Form | None:
    """Return the form of the docs of a file that begins so; None where they are in none.

    Raises:
        NoDocsError: the file is of such a program, but holds no docs.
    """
    if parse(path).suffix not in SUFFIXES:
        return None
    for form in forms():
        if form.is_mine(path, head):
            return form
        if reason := form.without_docs(path, head):
            raise NoDocsError(f"{path}: {reason}")
    return None


def what_is_read() -> str:
    """Say whose logs are read."""
    names = ", ".join(form.name for form in forms())
    return f"read are logs of the harness, {names}; any table with --columns"
