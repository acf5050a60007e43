"""The code tasks and the open answers on docs of our own, in folders of the data sets' names."""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted import Scripted
from tiny import run_tasks

from lm_eval_calibration import calibrated, metrics
from lm_eval_calibration.harness import code_eval
from lm_eval_calibration.harness.code_eval import CODE_EVAL, CodeEval
from lm_eval_calibration.records import Columns, Record, metric_arrays
from lm_eval_calibration.tasks import CalibrationTaskManager
from lm_eval_calibration.tasks.line_completion import edit_similarity, lines

PROBLEMS = [
    {
        "task_id": "own/0",
        "prompt": 'def double(x):\n    """Twice x."""\n',
        "canonical_solution": "    y = x\n\n    return y * 2\n",
        "test": "def check(candidate):\n    assert candidate(3) == 6\n",
        "entry_point": "double",
    },
    {
        "task_id": "own/1",
        "prompt": 'def negative(x):\n    """Minus x."""\n',
        "canonical_solution": "    return -x\n",
        "test": "def check(candidate):\n    assert candidate(3) == -3\n",
        "entry_point": "negative",
    },
]
EXERCISES = [
    {"task_id": 11, "text": "Add two.", "code": "def f(a):\n  return a + 2", "test_list": ["assert f(1) == 3"] * 3},
    {"task_id": 12, "text": "Add one.", "code": "def g(a):\n  return a + 1", "test_list": ["assert g(1) == 2"] * 3},
]
SUMS = [{"question": f"Two and {n}?", "answer": f"2 + {n} = {2 + n}\n#### {2 + n}"} for n in range(8)]
TRIVIA = [
    {"question": "Who wrote it", "answer": {"value": "Ada Byron", "aliases": ["Ada Byron", "Ada Lovelace"]}},
    {"question": "Who read it", "answer": {"value": "Charles", "aliases": ["Charles"]}},
]


