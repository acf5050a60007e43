"""Text from data stays text in every language, and a file is there whole or not at all."""

import csv
import io
import os
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.plots.style import save, shortened, styled_figure, xml_text
from lm_eval_calibration.records.files import write_whole
from lm_eval_calibration.reports.escaping import csv_cell, latex, markdown
from lm_eval_calibration.reports.numbers import percent
from lm_eval_calibration.reports.page import render_page

NASTY = '<script>alert(1)</script> & "it\'s" \\input{x} $5_000^2 #1 100% ~a|b`c`*d*[e](f)\n=1+1'


def test_latex_has_no_live_character_left() -> None:
    text = latex(NASTY)
    for command in ("textbackslash", "textasciitilde", "textasciicircum", "textless", "textgreater", "textbar"):
        text = text.replace(rf"\{command}{{}}", "")
    text = text.replace(r"{\char34}", "")
    for char in "{}$&#%_":
        text = text.replace(rf"\{char}", "")
    assert not set(text) & set('\\{}$&#%_~^<>|"\n')
    assert latex("naïve 中") == "naïve U+4E2D"


def test_markdown_is_one_line_without_markup() -> None:
    text = markdown(NASTY)
    assert "\n" not in text
    assert "<" not in text
    for char in "|`*[]$_#":
        assert text.count(char) == text.count(f"\\{char}") > 0


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_a_spreadsheet_takes_no_text_for_a_formula(start: str) -> None:
    assert csv_cell(f"{start}HYPERLINK(1)") == "'" + start.replace("\t", "\\t").replace("\r", "\\r") + "HYPERLINK(1)"
    assert csv_cell("plain - text") == "plain - text"
    buffer = io.StringIO()
    csv.writer(buffer).writerow([csv_cell(NASTY)])
    assert next(csv.reader(io.StringIO(buffer.getvalue(), newline=""))) == [NASTY]


def test_xml_text_is_read_back() -> None:
    text = "\x00\x08" + NASTY
    tree = ET.fromstring(f'<a b="{xml_text(text)}">{xml_text(text)}</a>')
    assert tree.text == f"\\x00\\x08{NASTY}"
    assert tree.attrib["b"] == f"\\x00\\x08{NASTY}"


def test_a_page_escapes_what_it_is_given(tmp_path: Path) -> None:
    template = tmp_path / "some.html"
    template.write_text('{% extends "page.html" %}{% block body %}<h1>{{ title }}</h1>{% endblock %}', encoding="utf-8")
    page = render_page(template, title=NASTY)
    assert "<script>" not in page
    assert page.count("&lt;script&gt;alert(1)") == 2
    assert "http" not in page  # nothing to load


def test_a_figure_sets_names_as_they_are() -> None:
    with styled_figure(3, 3) as (figure, (axes,)):
        axes.plot([0, 1], [0, 1], label="<script>a</script> $x^2$ & more")
        axes.legend()
        svg = save(figure, "svg", label=NASTY).decode()
        png = save(figure, "png", label="x")
    tree = ET.fromstring(svg)
    texts = "".join(tree.itertext())
    assert "<script>a</script> $x^2$ & more" in texts
    assert tree.attrib["aria-label"] == NASTY
    assert png.startswith(b"\x89PNG")


def test_the_same_figure_is_the_same_file() -> None:
    def draw() -> bytes:
        with styled_figure(3, 3) as (figure, (axes,)):
            axes.plot([0, 1], [0, 1])
            return save(figure, "svg", label="line")

    assert draw() == draw()


def test_long_names_keep_both_ends() -> None:
    assert shortened("a" * 50 + "b" * 50) == "a" * 19 + "…" + "b" * 20
    assert shortened("short") == "short"


def test_a_file_is_replaced_whole_or_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "file.txt"
    write_whole(path, "one")
    path.chmod(0o640)
    write_whole(path, b"two")
    assert path.read_text(encoding="utf-8") == "two"
    assert path.stat().st_mode & 0o777 == 0o640

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(UserError, match=r"file\.txt can't be written: No space left"):
        write_whole(path, "three")
    assert path.read_text(encoding="utf-8") == "two"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_a_folder_in_the_way_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(UserError, match="taken can't be written"):
        write_whole(tmp_path / "taken", "text")
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize(
    ("share", "text"),
    [
        *[(0, "0%"), (1, "100%"), (0.5, "50%"), (0.997, "99.7%"), (0.003, "0.3%"), (0.994, "99%")],
        *[(0.99997, "> 99.9%"), (1e-9, "< 0.1%")],
    ],
)
def test_only_all_is_100_percent_and_only_none_is_0(share: float, text: str) -> None:
    assert percent(share) == text
