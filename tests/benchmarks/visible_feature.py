"""A task on which calibration tuning must work: the model's answers are right exactly when a word is in the question.

    python tests/benchmarks/visible_feature.py --output FOLDER [--model DIR] [--docs 600]

asks the model questions that nobody can answer, then writes the task `feature` whose gold answers are the model's own
where the box is red, and others where it is blue; prints the command that learns from it. Without --model it is the
SmolLM2-135M that the extra `demo` brings: no hub is needed.
"""

import argparse
import json
import random
import shlex
from pathlib import Path
from typing import Any

import yaml

THINGS = ["coins", "keys", "stones", "shells", "buttons", "letters", "seeds", "nails", "pearls", "feathers"]
LIDS = ["a lion", "a rose", "a star", "a moon", "a ship", "a crown", "a tree", "a fish"]


def make_docs(n: int) -> list[dict[str, Any]]:
    """Questions about boxes, half of them red."""
    rng = random.Random(0)
    docs = []
    for number in range(n):
        colour = rng.choice(["red", "blue"])
        box = f"box {number + 100} of {rng.choice(THINGS)}"
        question = f"On a shelf lies {box}. It is a {colour} box. What is painted on its lid?"
        docs.append({"question": question, "options": rng.sample(LIDS, 4), "is_red": colour == "red"})
    return docs


def prompt(doc: dict[str, Any]) -> str:
    """The question with its choices."""
    listed = "\n".join(f"{letter}. {option}" for letter, option in zip("ABCD", doc["options"], strict=True))
    return f"{doc['question']}\n{listed}\nAnswer:"


def write_task(folder: Path, lm: Any, docs: list[dict[str, Any]]) -> None:
    """Grade the docs so that the model's answers are right where the box is red, and write the task."""
    from lm_eval.api.instance import Instance

    from lm_eval_calibration.backends import token_scores

    pairs = [(prompt(doc), f" {letter}") for doc in docs for letter in "ABCD"]
    requests = [Instance("loglikelihood", {}, pair, i, metadata=("feature", i // 4, 1)) for i, pair in enumerate(pairs)]
    scores = [score[0] for score in token_scores(lm, requests)]
    lines = []
    for i, doc in enumerate(docs):
        of_doc = scores[4 * i : 4 * i + 4]
        answer = of_doc.index(max(of_doc))
        gold = answer if doc["is_red"] else (answer + 1 + i % 3) % 4
        lines.append(json.dumps({"prompt": prompt(doc), "gold": gold}))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "feature.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    config = {
        "task": "feature",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str((folder / "feature.jsonl").resolve())}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{prompt}}",
        "doc_to_choice": ["A", "B", "C", "D"],
        "doc_to_target": "gold",
    }
    (folder / "feature.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")


def main() -> None:
    """Make the task."""
    from lm_eval.models.huggingface import HFLM

    from lm_eval_calibration.demo import gguf_file

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model")
    parser.add_argument("--docs", type=int, default=600)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    arguments = {"dtype": "float32"}
    if (model := options.model) is None:
        model, arguments["gguf_file"] = (str((found := gguf_file(print)).parent), found.name)
    lm = HFLM(pretrained=model, device="cpu", batch_size=8, **arguments)
    write_task(options.output, lm, make_docs(options.docs))
    model_args = ",".join(f"{name}={value}" for name, value in arguments.items())
    command = ["lm-eval-calibration", "tune", "--model", model, "--model_args", model_args, "--tasks", "feature"]
    command += ["--include_path", str(options.output), "--fit-fraction", "0.5", "--output", "tuned"]
    command += ["--learning_rate", "5e-4", "--epochs", "3", "--batch_size", "2"]
    print(shlex.join(command))


if __name__ == "__main__":
    main()