@pytest.fixture
def hub_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A current directory that stands for the hub."""
    import datasets

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for path, config, splits in (
        ("openai/openai_humaneval", "openai_humaneval", {"test": PROBLEMS}),
        ("google-research-datasets/mbpp", "full", {"test": EXERCISES}),
        ("openai/gsm8k", "main", {"train": SUMS[3:], "test": SUMS[:3]}),
        ("mandarjoshi/trivia_qa", "rc.nocontext", {"train": TRIVIA, "validation": TRIVIA}),
    ):
        folder = Path(path)
        folder.mkdir(parents=True)
        files = "".join(f"  - split: {split}\n    path: {split}.jsonl\n" for split in splits)
        header = f"---\nconfigs:\n- config_name: {config}\n  data_files:\n{files}---\n"
        (folder / "README.md").write_text(header, encoding="utf-8")
        for split, rows in splits.items():
            (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


def writes(prompt: str, asked: int) -> str:
    """Right in the first problem and the first exercise, wrong in the others."""
    if "Add" in prompt:
        return "def f(a):\n  return a + 2\n"
    if prompt.endswith("    y = x\n\n"):
        return "    return 2 * y"
    return "    return x * 2\n"


def probability(character: str) -> float:
    return 0.9 if character.isalpha() else 0.6


def run(tasks: str, script: Callable[[str, int], str] = writes, **options: Any) -> dict[str, Any]:
    return run_tasks(Scripted(script, probability), [tasks], confirm_run_unsafe_code=True, **options)


def records(results: dict[str, Any], task: str) -> list[Record]:
    lines = results["samples"][task]
    return [Record.from_dict(x["calibration"]) for x in lines if isinstance(x["calibration"], dict)]


@pytest.mark.usefixtures("hub_of_ours")
def test_the_group_of_code_tasks_is_pooled(monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[int] = []
    judge = code_eval.run_programs
    monkeypatch.setattr(code_eval, "run_programs", lambda p, **o: judged.append(len(p)) or judge(p, **o))
    found = run("code_calibration", bootstrap_iters=10)
    results = found["results"]
    assert results["humaneval_calibration"]["pass@1,create_test"] == 0.5
    assert results["humaneval_calibration"]["acc,create_test"] == 0.5
    assert results["mbpp_calibration"]["pass_at_1,none"] == 0.5
    assert results["mbpp_calibration"]["acc,none"] == 0.5
    assert [n for n in judged if n] == [2, 2]  # each task's programs together, so they run on all cores
    of_lines = results["code_line_completion_calibration"]
    assert of_lines["exact_match,none"] == of_lines["acc,none"] == 0.0
    docs = [record for task in found["samples"] for record in records(found, task)]
    assert len(docs) == 2 + 2 + 3
    assert sum(record.correct for record in docs) == 2
    group = results["code_calibration"]
    assert group["acc,none"] == pytest.approx(2 / 7)
    for name in metrics.GENERATION_CORE:
        metric = metrics.GENERATION_CATALOG[name]
        arrays = metric_arrays(docs, metric.kind, 10)
        assert group[f"{name},none"] == pytest.approx(metric.value(*arrays), abs=1e-12)
        cluster = Columns.of(docs).clusters(metric.kind)  # lines of a program together, other docs alone
        expected = metric.stderr(*arrays, cluster=cluster)
        assert group[f"{name}_stderr,none"] == pytest.approx(expected, abs=1e-12)
    assert group["token_accuracy,none"] == 1.0
    # The reference is the solution itself, after the prompt as it is.
    solution = PROBLEMS[0]["canonical_solution"]
    assert len(docs[0].log_probs) == len(solution)
    assert math.exp(docs[0].log_probs[0]) == pytest.approx(0.6)
    assert "brier_score,none" not in group


@pytest.mark.usefixtures("hub_of_ours")
def test_programs_are_run_only_on_the_user_s_word() -> None:
    with pytest.raises(ValueError, match="humaneval_calibration which is marked as unsafe"):
        run_tasks(Scripted(writes), ["humaneval_calibration"])


@pytest.mark.usefixtures("hub_of_ours")
def test_the_stock_task_s_functions_are_its_own_again() -> None:
    CalibrationTaskManager(include_defaults=False).load(["humaneval_calibration"])
    assert not [name for name in sys.modules if name.startswith("lm_eval.tasks.humaneval")]
    import evaluate

    assert evaluate.load.__module__.startswith("evaluate")


@pytest.mark.usefixtures("hub_of_ours")
def test_grade_school_sums_are_judged_by_the_strict_filter() -> None:
    def script(prompt: str, _: int) -> str:
        n = int(prompt.rsplit("Two and ", 1)[1][0])
        return f"2 + {n} = {2 + n}\n#### {2 + n}" if n != 1 else f"It is {2 + n}"

    found = run("gsm8k_calibration", script)
    results = found["results"]["gsm8k_calibration"]
    assert results["exact_match,strict-match"] == results["acc,strict-match"] == pytest.approx(2 / 3)
    assert results["exact_match,flexible-extract"] == 1.0
    assert "ece,flexible-extract" not in results
    assert [record.correct for record in records(found, "gsm8k_calibration")] == [1, 0, 1]
    assert [len(r.log_probs) for r in records(found, "gsm8k_calibration")] == [len(f" {s['answer']}") for s in SUMS[:3]]


@pytest.mark.usefixtures("hub_of_ours")
def test_any_alias_is_right_and_the_value_is_the_reference() -> None:
    found = run("triviaqa_calibration", lambda prompt, _: " Ada Lovelace")
    results = found["results"]["triviaqa_calibration"]
    assert results["exact_match,remove_whitespace"] == results["acc,remove_whitespace"] == 0.5
    assert len(records(found, "triviaqa_calibration")[0].log_probs) == len(" Ada Byron")


@pytest.mark.usefixtures("hub_of_ours")
def test_any_stock_generation_task_by_its_name() -> None:
    found = run_tasks(Scripted(lambda *_: "The answer is 2."), [calibrated("gsm8k_cot_zeroshot")], limit=1)
    assert found["results"]["gsm8k_cot_zeroshot_calibration"]["exact_match,strict-match"] == 1.0


def test_a_doc_for_each_line_that_is_not_blank() -> None:
    docs = list(lines(PROBLEMS))
    prompt = PROBLEMS[0]["prompt"]
    assert [(doc["before"], doc["line"], doc["stripped"]) for doc in docs[:2]] == [
        (prompt + "   ", " y = x", "y = x"),  # the last blank is the first token's
        (prompt + "    y = x\n\n   ", " return y * 2", "return y * 2"),
    ]
    assert [doc["task_id"] for doc in docs] == ["own/0", "own/0", "own/1"]
    for doc, problem in zip(docs, [PROBLEMS[0], *PROBLEMS], strict=True):
        assert (problem["prompt"] + problem["canonical_solution"]).startswith(doc["before"] + doc["line"])


def naive_similarity(a: str, b: str) -> float:
    """1 - insertions and deletions / length of both, by the longest common subsequence."""
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
    total = len(a) + len(b)
    return 1 - (total - 2 * table[-1][-1]) / total if total else 1.0


@pytest.mark.parametrize(
    ("one", "other"), [("return x", "return y"), ("", ""), ("a", ""), ("  x = 1 ", "x = 1"), ("abc", "xbyc")]
)
def test_edit_similarity_is_its_definition(one: str, other: str) -> None:
    pytest.importorskip("rapidfuzz", reason="edit_similarity is in the extra `code` (rapidfuzz)")
    found = edit_similarity([one], [other])
    assert found == pytest.approx(naive_similarity(one.strip(), other.strip()), abs=1e-12)


def test_pass_at_k_is_its_definition() -> None:
    metric = CodeEval()
    passing, failing = "assert True", "assert False"
    candidates = [[passing, failing, failing, passing], [failing] * 4]
    scores, details = metric.compute(references=["", ""], predictions=candidates, k=[1, 2, 3, 5])
    # Of 6 pairs of the first problem's candidates, one has none that passes; of 4 triples none.
    assert scores == {"pass@1": pytest.approx(0.25), "pass@2": pytest.approx(5 / 12), "pass@3": pytest.approx(0.5)}
    assert [outcome["passed"] for _, outcome in details[0]] == [True, False, False, True]
    assert metric.compute(references=["assert x == 2"], predictions=[["x = 2"]], k=[1])[0] == {"pass@1": 1.0}


def test_collected_programs_are_not_run_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[Any] = []
    judge = code_eval.run_programs
    monkeypatch.setattr(code_eval, "run_programs", lambda p, **o: batches.append(list(p)) or judge(p, **o))
    with CODE_EVAL.collecting():
        for text in ("x = 1", "x = 2", "x = 1"):
            CODE_EVAL.compute(references=["assert x == 1"], predictions=[[text]], k=[1])
    for text, expected in (("x = 1", 1.0), ("x = 2", 0.0)):
        assert CODE_EVAL.compute(references=["assert x == 1"], predictions=[[text]], k=[1])[0]["pass@1"] == expected
    assert [batch for batch in batches if batch] == [[("x = 1", "assert x == 1"), ("x = 2", "assert x == 1")]]
