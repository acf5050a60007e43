"""A report as HTML, Markdown, JSON or a picture."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lm_eval_calibration.plots import RiskCoveragePoint
from lm_eval_calibration.plots.drawing import draw_reliability
from lm_eval_calibration.reports.escaping import markdown
from lm_eval_calibration.reports.page import render_page
from lm_eval_calibration.reports.report.content import Domain, Report
from lm_eval_calibration.results import Measured

MOST_PICTURES = 9

_ACRONYMS = ("mmlu", "stem", "arc", "bbh", "gsm8k", "us", "mbpp", "piqa", "boolq")


def to_html(report: Report) -> str:
    """Return the page."""
    tasks = by_overconfidence(report)
    return render_page(
        Path(__file__).with_name("report.html"),
        filters=_FILTERS,
        title=f"Calibration of {model_name(report.model)}",
        report=report,
        forest_tasks=tasks,
        forest=[(name, found["overconfidence"]) for name, found in tasks],
        reach=_reach([found["overconfidence"] for _, found in tasks]),
    )


def by_overconfidence(report: Report) -> list[tuple[str, dict[str, Measured]]]:
    """The tasks, the most overconfident first, those where it is undefined last."""

    def key(item: tuple[str, dict[str, Measured]]) -> tuple[bool, float]:
        value = item[1]["overconfidence"].value
        return math.isnan(value), -value

    return sorted(report.tasks.items(), key=key)


def to_markdown(report: Report) -> str:
    """Return the verdicts, the metrics and the method as Markdown."""
    lines = [f"# Can the confidence of {markdown(model_name(report.model))} be trusted?", ""]
    lines += ["Figures in brackets are 95% intervals.", ""]
    for domain in report.domains:
        lines += [f"## {markdown(spoken(domain.name))} ({domain.n_docs:,})", ""]
        lines += [f"{domain.without}.", ""] if domain.without else []
        for answer in domain.answers:
            lines.append(f"- {answer.question} **{markdown(answer.short)}.** {markdown(answer.figures)}")
        lines += ["", "| metric | value | 95% interval | calibrated: mean | 95% below | p |"]
        lines.append("|---|---|---|---|---|---|")
        for name, found in domain.metrics.items():
            null = domain.nulls.get(name)
            cells = [f"`{name}`", _four(found.value), f"{_four(found.low)} to {_four(found.high)}"]
            cells += [_four(null.mean), _four(null.upper), f"{null.p_value:.2g}"] if null else ["–", "–", "–"]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    if report.tasks:
        lines += [
            "## Each task",
            "",
            "| task | docs | acc | overconfidence | ece | auroc |",
            "|---|---|---|---|---|---|",
        ]
        for task, of_task in by_overconfidence(report):
            cells = [f"{_four(m.value)} [{_four(m.low)}, {_four(m.high)}]" for m in of_task.values()]
            acc, ece, gap, auroc = cells
            lines.append(f"| {markdown(task)} | {of_task['acc'].n_docs:,} | {acc} | {gap} | {ece} | {auroc} |")
        lines.append("")
    lines += ["## The worst confident errors", ""]
    for example in report.examples:
        lines.append(f"- {example.confidence:.1%} sure: {markdown(example.task)}, doc {example.doc_id}")
        if example.prompt is not None:
            lines.append(
                f"  answered {markdown(example.answer or '')}; right is {markdown(example.right or 'unknown')}:"
            )
            lines.append(f"  {markdown(example.prompt)}")
    lines += ["", "## Method", ""]
    lines += [f"- {heading}: {markdown(text)}" for heading, text in report.method]
    lines += [f"- Left out: {markdown(task)}: {markdown(reason)}" for task, reason in report.left_out.items()]
    return "\n".join(lines) + "\n"


def to_json(report: Report) -> str:
    """Return all that the report shows as JSON; undefined numbers are null."""
    data = {
        "model": report.model,
        "n_docs": report.n_docs,
        "domains": [_domain(domain) for domain in report.domains],
        "tasks": {task: {name: _dict(m) for name, m in found.items()} for task, found in report.tasks.items()},
        "full_ece": report.vocabulary and {**report.vocabulary._asdict(), "bins": _dicts(report.vocabulary.bins)},
        "worst_confident_errors": [vars(example) for example in report.examples],
        "method": dict(report.method),
        "left_out": report.left_out,
    }
    return json.dumps(_defined(data), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def to_picture(report: Report, suffix: str) -> bytes:
    """Return the reliability diagrams of the first domains as SVG or PNG.

    Raises:
        UserError: matplotlib is not installed.
    """
    diagrams = [(spoken(domain.name), domain.reliability) for domain in report.domains[:MOST_PICTURES]]
    return draw_reliability(diagrams, f"Reliability of {model_name(report.model)}", suffix)


FORMATS: dict[str, Callable[[Report], str | bytes]] = {
    "html": to_html,
    "md": to_markdown,
    "json": to_json,
    "png": lambda report: to_picture(report, "png"),
    "svg": lambda report: to_picture(report, "svg"),
}
"""Format to what writes it."""


def _domain(domain: Domain) -> dict[str, Any]:
    again = domain.recalibrated
    return {
        "name": domain.name,
        "tasks": list(domain.tasks),
        "n_docs": domain.n_docs,
        "answers": _dicts(domain.answers),
        "metrics": {name: _dict(found) for name, found in domain.metrics.items()},
        "nulls": {name: null and null._asdict() for name, null in domain.nulls.items()},
        "reliability": _dicts(domain.reliability.bins),
        "risk_coverage": _dicts(domain.risk_coverage),
        "recalibrated": again
        and {
            "method": again.method,
            "temperature": again.temperature,
            "changes": _dicts(again.changes),
            "reliability": _dicts(again.reliability.bins),
        },
    }


def _dict(found: Any) -> dict[str, Any]:
    return dict(found._asdict())


def _dicts(rows: Sequence[Any]) -> list[dict[str, Any]]:
    return [_dict(row) for row in rows]


def _defined(data: Any) -> Any:
    """The data with null for what is not a finite number."""
    if isinstance(data, dict):
        return {key: _defined(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_defined(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _four(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4f}"


def _short(n_docs: int) -> str:
    """A count in the width of a bar."""
    return str(n_docs) if n_docs < 1000 else f"{n_docs / 1000:.3g}k"


def _point_at(points: Sequence[RiskCoveragePoint], coverage: float) -> RiskCoveragePoint:
    """The first point that answers at least this share."""
    return next((point for point in points if point.coverage >= coverage - 1e-9), points[-1])


def _reach(of_tasks: Sequence[Measured]) -> float:
    """How far the axis of the forest plot goes to either side, in quarters."""
    ends = [abs(end) for found in of_tasks for end in (found.value, found.low, found.high) if not math.isnan(end)]
    return max(1, math.ceil(4 * max(ends, default=0))) / 4


def spoken(name: str) -> str:
    """The name of a task or group as people say it."""
    words = name.removesuffix("_calibration").split("_")
    said = " ".join(word.upper() if word in _ACRONYMS else word for word in words)
    return said[:1].upper() + said[1:]


def model_name(model: str) -> str:
    """The name of a model; of one in a folder, the folder's."""
    return Path(model).name if Path(model).is_absolute() else model


def _shortened(name: str, length: int = 24) -> str:
    said = spoken(name).removeprefix("MMLU ")
    return said if len(said) <= length else f"{said[: length - 1]}…"


_FILTERS: dict[str, Callable[..., Any]] = {
    "number": _number,
    "number4": _four,
    "signed": lambda value: "–" if math.isnan(value) else f"{value:+.3f}",
    "percent": lambda value: f"{value:.0f}%",
    "percent1": lambda value: f"{value:.1f}%",
    "count": lambda value: f"{value:,}",
    "short": _short,
    "spoken": spoken,
    "model_name": model_name,
    "shortened": _shortened,
    "point_at": _point_at,
    "at_coverage": lambda points, coverage: _point_at(points, coverage).risk,
}
