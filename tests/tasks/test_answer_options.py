"""The options of a doc in the place of its answer: their log-likelihoods, and metrics over all of them."""

import math
import re
import string
from typing import Any

import numpy as np
import pytest
import torch
from generation_tasks import make_config, options, run
from lm_eval.models.huggingface import HFLM
from scipy.special import softmax
from scripted import Scripted, TextsOnly
from tiny import generation_requests, make_gpt2, make_tokenizer

from lm_eval_calibration import metrics
from lm_eval_calibration.records import AnswerOptions, Record
from lm_eval_calibration.tasks import CalibratedTask, TaskError
from lm_eval_calibration.tasks.doc_options import DocOptions, listed_options


def says(pattern: str) -> dict[str, Any]:
    return {"name": "says", "filter": [{"function": "regex", "regex_pattern": pattern}, {"function": "take_first"}]}


YES_NO, LETTER = says(r"\b(Yes|No|yes|no|Maybe)\b"), says(r"(\([A-Z]\))")


@pytest.mark.parametrize(
    ("prompt", "forms"),
    [
        ("Which?\n(A) one\n(B) two words\n", (("A", "B"), ("one", "two words"))),
        ("Which?\nA. one\nB. two\nC. three\nAnswer:", (("A", "B", "C"), ("one", "two", "three"))),
        ("  A) one\n  B) two", (("A", "B"), ("one", "two"))),
        ("A. Smith says:\nOptions:\n(A) one\n(B) two", (("A", "B"), ("one", "two"))),
        ("(A) first\n(B) second\n(A) third\n(B) fourth", (("A", "B"), ("third", "fourth"))),
        ("Options: (A) one (B) two\nQ", (("A", "B"), ("one", "two\nQ"))),
        ("Choices: A. one B. two", (("A", "B"), ("one", "two"))),
        ("Back?\nOptions:\n- Yes\n- No\nA: Let's think", (("Yes", "No"),)),
        ("- Yes\n- No", ()),
        ("Options:\n- Yes", ()),
        ("(B) one\n(C) two", ()),
        ("A: Let's think step by step.", ()),
        ("", ()),
    ],
)
def test_options_that_a_prompt_lists(prompt: str, forms: Any) -> None:
    assert listed_options(prompt) == forms


@pytest.mark.parametrize(
    ("written", "index", "in_place"),
    [
        ("(B)", 1, ["(A)", "(B)", "(C)"]),
        ("B", 1, ["A", "B", "C"]),
        ("B.", 1, ["A.", "B.", "C."]),
        ("b", None, ["a", "b", "c"]),
        ("two words", 1, ["one", "two words", "a fine three"]),
        ("Two words", 1, ["One", "Two words", "A fine three"]),
        ("TWO WORDS", 1, ["ONE", "TWO WORDS", "A FINE THREE"]),
        ("two", None, None),
        ("D", None, None),
        ("", None, None),
    ],
)
def test_an_answer_among_its_options(written: str, index: Any, in_place: Any) -> None:
    doc_options = DocOptions((("A", "B", "C"), ("one", "two words", "a fine three")))
    assert doc_options.which(written) == index
    assert doc_options.in_place_of(written) == in_place


def make_rows(n: int = 12) -> list[dict[str, Any]]:
    return [{"question": f"turn {i}", "answer": "Yes" if i % 4 else "No"} for i in range(n)]


def make_chains(**overrides: Any) -> dict[str, Any]:
    text = "Q: {{question}}\nOptions:\n- Yes\n- No\nA: Let's think."
    return make_config(
        make_rows(), **{"doc_to_text": text, "filter_list": [YES_NO], **options(answer_options="auto"), **overrides}
    )


def chain(prompt: str, _: int = 0) -> str:
    number = int(re.findall(r"turn (\d+)", prompt)[-1])
    return f"Turn {number} it. {'Yes' if number % 3 else 'No'}."


