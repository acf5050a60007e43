"""What the numbers mean, in plain words and a small picture for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lm_eval_calibration import metrics
from lm_eval_calibration.demo.quiz import PARTS
from lm_eval_calibration.records import RECORD_KEY, Record, metric_arrays

_WIDTH = 40


def explain(samples: Mapping[str, Sequence[Mapping[str, Any]]], console: Console) -> None:
    """Print a sentence for each part of the quiz and a reliability diagram of the whole."""
    records = {task: [Record.from_dict(line[RECORD_KEY]) for line in lines] for task, lines in samples.items()}
    console.print("\n[bold]What this means[/bold]")
    for part, name in PARTS.items():
        console.print(f"- {name.capitalize()}: {sentence(records[f'quiz_{part}_calibration'])}")
    everything = [record for part in records.values() for record in part]
    console.print(f"- All together: {sentence(everything)}")
    console.print(f"- {ranking_sentence(everything)}")
    console.print("\n[bold]Reliability diagram[/bold]: said (│) against right (█), by how sure the model says it is")
    console.print(reliability_diagram(*metric_arrays(everything, "top_label", 10)))
    console.print("A well calibrated model's bars end at the │. Bars that stop short of it: overconfident.")


def sentence(records: Sequence[Record]) -> str:
    """Say mean confidence, accuracy and the gap between them, and whether the gap could be chance."""
    confidence, correct = metric_arrays(records, "top_label", 10)
    gap = metrics.overconfidence(confidence, correct)
    error = metrics.overconfidence_stderr(confidence, correct) if len(correct) > 1 else float("inf")
    if abs(gap) <= 1.96 * error:
        verdict = f"no clear over- or underconfidence in {len(records)} questions"
    else:
        kind = "overconfident" if gap > 0 else "underconfident"
        verdict = f"{kind} by {abs(gap) * 100:.0f} points (± {1.96 * error * 100:.0f})"
    return f"says {confidence.mean():.0%} on average, is right {correct.mean():.0%} of the time: {verdict}."


def ranking_sentence(records: Sequence[Record]) -> str:
    """Say how well confidence tells right answers from wrong ones."""
    confidence, correct = metric_arrays(records, "top_label", 10)
    if len(set(correct.tolist())) < 2:
        return "All answers are right or all are wrong: whether confidence tells them apart is undefined."
    value = metrics.auroc(confidence, correct)
    return (
        f"Of a right and a wrong answer, it is surer of the right one {value:.0%} of the time "
        "(AUROC; 50% is a coin toss)."
    )


def reliability_diagram(confidence: Any, correct: Any, n_bins: int = 10) -> Table:
    """Return a row for each non-empty bin: its range, share right as a bar, mean confidence as a mark, its docs."""
    table = Table("sure", "0%" + "right".center(_WIDTH - 6) + "100%", "docs", box=None, header_style="dim")
    bins = metrics.bin_index(confidence, n_bins)
    for m in range(n_bins):
        inside = bins == m
        if inside.any():
            label = f"{m / n_bins:.0%}-{(m + 1) / n_bins:.0%}"
            bar = _bar(float(np.mean(correct[inside])), float(np.mean(confidence[inside])))
            table.add_row(label, bar, str(int(inside.sum())))
    return table


def _bar(right: float, said: float) -> Text:
    filled, mark = round(right * _WIDTH), min(round(said * _WIDTH), _WIDTH - 1)
    text = Text()
    for i in range(_WIDTH):
        if i == mark:
            text.append("│", style="bold yellow")
        elif i < filled:
            text.append("█", style="green" if filled >= mark else "red")
        else:
            text.append("·", style="dim")
    return text
