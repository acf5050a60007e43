"""The gate's result for people and for CI systems."""

import xml.etree.ElementTree as ET
from collections.abc import Callable
from itertools import groupby

from lm_eval_calibration.plots.style import xml_characters
from lm_eval_calibration.records.display import visible
from lm_eval_calibration.reports.drift.gate import Test
from lm_eval_calibration.reports.drift.result import Result
from lm_eval_calibration.reports.escaping import markdown
from lm_eval_calibration.reports.names import shown
from lm_eval_calibration.reports.numbers import interval, json_text, number, p_value
from lm_eval_calibration.reports.tables import markdown_table, plain_table

HEADS = ("task", "metric", "base", "new", "worse by", "95% interval", "tolerance", "p (Holm)", "verdict")


def text(result: Result) -> str:
    """Lines for a terminal; columns separated by tabs for other programs."""
    lines = [f"base {result.base}", f"new  {result.new}", *(f"note: {note}" for note in result.notes)]
    lines = list(map(visible, lines))
    if result.tests:
        lines += plain_table(HEADS, map(_row, result.tests))
        lines.append(
            f"{result.n_tests} one-sided tests of a worsening beyond the tolerance; the chance of any false alarm is "
            "at most 5% (Holm)"
        )
    return "\n".join([*lines, *map(visible, result.summary().splitlines())]) + "\n"


def junit(result: Result) -> str:
    """A suite for each task, a case for each metric: drifted is a failure, not comparable an error."""
    root = ET.Element("testsuites", name="lm-eval-calibration drift")
    if result.reasons:
        suite = ET.SubElement(root, "testsuite", name="comparable", tests="1", failures="0", errors="1", skipped="0")
        case = ET.SubElement(suite, "testcase", classname="drift", name="comparable")
        ET.SubElement(case, "error", message=xml_characters("; ".join(result.reasons)), type="not comparable")
    for task, grouped in groupby(result.tests, key=lambda test: test.task):
        tests = list(grouped)
        count = {name: str(sum(test.verdict == name for test in tests)) for name in ("drifted", "undefined")}
        named = {"name": xml_characters(shown(task)), "tests": str(len(tests)), "failures": count["drifted"]}
        suite = ET.SubElement(root, "testsuite", {**named, "errors": "0", "skipped": count["undefined"]})
        for test in tests:
            case = ET.SubElement(suite, "testcase", classname=xml_characters(f"drift.{shown(task)}"), name=test.metric)
            if test.verdict == "drifted":
                ET.SubElement(case, "failure", message=_sentence(test), type="drifted")
            elif test.verdict == "undefined":
                ET.SubElement(case, "skipped", message=xml_characters(test.reason or "undefined"))
            else:
                ET.SubElement(case, "system-out").text = _sentence(test)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def github(result: Result) -> str:
    """Workflow commands: an annotation for each drift, or for each reason against comparing."""
    lines = [_annotation("error", "not comparable", reason) for reason in result.reasons]
    lines += [
        _annotation("error", f"drift: {shown(test.task)} {test.metric}", _sentence(test)) for test in result.drifted
    ]
    lines += [_annotation("notice", "drift", note) for note in result.notes]
    if not result.reasons:
        lines.append(_annotation("notice", "drift", result.summary()))
    return "\n".join(lines) + "\n"


def md(result: Result) -> str:
    """Markdown for the page of a CI job: the outcome, then the table."""
    mark = {"ok": "✅", "drifted": "❌"}.get(result.verdict, "⚠️")
    lines = ["### Calibration drift", "", f"{mark} {markdown(result.summary())}", ""]
    lines += [f"- base {markdown(result.base)}", f"- new {markdown(result.new)}"]
    lines += [f"- {markdown(note)}" for note in result.notes]
    if result.tests:
        rows = [[markdown(cell) for cell in _row(test)] for test in result.tests]
        lines += ["", *markdown_table(HEADS, rows, ["---", "---", *["---:"] * 6, "---"])]
    return "\n".join(lines) + "\n"


FORMATS: dict[str, Callable[[Result], str]] = {
    "text": text,
    "json": lambda result: json_text(result.to_dict()),
    "junit": junit,
    "github": github,
    "md": md,
}
"""Functions by the name of their format."""


def _row(test: Test) -> tuple[str, ...]:
    values = (number(test.base, undefined="nan"), number(test.new, undefined="nan"), f"{test.worsening:+.4f}")
    tested = interval(test.low, test.high, "+.4f"), f"{test.tolerance:g}", p_value(test.p_adjusted, 4)
    return shown(test.task), test.metric, *values, *tested, test.verdict


def _sentence(test: Test) -> str:
    """What a test says, with its numbers."""
    docs = f"{test.n_new} docs, paired" if test.paired else f"{test.n_base} and {test.n_new} docs, unpaired"
    return (
        f"{test.metric} {number(test.base)} -> {number(test.new)}, worse by {test.worsening:+.4f} "
        f"(95% interval {test.low:+.4f} to {test.high:+.4f}), tolerance {test.tolerance:g}, "
        f"p {p_value(test.p_adjusted, 4)} after Holm; {docs}: {test.verdict}"
    )


def _annotation(kind: str, title: str, message: str) -> str:
    title = _workflow(title).replace(":", "%3A").replace(",", "%2C")
    return f"::{kind} title={title}::{_workflow(message)}"


def _workflow(value: str) -> str:
    """Text in a workflow command, which ends at a line's end."""
    return value.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
