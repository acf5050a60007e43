"""Tasks as users write them: YAMLs, data files and functions in a folder."""

import json
from pathlib import Path
from typing import Any

import yaml

WORDS = ["ash", "birch", "cedar", "dogwood", "elm", "fir", "gum", "hazel", "ivy", "juniper", "kapok", "larch"]


def make_rows(n: int = 16) -> list[dict[str, Any]]:
    """Questions of our own with four texts, a letter, an index and the right text."""
    rows = []
    for i in range(n):
        options = [WORDS[(i + 3 * j) % len(WORDS)] for j in range(4)]
        gold = (i * i + i // 3) % 4
        rows.append(
            {
                "question": f"Which tree is number {i}?",
                "options": options,
                "answer": gold,
                "letter": "ABCD"[gold],
                "right": options[gold],
                "some": options[: 2 + i % 3],
                "which": i % 2,
                "opa": options[0],
                "opb": options[1],
                "opc": options[2],
                "opd": options[3],
                "nested": {"text": options, "label": ["A", "B", "C", "D"]},
                "sentences": [f"The {options[0]} is tall", f"The {options[1]} is tall"],
                "end": "and green",
            }
        )
    return rows


LETTERED = (
    "{{question}}\nA. {{options[0]}}\nB. {{options[1]}}\nC. {{options[2]}}\nD. {{options[3]}}\nAnswer:"  # MMLU's way
)

ACC = {"metric": "acc", "aggregation": "mean", "higher_is_better": True}
BOTH = [ACC, {**ACC, "metric": "acc_norm"}]

SHAPES: dict[str, dict[str, Any]] = {
    "letters": {
        "doc_to_text": LETTERED,
        "doc_to_choice": ["A", "B", "C", "D"],
        "doc_to_target": "answer",
        "metric_list": [ACC],
    },
    "letter_gold": {
        "doc_to_text": "{{question}}",
        "doc_to_choice": ["A", "B", "C", "D"],
        "doc_to_target": "letter",
    },
    "text_gold": {"doc_to_text": "question", "doc_to_choice": "options", "doc_to_target": "right"},
    "template_gold": {
        "doc_to_text": "question",
        "doc_to_choice": "{{options}}",
        "doc_to_target": "{{answer}}",
        "target_delimiter": "\n",
    },
    "ragged": {"doc_to_text": "question", "doc_to_choice": "some", "doc_to_target": "{{answer % (some | length)}}"},
    "multi_token": {"doc_to_text": "question", "doc_to_choice": "options", "doc_to_target": "answer"},
    "multiple_inputs": {"doc_to_text": "which", "doc_to_choice": "sentences", "doc_to_target": "end"},
    "normalized": {
        "doc_to_text": "question",
        "doc_to_choice": "options",
        "doc_to_target": "answer",
        "metric_list": BOTH,
    },
    "functions": {
        "process_docs": "!utils.process_docs",
        "doc_to_text": "!utils.to_text",
        "doc_to_choice": "!utils.to_choice",
        "doc_to_target": "!utils.to_target",
        "metric_list": BOTH,
    },
    "described": {
        "description": "Trees and their numbers.\n\n",
        "doc_to_text": "question",
        "doc_to_choice": {"first": "A", "second": "B"},
        "doc_to_target": "which",
        "fewshot_split": None,
        "fewshot_config": {"sampler": "first_n", "samples": make_rows(4)},
    },
    "fields": {
        "doc_to_text": "{{question}} A) {{opa}} B) {{opb}} C) {{opc}} D) {{opd}}",
        "doc_to_choice": ["A", "B", "C", "D"],
        "doc_to_target": "answer",
    },
    "listed_texts": {
        "doc_to_text": "{{question}}{% for t in nested.text %} {{nested.label[loop.index0]}}: {{t}}{% endfor %}",
        "doc_to_choice": "{{nested.text}}",
        "doc_to_target": "answer",
    },
}
"""Every shape of multiple-choice task that the harness knows."""

FUNCTIONS = """
def process_docs(dataset):
    return dataset.map(lambda doc: {"prompt": "Q: " + doc["question"] + " A:"})

def to_text(doc):
    return doc["prompt"]

def to_choice(doc):
    return [text.upper() for text in doc["options"]]

def to_target(doc):
    return doc["answer"]
"""


class _Function(str):
    """Written as ``!function``."""


yaml.SafeDumper.add_representer(_Function, lambda dumper, name: dumper.represent_scalar("!function", str(name)))


def write_task(folder: Path, name: str, rows: list[dict[str, Any]] | None = None, **keys: Any) -> Path:
    """Write a task's YAML and data; values that begin with ``!`` are functions."""
    (folder / "utils.py").write_text(FUNCTIONS, encoding="utf-8")
    data = folder / f"{name}.jsonl"
    data.write_text("\n".join(map(json.dumps, make_rows() if rows is None else rows)), encoding="utf-8")
    examples = folder / "examples.jsonl"
    examples.write_text("\n".join(map(json.dumps, make_rows(5))), encoding="utf-8")
    config = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {"test": str(data), "dev": str(examples)},
            "cache_dir": str(folder / "cache"),
        },
        "test_split": "test",
        "fewshot_split": "dev",
        "output_type": "multiple_choice",
        **keys,
    }
    config = {key: _Function(v[1:]) if isinstance(v, str) and v[:1] == "!" else v for key, v in config.items()}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return path
