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
from lm_eval_calibration.reports.sentences import confidence_sentence, ranking_sentence

_WIDTH = 40


def explain(samples: Mapping[str, Sequence[Mapping[str, Any]]], console: Console) -> None:
    """Print a sentence for each part of the quiz and a reliability diagram of all its questions."""
    records = {task: [Record.from_dict(line[RECORD_KEY]) for line in lines] for task, lines in samples.items()}
    console.print("\n[bold]What this means[/bold]")
    for part, name in PARTS.items():
        arrays = metric_arrays(records[f"quiz_{part}_calibration"], "top_label", 10)
        console.print(f"- {name.capitalize()}: {confidence_sentence(*arrays)}")
    pooled = metric_arrays((record for part in records.values() for record in part), "top_label", 10)
    console.print(f"- All tasks: {confidence_sentence(*pooled)}")
    console.print(f"- {ranking_sentence(*pooled)}")
    console.print("\n[bold]Reliability diagram[/bold]: said (│) against right (█), by how sure the model says it is")
    console.print(reliability_diagram(*pooled))
    console.print("A well calibrated model's bars end at the │. Bars that stop short of it: overconfident.")


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


def _bar(accuracy: float, confidence: float) -> Text:
    filled, mark = round(accuracy * _WIDTH), min(round(confidence * _WIDTH), _WIDTH - 1)
    text = Text()
    for i in range(_WIDTH):
        if i == mark:
            text.append("│", style="bold yellow")
        elif i < filled:
            text.append("█", style="green" if filled >= mark else "red")
        else:
            text.append("·", style="dim")
    return text
