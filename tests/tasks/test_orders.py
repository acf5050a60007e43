"""Docs asked in several orders of their choices: what is asked, what is recorded, and a biased model exposed."""

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lm_eval.api.model import LM
from tiny import run_tasks
from users_tasks import SHAPES, make_rows, write_task

from lm_eval_calibration import calibrated, metrics
from lm_eval_calibration.records import RECORD_KEY, Record
from lm_eval_calibration.tasks import TaskError
from lm_eval_calibration.tasks.confidences.choice_slots import Slots, find_slots, in_own_order, replace_last, rotations

LETTERS = "ABCD"
VIEWED = ("brier_score", "ece", "ace", "auroc")


class Reader(LM):
    """Answers by a function of (the texts shown, the continuation's text)."""

    def __init__(self, score: Callable[[list[str], str], float]) -> None:
        super().__init__()
        self.score = score
        self.asked: list[tuple[str, str]] = []

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        self.asked += [request.args for request in requests]
        return [
            (self.score(shown(context), continuation.strip()), False)
            for context, continuation in self.asked[-len(requests) :]
        ]

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        raise NotImplementedError

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        raise NotImplementedError


def shown(prompt: str) -> list[str]:
    """The texts behind the letters of a prompt's last question."""
    return re.findall(r"\b[A-D][.):] ([a-z]+)", prompt)[-4:]


def only_the_place(texts: list[str], letter: str) -> float:
    return math.log([0.7, 0.1, 0.1, 0.1][LETTERS.index(letter)])


def only_the_text(texts: list[str], letter: str) -> float:
    weights = {text: math.exp(2 * math.sin(sum(map(ord, text)))) for text in texts}
    return math.log(weights[texts[LETTERS.index(letter)]] / sum(weights.values()))


def both(texts: list[str], letter: str) -> float:
    return (only_the_place(texts, letter) + only_the_text(texts, letter)) / 2


def run(lm: Any, path: Path, **options: Any) -> tuple[dict[str, float], list[Record]]:
    name = f"{path.stem}_calibration"
    results = run_tasks(lm, [calibrated(path, **options)], bootstrap_iters=1)
    row = {key.removesuffix(",none"): value for key, value in results["results"][name].items()}
    return row, [Record.from_dict(sample[RECORD_KEY]) for sample in results["samples"][name]]


