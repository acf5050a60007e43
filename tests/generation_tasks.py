"""Tasks to which a model writes answers, and scripts of such answers."""

import json
import re
from typing import Any

from tiny import run_tasks

from lm_eval_calibration.records import Record
from lm_eval_calibration.tasks import CalibratedTask

EXACT = {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}
SAYS = {"name": "says", "filter": [{"function": "regex", "regex_pattern": r"is (\d+)"}, {"function": "take_first"}]}

PROMPTS = [
    f"{'Here is some context that makes the prompt longer. ' * (i % 4)}Question {i}: {question}\nAnswer:"
    for i, question in enumerate(
        [
            *(f"What is {a} + {b}?" for a in (2, 7, 19) for b in (3, 5)),
            *(f"What is the capital of {place}?" for place in ("France", "Japan", "Peru", "Kenya", "Norway", "Iran")),
            *(f"Write a Python function that {task}." for task in ("adds", "sorts", "reverses", "counts", "prints")),
            *(f"What colour is {thing}?" for thing in ("snow", "grass", "the sky", "blood", "coal", "gold", "a crow")),
            *(f"Name {n} animals." for n in ("two", "three", "four", "five", "six", "seven")),
        ]
    )
]


def make_sums(n: int = 12) -> list[dict[str, Any]]:
    return [{"question": f"{i} + {i % 3}", "answer": str(i + i % 3)} for i in range(n)]


def make_config(rows: Any = None, task: str = "sums_calibration", **overrides: Any) -> dict[str, Any]:
    from datasets import Dataset

    return {
        "task": task,
        "custom_dataset": lambda **_: {"test": Dataset.from_list(make_sums() if rows is None else rows)},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "answer",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8, "do_sample": False},
        "metric_list": [EXACT],
        **overrides,
    }


def options(**chosen: Any) -> dict[str, Any]:
    return {"metadata": {"calibration": chosen}}


def adds(prompt: str, asked: int = 0) -> str:
    """Right where the first number is even."""
    a, b = map(int, re.findall(r"\d+", prompt)[-2:])
    return str(a + b + a % 2)


def run(lm: Any, config: dict[str, Any], **chosen: Any) -> tuple[dict[str, Any], list[dict[str, Any]], list[Record]]:
    """The task's results, its lines in the log, and the records in these."""
    name = config["task"]
    results = run_tasks(lm, [CalibratedTask(config)], **chosen)
    samples = results["samples"][name]
    dicts = [line["calibration"] for line in samples if isinstance(line["calibration"], dict)]
    return results["results"][name], samples, [Record.from_dict(json.loads(json.dumps(d))) for d in dicts]


def chain(prompt: str, asked: int = 0) -> str:
    """A chain of thought that ends in the answer; wrong where the first number is odd."""
    a, b = map(int, re.findall(r"\d+", prompt)[-2:])
    return f"I take {a}, so it is {a + b + a % 2}." + "!" * (a % 3)


def probability(character: str) -> float:
    return 0.5 + int(character) / 20 if character.isdigit() else 0.25 if character == "s" else 0.8