class ByContext(Scripted):
    """A backend whose probability of a continuation depends on what it continues; it keeps what it was asked."""

    def __init__(self, script: Any = chain, **known: Any) -> None:
        super().__init__(script, **known)
        self.scored: list[tuple[str, str]] = []

    def token_scores_v1(self, requests: Any) -> Any:
        self.scored += [request.args for request in requests]
        self.probability = lambda _: 0.5
        scores = super().token_scores_v1(requests)
        return [type(s)((log_likelihood(*r.args), False)) for s, r in zip(scores, requests, strict=True)]


def log_likelihood(context: str, continuation: str) -> float:
    return -1 - len(continuation) / (1 + len(context) % 5)


def expected(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of Yes and No in the place of each answer, and the gold index, by the definition."""
    probs, gold = [], []
    for row, text in zip(make_rows(), texts, strict=True):
        prompt = f"Q: {row['question']}\nOptions:\n- Yes\n- No\nA: Let's think."
        start = re.search(r"Yes|No", text).start()  # type: ignore[union-attr]
        probs.append(softmax([log_likelihood(prompt + text[:start], option) for option in ("Yes", "No")]))
        gold.append(["Yes", "No"].index(row["answer"]))
    return np.array(probs), np.array(gold)


def test_metrics_are_those_over_the_options() -> None:
    lm = ByContext()
    results, samples, records = run(lm, make_chains(), bootstrap_iters=10)
    texts = [chain(row["question"]) for row in make_rows()]
    assert [line["resps"][0][0] for line in samples] == texts
    probs, gold = expected(texts)
    top = probs.max(axis=1), (probs.argmax(axis=1) == gold).astype(int)
    for name in ("brier_score", "ace"):
        metric = metrics.CATALOG[name]
        assert results[f"{name}_answer,says"] == pytest.approx(metric.value(probs, gold), abs=1e-12)
        assert results[f"{name}_answer_stderr,says"] == pytest.approx(metric.stderr(probs, gold), abs=1e-12)
    brier = np.mean([(p[0] - (g == 0)) ** 2 + (p[1] - (g == 1)) ** 2 for p, g in zip(probs, gold, strict=True)])
    assert results["brier_score_answer,says"] == pytest.approx(brier, abs=1e-12)
    for name in ("ece", "auroc", "brier_top_label"):
        expected_value = metrics.GENERATION_CATALOG[name].value(*top)
        assert results[f"{name}_answer,says"] == pytest.approx(expected_value, abs=1e-12)
    for record, text, gold_index in zip(records, texts, gold, strict=True):
        assert record.options.gold == gold_index
        assert record.options.answer == ["Yes", "No"].index(re.search(r"Yes|No", text)[0])  # type: ignore[index]
        assert Record.from_dict(record.to_dict()) == record
        assert math.exp(record.options.log_likelihoods[0]) + math.exp(record.options.log_likelihoods[1]) == (
            pytest.approx(1 - record.options.unassigned_mass)
        )


def test_without_the_option_nothing_is_scored() -> None:
    lm = ByContext()
    results, _, records = run(lm, make_chains(**options()))
    assert not any("brier_score" in key for key in results)
    assert records[0].options is None
    assert "options" not in records[0].to_dict()
    assert all(continuation in (" Yes", " No") for _, continuation in lm.scored)  # the reference answers


def test_tokens_that_hold_more_than_the_answer() -> None:
    """A token is scored whole: the text before the answer in it, and the full stop behind."""
    lm = ByContext(token_ends=lambda text: np.array([len(text) - len(text.split()[-1]) - 1, len(text)]))
    _, _, records = run(lm, make_chains())
    assert {continuation for _, continuation in lm.scored if "." in continuation} == {" Yes.", " No."}
    assert all(record.options is not None for record in records)


def test_the_thought_that_was_taken_away_is_part_of_the_context() -> None:
    thought = "<think>left</think>\n"
    lm = ByContext(thought=thought)
    run(lm, make_chains())
    contexts = {context for context, _ in lm.scored if "Turn 1 it" in context}
    assert contexts == {f"Q: turn 1\nOptions:\n- Yes\n- No\nA: Let's think.{thought}Turn 1 it. "}


@pytest.mark.parametrize("others", [{5}, {1, 2, 4, 5, 6, 7}])
def test_answers_that_are_no_options_are_left_out(others: set[int], harness_log: pytest.LogCaptureFixture) -> None:
    def script(prompt: str, _: int) -> str:
        return "Maybe so." if int(re.findall(r"turn (\d+)", prompt)[-1]) in others else chain(prompt)

    results, _, records = run(ByContext(script), make_chains())
    assert {r.doc_id for r in records if r.options is None} == others
    shown = ", ".join(map(str, sorted(others)))
    assert f"{len(others)} of 12 answers have no probabilities of their doc's options" in harness_log.text
    assert f"(docs {shown})" in harness_log.text
    probs, gold = expected([chain(row["question"]) for row in make_rows()])
    kept = [i for i in range(12) if i not in others]
    assert results["brier_score_answer,says"] == pytest.approx(metrics.brier_score(probs[kept], gold[kept]), abs=1e-12)
    assert results["ace_answer,says"] == pytest.approx(metrics.ace(probs[kept], gold[kept]), abs=1e-12)
    assert results["ece_answer,says"] == pytest.approx(
        metrics.ece(probs[kept].max(axis=1), (probs.argmax(axis=1) == gold)[kept]), abs=1e-12
    )


def test_where_most_answers_are_no_options_metrics_are_of_the_tokens(harness_log: pytest.LogCaptureFixture) -> None:
    def script(prompt: str, _: int) -> str:
        return chain(prompt) if int(re.findall(r"turn (\d+)", prompt)[-1]) < 5 else "Maybe so."

    results, _, records = run(Scripted(script, lambda c: 0.5 if c in "YesNo" else 0.9), make_chains())
    assert "7 of 12 answers are none of their doc's options, or nobody knows these (docs 5, 6, 7" in harness_log.text
    assert math.isnan(results["brier_score_answer,says"])
    assert "brier_score_answer is undefined: most answers are none of their doc's options" in harness_log.text
    confidence = [record.generation.answer_probability for record in records]
    correct = [record.correct for record in records]
    for name in ("ece", "ace", "auroc"):
        value = metrics.GENERATION_CATALOG[name].value(confidence, correct)
        assert results[f"{name}_answer,says"] == pytest.approx(value, abs=1e-12)


def test_texts_without_an_answer_are_in_no_metric() -> None:
    results, _, records = run(ByContext(lambda p, n: "?" if "turn 5\n" in p else chain(p)), make_chains())
    assert records[5].generation.outcome == "not_found"
    probs, gold = expected([chain(row["question"]) for row in make_rows()])
    others = [i for i in range(12) if i != 5]
    assert results["brier_score_answer,says"] == pytest.approx(metrics.brier_score(probs[others], gold[others]))
    assert results["ece_answer,says"] == pytest.approx(
        metrics.ece(probs[others].max(axis=1), (probs.argmax(axis=1) == gold)[others])
    )


def test_labels_of_a_prompt_stand_for_the_choices_of_the_task() -> None:
    rows = [{"question": "q", "answer": "(B)"}, {"question": "r", "answer": "(A)"}]
    text = "{{question}}\nOptions:\n(A) one\n(B) two\nA:"
    config = make_config(rows, doc_to_text=text, filter_list=[LETTER], **options(answer_options="auto"))
    lm = ByContext(lambda *_: "So (B).")
    _, _, records = run(lm, config)
    assert [(r.options.answer, r.options.gold) for r in records] == [(1, 1), (1, 0)]
    assert {c for _, c in lm.scored} >= {"(A)", "(B)"}


@pytest.mark.parametrize(
    "wanted", [["Yes", "No"], "choices", "{{['Yes', 'No']}}"], ids=["a list", "a column", "a template"]
)
def test_options_that_the_user_names(wanted: Any) -> None:
    rows = [{**row, "choices": ["Yes", "No"]} for row in make_rows()]
    config = make_chains(doc_to_text="Q: {{question}}\nOptions:\n- Yes\n- No\nA: Let's think.")
    config |= make_config(rows, doc_to_text=config["doc_to_text"], filter_list=[YES_NO]) | options(
        answer_options=wanted
    )
    results, *_ = run(ByContext(), config)
    probs, gold = expected([chain(row["question"]) for row in make_rows()])
    assert results["brier_score_answer,says"] == pytest.approx(metrics.brier_score(probs, gold), abs=1e-12)


@pytest.mark.parametrize("wanted", [3, True, [], ["one"], ""])
def test_bad_values_are_refused(wanted: Any) -> None:
    with pytest.raises(TaskError, match=r"answer_options is .*, neither 'auto', nor a list of options"):
        CalibratedTask(make_chains(**options(answer_options=wanted)))


def test_a_template_that_gives_no_list_is_named() -> None:
    with pytest.raises(TaskError, match=r"answer_options '\{\{question\}\}' give no list"):
        run(ByContext(), make_chains(**options(answer_options="{{question}}")))


class Listing(Scripted):
    """Lists the most probable tokens at the position that is wanted, and scores no text that it is given.

    Words are its tokens, the blank before each among them.
    """

    def __init__(self, listed: Any, script: Any = chain) -> None:
        super().__init__(script, token_ends=lambda text: np.array([m.end() for m in WORD.finditer(text)]))
        self.listed = listed

    def generated_tokens_v1(self, requests: Any) -> Any:
        texts = super().generated_tokens_v1(requests)
        for text in texts:
            n_tokens = len(text.token_ends)
            vars(text).update(token_log_probs=np.log(np.full(n_tokens, 0.5)), listed=(self.listed(text),) * n_tokens)
        positions = [request.option_position(text) for request, text in zip(requests, texts, strict=True)]
        return [text.keeping_top_tokens(position) for text, position in zip(texts, positions, strict=True)]


WORD = re.compile(r"\s*\w+|\W")


@pytest.fixture
def scoring_none(monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval_calibration.tasks.confidences import answer

    monkeypatch.setattr(answer, "can_score_texts", lambda lm: False)


def listed(text: str) -> Any:
    """ " Yes" and "yes" add up to 0.6 (0.2 where the text is long); "No" is listed where the text has no 5."""
    yes = 0.55 if len(text) < 15 else 0.15
    others = (("No", math.log(0.1)),) if "5" not in text else ()
    return ((" Yes", math.log(yes)), ("yes", math.log(0.05)), (" Nobody", math.log(0.02)), *others)


@pytest.mark.usefixtures("scoring_none")
def test_options_are_read_from_the_most_probable_tokens() -> None:
    lm = Listing(listed)
    results, samples, records = run(lm, make_chains())
    texts = [str(line["resps"][0][0]) for line in samples]
    probs, gold = [], []
    for record, text, row in zip(records, texts, make_rows(), strict=True):
        yes, no = 0.6 if len(text) < 15 else 0.2, 0.1 if "5" not in text else 0.05  # at most the second smallest
        assert [math.exp(value) for value in record.options.log_likelihoods] == pytest.approx([yes, no])
        assert record.options.bounded == (() if "5" not in text else (1,))
        assert record.options.k == len(listed(text))
        assert record.options.unassigned_mass == pytest.approx(1 - yes - (no if "5" not in text else 0))
        assert Record.from_dict(record.to_dict()) == record
        probs.append([yes / (yes + no), no / (yes + no)])
        gold.append(["Yes", "No"].index(row["answer"]))
    assert len({round(p, 6) for p, _ in probs}) == 3
    brier = np.mean([(p[0] - (g == 0)) ** 2 + (p[1] - (g == 1)) ** 2 for p, g in zip(probs, gold, strict=True)])
    assert results["brier_score_answer,says"] == pytest.approx(brier, abs=1e-12)


@pytest.mark.usefixtures("scoring_none")
@pytest.mark.parametrize(
    ("script", "n_known"),
    [
        (lambda *_: "So it is (Yes).", 12),
        (lambda *_: "So it isYes.", 0),  # the token spells more than the option
        (lambda *_: "Yes", 12),
    ],
)
def test_an_answer_whose_token_is_no_option_is_left_out(
    script: Any, n_known: int, harness_log: pytest.LogCaptureFixture
) -> None:
    config = make_chains(filter_list=[says("(Yes|No)")])
    results, _, records = run(Listing(listed, script), config)
    assert sum(record.options is not None for record in records) == n_known
    assert (
        "12 of 12 answers are none of their doc's options, or their token spells more or less than one"
        in (harness_log.text)
    ) == (n_known == 0)
    assert math.isnan(results.get("brier_score_answer,says", math.nan)) == (n_known == 0)


@pytest.mark.usefixtures("scoring_none")
def test_a_backend_that_lists_no_tokens_is_named(harness_log: pytest.LogCaptureFixture) -> None:
    results, _, records = run(Scripted(chain), make_chains())
    assert "12 of 12 answers are none of their doc's options" in harness_log.text
    assert "or was not listed (docs 0, 1" in harness_log.text
    assert records[0].options is None
    assert "brier_score_answer,says" not in results
    assert "ece_answer,says" in results


def test_a_backend_without_token_probabilities_scores_options() -> None:
    results, _, records = run(TextsOnly(chain), make_chains())
    assert [record.options.log_likelihoods for record in records] == [(-1.0, -1.0)] * 12
    assert results["brier_score_answer,says"] == pytest.approx(0.5)


def test_equal_to_a_forward_pass_in_float64() -> None:
    """Over prompt and generated text, with the option in the answer's place."""
    tokenizer = make_tokenizer()
    lm = HFLM(pretrained=make_gpt2(tokenizer).double(), tokenizer=tokenizer, batch_size=4, max_length=256)
    letters = list(string.ascii_letters + string.digits)
    rows = [{"question": f"{i} and on", "answer": letters[i]} for i in range(48)]
    config = make_config(
        rows,
        filter_list=[says("[A-Za-z0-9]")],
        generation_kwargs={"until": ["\n"], "max_gen_toks": 24, "do_sample": False},
        **options(answer_options=letters),
    )
    _, samples, records = run(lm, config)
    stock = lm.generate_until(generation_requests([row["question"] for row in rows], config["generation_kwargs"]))
    assert [str(line["resps"][0][0]) for line in samples] == stock
    assert sum(record.options is not None for record in records) >= 40
    n_exact = 0
    for line, record in zip(samples, records, strict=True):
        if record.options is None:
            continue
        text, (start, _) = str(line["resps"][0][0]), record.generation.answer.span
        tokens = lm.tok_encode(line["doc"]["question"] + text[:start])
        with torch.no_grad():
            row = lm.model(torch.tensor([tokens])).logits[0, -1].log_softmax(-1)
        by_definition = [float(row[lm.tok_encode(letter)[0]]) for letter in letters]
        assert record.options.log_likelihoods == pytest.approx(by_definition, abs=1e-6)
        if "\N{REPLACEMENT CHARACTER}" not in text[:start]:  # the text says what the tokens were
            (written,) = record.generation.token_log_probs[slice(*record.generation.answer.tokens)]
            assert record.options.log_likelihoods[record.options.answer] == pytest.approx(written, abs=1e-5)
            n_exact += 1
    assert n_exact >= 10


@pytest.mark.parametrize(
    ("log_likelihoods", "answer", "gold", "message"),
    [((), 0, 0, "are"), ((math.nan,), 0, 0, "nan"), ((-1.0,), 1, 0, "answer is 1"), ((-1.0,), 0, -1, "gold is -1")],
)
def test_impossible_options_are_refused(log_likelihoods: Any, answer: int, gold: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AnswerOptions(log_likelihoods, answer, gold)


def test_options_that_include_one_another_have_no_unassigned_mass() -> None:
    assert AnswerOptions((math.log(0.7), math.log(0.6)), 0, 0).unassigned_mass is None
    assert AnswerOptions((math.log(0.7), -math.inf), 0, 0).unassigned_mass == pytest.approx(0.3)