@pytest.fixture(params=["letters", "fields"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_task(tmp_path, request.param, **SHAPES[request.param])


def test_a_model_biased_to_a_place_is_exposed(path: Path) -> None:
    row, records = run(Reader(only_the_place), path, permute=4)
    assert row["answer_changes"] == 1
    assert row["position_spread"] == pytest.approx((0.45 + 3 * 0.15) / 2, abs=1e-12)
    # Averaged over all orders it has no opinion: confidence 1/4, whatever it says in the order asked.
    assert all(record.confidence == pytest.approx(0.7) for record in records)
    assert all(record.permuted().confidence == pytest.approx(0.25) for record in records)
    accuracy = float(np.mean([record.permuted().correct for record in records]))
    assert row["acc_permuted"] == accuracy
    assert row["ece_permuted"] == pytest.approx(abs(0.25 - accuracy), abs=1e-12)


def test_a_model_that_reads_the_texts_changes_nothing(path: Path) -> None:
    row, _ = run(Reader(only_the_text), path, permute=4)
    assert row["answer_changes"] == 0
    assert row["position_spread"] == pytest.approx(0, abs=1e-12)
    for name in VIEWED:
        assert row[f"{name}_permuted"] == pytest.approx(row[name], abs=1e-12)
    assert row["acc_permuted"] == row["acc"]


@pytest.mark.parametrize("permute", [2, 3, 4])
def test_averages_over_the_orders_are_those_of_the_definition(permute: int, path: Path) -> None:
    row, records = run(Reader(both), path, permute=permute, metrics=["nll"])
    expected_probs, orders = [], []
    for record, doc in zip(records, make_rows(), strict=True):
        per_order = []
        for rotation in record.rotations:
            texts = doc["options"][rotation:] + doc["options"][:rotation]
            p = np.exp([both(texts, LETTERS[texts.index(text)]) for text in doc["options"]])
            per_order.append(p / p.sum())
        orders.append(per_order)
        expected_probs.append(np.mean(per_order, axis=0))
        assert np.allclose(record.rotated_probs, per_order, atol=1e-12)
        assert len(set(record.rotations)) == permute
        assert record.rotations[0] == 0
    labels = [doc["answer"] for doc in make_rows()]
    assert row["brier_score_permuted"] == pytest.approx(metrics.brier_score(expected_probs, labels), abs=1e-12)
    assert row["nll_permuted"] == pytest.approx(metrics.nll(expected_probs, labels), abs=1e-12)
    assert row["position_spread"] == pytest.approx(metrics.position_spread(orders), abs=1e-12)
    assert row["answer_changes"] == pytest.approx(metrics.answer_changes(orders), abs=1e-12)
    assert all(row[f"{name}_stderr"] > 0 for name in ("brier_score_permuted", "position_spread", "acc_permuted"))


def test_one_order_is_the_plain_metrics(path: Path, gpt2_lm: Any) -> None:
    plain, _ = run(gpt2_lm, path)
    row, records = run(gpt2_lm, path, permute=1)
    for name in ("acc", *VIEWED):
        assert row[f"{name}_permuted"] == pytest.approx(row[name], abs=1e-12)
        assert row[name] == plain[name]
    assert "position_spread" not in row
    assert all(record.rotations == (0,) for record in records)


def test_off_by_default(path: Path) -> None:
    lm = Reader(both)
    row, records = run(lm, path)
    assert not [name for name in row if "permuted" in name or "position" in name]
    assert len(lm.asked) == 16 * 4
    assert records[0].rotations is None


def test_the_metrics_of_the_order_asked_stay_what_they_are(path: Path, gpt2_lm: Any) -> None:
    plain, _ = run(gpt2_lm, path)
    row, _ = run(gpt2_lm, path, permute=3)
    assert {name: row[name] for name in plain if isinstance(plain[name], float)} == pytest.approx(
        {name: value for name, value in plain.items() if isinstance(value, float)}, abs=1e-6, nan_ok=True
    )


def test_few_shot_examples_stay_as_they_are(path: Path) -> None:
    lm = Reader(both)
    run_tasks(lm, [calibrated(path, permute=4)], num_fewshot=2, bootstrap_iters=1)
    prompts = [context for context, _ in lm.asked]
    for start in range(0, len(prompts), 16):
        of_doc = prompts[start : start + 16]
        examples = {prompt.split("\n\n")[0] for prompt in of_doc}
        assert len(examples) == 1
        assert len({tuple(shown(prompt)) for prompt in of_doc}) == 4
        assert len({tuple(sorted(shown(prompt))) for prompt in of_doc}) == 1


def test_texts_asked_as_continuations_move_with_the_list(tmp_path: Path) -> None:
    path = write_task(tmp_path, "listed_texts", **SHAPES["listed_texts"])

    def likes_the_first_line(texts: list[str], text: str) -> float:
        return math.log(0.7 if text == texts[0] else 0.1)

    row, records = run(Reader(likes_the_first_line), path, permute=4)
    assert row["answer_changes"] == 1
    assert all(record.permuted().confidence == pytest.approx(0.25) for record in records)


@pytest.mark.parametrize("shape", ["multi_token", "multiple_inputs"])
def test_prompts_that_list_no_choices_are_asked_once_and_have_no_order_metrics(
    shape: str, tmp_path: Path, harness_log: pytest.LogCaptureFixture
) -> None:
    path = write_task(tmp_path, shape, **SHAPES[shape])
    lm = Reader(lambda _, text: -float(len(text) + sum(map(ord, text)) % 7))
    row, records = run(lm, path, permute=3)
    assert len(lm.asked) == 16 * len(records[0].log_likelihoods)
    assert not [name for name in row if name.endswith("_permuted") or name in ("position_spread", "answer_changes")]
    assert f"{shape}_calibration: its docs list no choices" in harness_log.text


YES_NO = {
    "doc_to_text": "{{options | join(' ')}} {{question}}",
    "doc_to_choice": ["yes", "no"],
    "doc_to_target": "which",
}


def test_a_list_that_is_no_choices_stays_where_it_is(tmp_path: Path) -> None:
    """Two contexts and two fixed answers: moving the contexts would be another question."""
    rows = [{**row, "options": row["options"][:2]} for row in make_rows()]
    path = write_task(tmp_path, "contexts", rows, **YES_NO)
    lm = Reader(lambda _, text: math.log(0.9 if text == "yes" else 0.1))
    row, records = run(lm, path, permute=2)
    assert len(lm.asked) == 16 * 2
    assert records[0].rotations is None
    assert "answer_changes" not in row


def test_paragraphs_are_not_taken_for_choices(tmp_path: Path) -> None:
    text = "{{nested.text | join(' / ')}}\n" + SHAPES["letters"]["doc_to_text"]
    path = write_task(tmp_path, "paragraphs", **{**SHAPES["letters"], "doc_to_text": text})
    with pytest.raises(TaskError, match=r"the prompts list (nested\.text and options|options and nested\.text)"):
        calibrated(path, permute=2).build_all_requests()


def test_texts_that_look_like_labels_in_one_doc_move_as_well(tmp_path: Path) -> None:
    rows = make_rows()
    rows[0] = {**rows[0], "options": ["1", "2", "3", "4"]}
    path = write_task(tmp_path, "numbers", rows, **SHAPES["letters"])
    _, records = run(Reader(lambda _, letter: -float(LETTERS.index(letter))), path, permute=4)
    assert all(record.rotations == (0, 1, 2, 3) for record in records)


def test_a_prompt_made_beforehand_is_an_error(tmp_path: Path) -> None:
    rows = [{**row, "question": " ".join(["Which?", *row["options"]])} for row in make_rows()]
    path = write_task(tmp_path, "prebuilt", rows, **SHAPES["multi_token"])
    with pytest.raises(TaskError, match="permute can't tell which fields of a doc hold the texts of its choices"):
        calibrated(path, permute=2).build_all_requests()


def test_choices_listed_twice_move_twice(tmp_path: Path) -> None:
    text = SHAPES["letters"]["doc_to_text"]
    path = write_task(tmp_path, "twice", **{**SHAPES["letters"], "doc_to_text": f"{text}\nAgain: {text}"})
    row, _ = run(Reader(only_the_place), path, permute=4)
    assert row["answer_changes"] == 1


def test_more_than_nine_fields_are_in_the_order_of_their_numbers() -> None:
    doc = {f"choice{i}": f"text{i}" for i in range(1, 12)}
    (slots,) = find_slots(
        [doc], lambda d: " ".join(d[f"choice{i}"] for i in range(1, 12)), lambda _: list("ABCDEFGHIJK")
    )
    assert slots.texts(doc) == [f"text{i}" for i in range(1, 12)]


def test_a_function_that_takes_only_its_own_texts_is_no_error_of_the_user_s(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "def text(doc):\n    assert doc['options'][0].isalpha()\n    return ' '.join(doc['options'])\n",
        encoding="utf-8",
    )
    path = write_task(tmp_path, "strict", **{**SHAPES["letters"], "doc_to_text": "!own.text"})
    with pytest.raises(TaskError, match=r"permute can't tell which fields .* \(A, B, C, D\)"):
        calibrated(path, permute=2).build_all_requests()


def test_letters_whose_texts_are_nowhere_in_the_doc_are_an_error(tmp_path: Path) -> None:
    path = write_task(tmp_path, "hidden", **{**SHAPES["letters"], "doc_to_text": "{{question}} A, B, C or D?"})
    with pytest.raises(TaskError, match=r"hidden\.yaml: hidden_calibration: permute can't tell which fields .* \(A, B"):
        calibrated(path, permute=2).build_all_requests()


def test_cached_requests_of_other_orders_are_refused(path: Path, tmp_path: Path, monkeypatch: Any) -> None:
    from lm_eval.caching import cache

    monkeypatch.setattr(cache, "PATH", str(tmp_path))
    name = f"{path.stem}_calibration"
    results = {}
    for permute, refresh in [(0, False), (3, True)]:
        task = calibrated(path, permute=permute)
        results[permute] = run_tasks(Reader(both), [task], cache_requests=True, rewrite_requests_cache=refresh)
        for other in {0, 2, 3} - {permute}:
            with pytest.raises(
                TaskError, match=r"cached requests were made with other options .*: run with --cache_requests refresh"
            ):
                run_tasks(Reader(both), [calibrated(path, permute=other)], cache_requests=True)
    again = run_tasks(Reader(both), [calibrated(path, permute=3)], cache_requests=True)
    assert again["results"][name]["answer_changes,none"] == results[3]["results"][name]["answer_changes,none"] > 0
    fresh, _ = run(Reader(both), path, permute=3)
    assert again["results"][name]["ece_permuted,none"] == fresh["ece_permuted"]


def test_a_template_that_strips_leaves_the_examples_alone(tmp_path: Path) -> None:
    """The question's prompt ends in a space that the template strips; an example is the same question."""
    path = write_task(
        tmp_path, "spaced", **{**SHAPES["letters"], "doc_to_text": SHAPES["letters"]["doc_to_text"] + " "}
    )
    task = calibrated(path, permute=4)
    task.set_config("num_fewshot", 5)
    task.set_fewshot_seed(1)

    def template(messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return "".join(f"<{m['role']}>{m['content'].strip()}</>" for m in messages)

    task.build_all_requests(apply_chat_template=True, chat_template=template, limit=5)
    examples = {}
    for request in task.instances:
        options = request.doc["options"]
        _, rotation = getattr(request, "added_by", ("", 0))
        assert shown(request.args[0]) == options[rotation:] + options[:rotation]
        examples.setdefault(request.doc_id, set()).add(request.args[0].rsplit("Which tree", 1)[0])
    assert {len(before) for before in examples.values()} == {1}


def test_a_group_shows_order_metrics_only_if_all_its_tasks_have_them(
    tmp_path: Path, harness_log: pytest.LogCaptureFixture
) -> None:
    import yaml

    write_task(tmp_path, "letters", **SHAPES["letters"])
    write_task(tmp_path, "multi_token", **SHAPES["multi_token"])
    group = {"group": "both", "task": ["letters", "multi_token"], "aggregate_metric_list": [{"metric": "acc"}]}
    (tmp_path / "both.yaml").write_text(yaml.safe_dump(group), encoding="utf-8")
    lm = Reader(lambda texts, text: -float(sum(map(ord, text)) % 7))
    row = run_tasks(lm, [calibrated(tmp_path / "both.yaml", permute=2)])["results"]["both_calibration"]
    assert "ece,none" in row
    assert not [name for name in row if "permuted" in name or "position" in name]
    assert "both_calibration: acc_permuted is left out: not all of its tasks have it" in harness_log.text


def test_ragged_docs_have_as_many_orders_as_choices(tmp_path: Path) -> None:
    text = "{% for t in some %}{{'ABCD'[loop.index0]}}. {{t}} {% endfor %}"
    keys = {**SHAPES["ragged"], "doc_to_text": text, "doc_to_choice": "{{['A', 'B', 'C', 'D'][:some | length]}}"}
    path = write_task(tmp_path, "lettered", **keys)
    _, records = run(Reader(lambda texts, letter: -float(LETTERS.index(letter))), path, permute=4)
    assert {len(record.log_likelihoods): len(record.rotations) for record in records} == {2: 2, 3: 3, 4: 4}


def test_records_hold_the_orders(path: Path) -> None:
    import json

    _, records = run(Reader(both), path, permute=2)
    again = [Record.from_dict(json.loads(json.dumps(record.to_dict()))) for record in records]
    assert again == records


@pytest.mark.parametrize(("value", "said"), [(-1, "-1"), (1.5, "1.5"), (True, "True"), (101, "101"), ("4", "'4'")])
def test_bad_numbers_of_orders(value: Any, said: str, path: Path) -> None:
    with pytest.raises(TaskError, match=rf"permute is {re.escape(said)}, not a whole number from 0 to 100"):
        calibrated(path, permute=value)


# --- pieces -----------------------------------------------------------------------------------------------------------


def test_rotations_begin_with_the_doc_s_own_order_and_are_seeded_by_the_doc() -> None:
    one, two = "0123456789abcdef", "fedcba9876543210"
    assert rotations(one, 3, 5) == rotations(one, 3, 5)
    assert {rotations(f"{i:016x}", 2, 4) for i in range(50)} == {(0, 1), (0, 2), (0, 3)}
    assert rotations(one, 4, 4) == rotations(two, 9, 4) == (0, 1, 2, 3)
    assert rotations(one, 1, 4) == (0,)


@pytest.mark.parametrize("rotation", range(4))
@pytest.mark.parametrize(
    ("doc", "slots"),
    [
        ({"options": list("pqrs")}, Slots(("options",))),
        ({"in": {"a": "p", "b": "q", "c": "r", "d": "s"}}, Slots(("in",), ("a", "b", "c", "d"))),
    ],
)
def test_rotating_there_and_back(doc: dict[str, Any], slots: Slots, rotation: int) -> None:
    turned = slots.rotated(doc, rotation)
    assert slots.texts(doc) == ["p", "q", "r", "s"]  # left as it was
    assert in_own_order(slots.texts(turned), rotation) == ("p", "q", "r", "s")


def test_the_last_occurrence_is_replaced_and_stripped_ends_are_forgiven() -> None:
    assert replace_last("x y x z", "x", "w") == "x y w z"
    assert replace_last("<user>Q?</user>", " Q? ", " R? ") == "<user>R?</user>"
    assert replace_last("Q?  Q?", "Q? ", "R? ") == "Q?  R?"
    assert replace_last("<user>Q?</user>", "S", "T") is None
    assert replace_last("anything", "", "T") is None


def test_slots_are_found_by_what_the_prompt_shows() -> None:
    doc = {"q": "?", "labels": ["A", "B"], "texts": ["no", "yes"], "unused": ["x", "y"], "gold": 1}

    def prompt(d: dict[str, Any]) -> str:
        return d["q"] + "".join(f" {a}. {b}" for a, b in zip(d["labels"], d["texts"], strict=True))

    def found(to_text: Any) -> list[str]:
        return [str(slots) for slots in find_slots([doc], to_text, lambda _: ["A", "B"])]

    assert found(prompt) == ["texts"]
    assert found(lambda d: d["q"]) == []
    # Shown in another order than the choices': moving them would ask something else.
    assert found(lambda d: f"{d['texts'][1]} {d['texts'][0]}") == []
