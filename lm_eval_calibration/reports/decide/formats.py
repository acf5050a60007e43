"""A decision, and a check of one, as text and as JSON."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from lm_eval_calibration.decisions import Checked, Decision, SetsShown
from lm_eval_calibration.decisions.candidates import LOFREE
from lm_eval_calibration.decisions.shown import AnswersShown
from lm_eval_calibration.metrics.group_errors import GroupErrors
from lm_eval_calibration.records.display import counted
from lm_eval_calibration.reports.decide.sentences import (
    may_answer,
    percent_of,
    share,
    what_it_costs,
    what_it_means,
    why_not,
)
from lm_eval_calibration.reports.groups import HEADS, left_out, rows_of_groups, what_groups_say
from lm_eval_calibration.reports.names import shown
from lm_eval_calibration.reports.numbers import count, json_text, number, p_value
from lm_eval_calibration.reports.tables import plain_table

ALL = "all"


def text(decision: Decision) -> str:
    """Return the answer first, then tables."""
    wanted = decision.wanted
    if decision.by is None:
        lines = [may_answer(decision)]
    else:
        n_found = sum(value is not None for value in decision.thresholds.values())
        lines = [f"It may answer alone in {n_found} of {len(decision.groups)} groups ({decision.by}):"]
        lines += plain_table(*_groups(decision))
        lines += _reasons(decision)
    lines += [what_it_means(decision), _counts(decision)]
    if wanted.costs is not None and decision.cost is not None:
        lines.append(what_it_costs(decision.cost, *wanted.costs))
    if decision.sets:
        sets = {name: found.shown for name, found in decision.sets.items()}
        rest = f"at least {percent_of(1 - wanted.error_rate)}"
        lines += ["", f"Options that are not ruled out: sets that should hold the right one for {rest} of questions"]
        lines += _sets(sets)
    if decision.group_errors is not None:
        lines += ["", *group_lines(decision.group_errors)]
    return "\n".join(lines) + "\n"


def group_lines(found: GroupErrors) -> Iterator[str]:
    """Yield what there is to say of groups: a sentence, the groups with the largest errors, fields that make none."""
    yield f"Does its confidence hold in every group? {what_groups_say(found)}"
    if found.groups:
        yield from plain_table(HEADS, rows_of_groups(found.groups))
    if off := [one for one in found.bins if one.tendency]:
        yield "ranges of confidence within groups that are off:"
        yield from plain_table(HEADS, rows_of_groups(off))
    if found.left_out:
        yield f"fields that make no groups: {left_out(found.left_out)}"


def as_data(decision: Decision) -> dict[str, Any]:
    """Return all of a decision that people may want to read; digests of docs are in its file only."""
    return {
        "error_rate": decision.wanted.error_rate,
        "confidence_level": decision.wanted.confidence_level,
        "by": decision.by,
        "meaning": what_it_means(decision),
        "groups": {
            name: {**group.threshold._asdict(), "docs_needed": group.docs_needed, "shown": group.shown}
            for name, group in decision.groups.items()
        },
        "all_shown": decision.all_shown,
        "prediction_sets": {name: found._asdict() for name, found in decision.sets.items()},
        "costs": None if decision.wanted.costs is None else {**decision.wanted.costs._asdict(), "found": decision.cost},
        "curve": decision.curve,
        "group_errors": decision.group_errors,
        "docs": dict(zip(("ordering", "testing", "others"), decision.n_docs, strict=True)),
        "clusters": decision.n_clusters,
    }


def check_text(checked: Checked) -> str:
    """Return the verdict first, then how each group does."""
    heads = ("group", "docs", "answered [95%]", "wrong [95%]", "p of at most the promised rate (Holm)")
    tests = {check.name: p_value(check.p_adjusted, 4) for check in checked.checks}
    rows = [
        _shown_row(shown(name) or ALL, found, tests.get(name, "never answers"))
        for name, found in checked.groups.items()
    ]
    if len(checked.groups) > 1:
        rows.append(_shown_row(ALL, checked.all_shown, ""))
    lines = [summary(checked), *plain_table(heads, rows)]
    lines.append(f"confidences distributed as those of the calibration docs: p {tests[None]} (Holm)")
    if checked.n_left_out:
        n_out = f"{counted(checked.n_left_out)} {'is' if checked.n_left_out == 1 else 'are'}"
        lines.append(f"{n_out} left out: the decision was made on them, or on others of their clusters")
    lines += [f"no docs of {shown(task)}, which the decision was made on" for task in checked.missing_tasks]
    lines += [f"{shown(name)} was not decided on and is never answered" for name in checked.unknown_groups]
    if checked.sets:
        lines += _sets(checked.sets)
    return "\n".join(lines) + "\n"


def summary(checked: Checked) -> str:
    """Return the verdict in a line."""
    docs = counted(checked.n_docs, what="new docs")
    if checked.verdict == "nothing promised":
        return f"nothing promised: the decision has no threshold, so there is nothing that could hold ({docs})"
    if checked.verdict == "broken":
        where = "" if checked.broken == ("",) else f" in {', '.join(checked.broken)}"
        return f"broken: answers{where} are wrong more often than promised ({docs})"
    if checked.verdict == "other docs":
        return f"docs or model have changed: confidences are distributed otherwise, so nothing is promised ({docs})"
    return f"holds: nothing speaks against the promise ({docs})"


TEXTS: dict[str, Callable[[Decision], str]] = {"text": text, "json": lambda decision: json_text(as_data(decision))}
CHECKS: dict[str, Callable[[Checked], str]] = {
    "text": check_text,
    "json": lambda checked: json_text({"verdict": checked.verdict, "summary": summary(checked), **vars(checked)}),
}
"""Functions by the name of their format."""


def _groups(decision: Decision) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    heads = ("group", "from confidence", "tested: wrong of answered", "others: answered [95%]", "wrong [95%]")
    rows = [
        (
            shown(name),
            "never" if group.threshold.value is None else number(group.threshold.value),
            f"{count(group.threshold.n_wrong)} of {count(group.threshold.n_answered)}",
            share(group.shown.coverage),
            share(group.shown.errors),
        )
        for name, group in decision.groups.items()
    ]
    rows.append((ALL, "", "", share(decision.all_shown.coverage), share(decision.all_shown.errors)))
    return heads, rows


def _reasons(decision: Decision) -> Iterator[str]:
    """Why groups have no threshold, each reason once."""
    names: dict[str, list[str]] = {}
    for name, group in decision.groups.items():
        if group.threshold.value is None:
            names.setdefault(why_not(group, decision.wanted.error_rate), []).append(name)
    yield from (f"{', '.join(groups)}: {reason}" for reason, groups in names.items())


def _counts(decision: Decision) -> str:
    ordering, testing, others = decision.n_docs
    everything = share(decision.all_shown.all_errors)
    return (
        f"Decided on {counted(ordering)} for ordering thresholds and {count(testing)} for testing them, shown on "
        f"{counted(others, what='others')}, of which {everything} are answered wrongly if it always answers."
    )


def _shown_row(name: str, found: AnswersShown, last: str) -> tuple[str, ...]:
    return name, count(found.coverage.total), share(found.coverage), share(found.errors), last


def _sets(sets: Mapping[str, SetsShown]) -> Iterator[str]:
    heads = (
        "score",
        "options",
        "hold the right one [95%]",
        "one option",
        "of these right [95%]",
        "none",
        "worst class",
    )
    yield from plain_table(heads, [_row_of_sets(name, found) for name, found in sets.items()])
    if any(found.is_cross_conformal for found in sets.values()):
        yield "few docs: each fold is shown by the docs of the other folds (cross-conformal)"
    for name, found in sets.items():
        yield from why_incomplete(name, found)


def _row_of_sets(name: str, found: SetsShown) -> tuple[str, ...]:
    worst = min(found.by_class.values(), key=lambda one: one.value, default=None)
    shares = share(found.coverage), f"{found.single.value:.1%}", share(found.single_right), f"{found.empty.value:.1%}"
    return name, number(found.set_size, 2), *shares, "–" if worst is None else share(worst)


def why_incomplete(name: str, found: SetsShown) -> Iterator[str]:
    """Yield what keeps sets from ruling answers out, or from holding the right one; nothing where nothing does."""
    if found.without_right.n:
        what = "sampled answer" if name == LOFREE else "option"
        rest = share(found.without_right)
        yield f"{name}: no {what} is right in {rest} of the questions, where no set can hold the right one"
    if found.unlimited:
        few = "calibration docs are too few" if not found.without_right.n else "too many questions have no right one"
        yield f"{name}: nothing can be ruled out in {found.unlimited:.1%} of the questions: {few}"
        if found.without_right.n:
            yield f"{name}: the wanted coverage is impossible there, and not promised"
