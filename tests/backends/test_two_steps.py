"""P(true) of choices: the answer first, then one query about it, behind what is kept of the prompt."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from architectures import QUICK, SHARING, SIZE, build, config, load, slow
from lm_eval.models.huggingface import HFLM
from tiny import make_config, make_rows, run_tasks

from lm_eval_calibration.backends.hf import cost, packed, trial
from lm_eval_calibration.tasks import CalibratedTask, TaskError

pytestmark = pytest.mark.usefixtures("launching_a_pack_costs_no_more")

NAME = "letters_calibration"


def mmlu_like(n: int = 24) -> list[dict[str, Any]]:
    """A question and four choices beside it: some 250 signs, each of them a token."""
    rng = random.Random(0)
    words = ["bone", "muscle", "nerve", "artery", "vein", "joint", "which", "of the", "is", "at", "lower", "upper"]

    def text(n_words: int) -> str:
        return " ".join(rng.choice(words) for _ in range(n_words))

    head = "The following are multiple choice questions (with answers) about anatomy.\n\n"
    return [
        {
            "question": f"{head}{text(rng.randrange(15, 30))}?\n" + "".join(f"{c}. {text(6)}\n" for c in "ABCD"),
            "choices": list("ABCD"),
            "answer": rng.randrange(4),
        }
        for _ in range(n)
    ]


def llama(tokenizer: Any, max_length: int = 512) -> Any:
    shape = {**SIZE, "num_key_value_heads": 2, "max_position_embeddings": 512}
    return load(build(config("LlamaConfig", **shape)), tokenizer, max_length=max_length)


def p_true(**chosen: Any) -> dict[str, Any]:
    return {"metadata": {"calibration": {"p_true": "kapoor", **chosen}}}


def confidences(lm: Any, rows: list[dict[str, Any]], chosen: dict[str, Any], **options: Any) -> np.ndarray:
    results = run_tasks(lm, [CalibratedTask(make_config(rows, **chosen))], **options)
    return np.array([line["calibration"]["p_true"]["confidence"] for line in results["samples"][NAME]])


@contextmanager
def tokens_read(lm: HFLM) -> Iterator[list[int]]:
    """Count the tokens of each call of the model."""
    counts: list[int] = []
    hook = lm.model.register_forward_pre_hook(
        lambda _, args, kwargs: counts.append((args[0] if args else kwargs["input_ids"]).numel()), with_kwargs=True
    )
    try:
        yield counts
    finally:
        hook.remove()


@pytest.mark.parametrize("query", ["kapoor", "kadavath"])
@pytest.mark.parametrize("kind", [*QUICK, *(slow(kind) for kind in SHARING if kind not in QUICK)])
def test_behind_the_kept_keys_it_is_that_of_plain_batches(kind: str, query: str, byte_tokenizer: Any) -> None:
    lm, rows = load(SHARING[kind](), byte_tokenizer, max_length=256), make_rows(20)
    with tokens_read(lm) as shared:
        ours = confidences(lm, rows, p_true(p_true=query))
    with tokens_read(lm) as plain:
        expected = confidences(lm, rows, p_true(p_true=query, shared_prefixes=False))
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-7)
    assert len(set(ours)) > 10 or kind == "Mistral"  # its windows reach 72 tokens back, to the query alone
    assert sum(shared) < 0.6 * sum(plain)


def test_of_questions_as_in_mmlu_less_than_half_is_read_beside(byte_tokenizer: Any) -> None:
    lm, rows = llama(byte_tokenizer), mmlu_like()
    with tokens_read(lm) as plain:
        run_tasks(lm, [CalibratedTask(make_config(rows))])
    with tokens_read(lm) as ours:
        confidences(lm, rows, p_true())
    assert sum(plain) < sum(ours) <= 1.5 * sum(plain)


def test_packs_of_any_size_give_the_same(byte_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lm, rows = load(SHARING["Gemma 3"](), byte_tokenizer), make_rows(12)
    expected = confidences(lm, rows, p_true(shared_prefixes=False))
    for most in (128, 300, 5000):
        monkeypatch.setattr(cost, "CPU", cost.CPU._replace(most_tokens=most))
        np.testing.assert_allclose(confidences(lm, rows, p_true()), expected, rtol=1e-4)


def test_a_call_that_is_filled_up_gives_the_same(byte_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lm, rows = load(SHARING["Gemma 3"](), byte_tokenizer), make_rows(12)
    expected = confidences(lm, rows, p_true(shared_prefixes=False))
    init = packed.PackedForward.__init__

    def filling(self: Any, *args: Any, **options: Any) -> None:
        init(self, *args, **options)
        self.multiple = 64

    monkeypatch.setattr(packed.PackedForward, "__init__", filling)
    np.testing.assert_allclose(confidences(lm, rows, p_true()), expected, rtol=1e-4)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_a_model_that_shares_by_a_mask_gives_the_same(
    implementation: str, byte_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = load(SHARING["Gemma 3"](), byte_tokenizer)
    lm.model.config._attn_implementation = implementation
    rows = make_rows(12)
    expected = confidences(lm, rows, p_true(shared_prefixes=False))
    monkeypatch.setattr(trial, "attention_of", lambda *_: trial.Found("masked", ""))
    with tokens_read(lm) as read:
        np.testing.assert_allclose(confidences(lm, rows, p_true()), expected, rtol=1e-4)
    assert max(read) > 300


def test_a_model_that_can_t_share_is_queried_once_a_doc_all_the_same(byte_tokenizer: Any) -> None:
    mamba = build(config("MambaConfig", hidden_size=32, num_hidden_layers=2, state_size=8))
    lm, rows = load(mamba, byte_tokenizer), mmlu_like(6)
    with tokens_read(lm) as plain:
        run_tasks(lm, [CalibratedTask(make_config(rows))])
    with tokens_read(lm) as read:
        confidences(lm, rows, p_true(p_true="kadavath"))
    assert sum(plain) < sum(read) < 2.6 * sum(plain)


def test_prompts_that_lose_their_beginning_are_read_again(byte_tokenizer: Any) -> None:
    rows = mmlu_like(8)
    lm = llama(byte_tokenizer, max_length=430)
    lengths = [len(row["question"]) for row in rows]
    assert min(lengths) < 430 - 95 < max(lengths)
    expected = confidences(lm, rows, p_true(shared_prefixes=False))
    np.testing.assert_allclose(confidences(lm, rows, p_true()), expected, rtol=1e-4)


def test_out_of_memory_behind_a_pack_is_no_end(byte_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lm, rows = llama(byte_tokenizer), mmlu_like(8)
    expected = confidences(lm, rows, p_true(shared_prefixes=False))
    forward, failed = packed.PackedForward.__call__, []

    def call(self: Any, step: Any, columns: Any) -> torch.Tensor:
        if step.kept and not failed:
            failed.append(step)
            raise torch.OutOfMemoryError
        return forward(self, step, columns)

    monkeypatch.setattr(packed.PackedForward, "__call__", call)
    np.testing.assert_allclose(confidences(lm, rows, p_true()), expected, rtol=1e-4)
    assert failed


@pytest.mark.parametrize("n_kept", [3, 40, 200])
def test_a_run_that_died_goes_on(n_kept: int, byte_tokenizer: Any, tmp_path: Any) -> None:
    """Choices that the cache holds decide; queries that it holds aren't computed again."""
    from sqlitedict import SqliteDict

    lm, rows = load(SHARING["Llama, grouped queries"](), byte_tokenizer), make_rows(12)
    path = str(tmp_path / "answers")
    expected = confidences(lm, rows, p_true(), use_cache=path)
    with SqliteDict(f"{path}_rank0.db", autocommit=True) as cache:
        for key in list(cache)[n_kept:]:
            del cache[key]
    with tokens_read(lm) as read:
        np.testing.assert_allclose(confidences(lm, rows, p_true(), use_cache=path), expected, rtol=1e-4)
    with tokens_read(lm) as nothing:
        np.testing.assert_array_equal(
            confidences(lm, rows, p_true(), use_cache=path), confidences(lm, rows, p_true(), use_cache=path)
        )
    assert sum(nothing) == 0
    assert (sum(read) > 0) == (n_kept < 200)


def test_cached_requests_wait_again(byte_tokenizer: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lm_eval.caching.cache.PATH", str(tmp_path))
    lm, rows = load(SHARING["Llama, grouped queries"](), byte_tokenizer), make_rows(6)
    first = confidences(lm, rows, p_true(), cache_requests=True)
    np.testing.assert_allclose(confidences(lm, rows, p_true(), cache_requests=True), first, rtol=1e-6)

    class Own(HFLM):
        def token_scores_v1(self, requests: Any) -> Any:
            raise AssertionError("a placeholder would be scored")

    own = Own(pretrained=lm.model, tokenizer=byte_tokenizer, device="cpu")
    with pytest.raises(TaskError, match="run with --cache_requests refresh"):
        confidences(own, rows, p_true(), cache_requests=True)


def test_outside_a_run_each_choice_is_asked_about() -> None:
    """So has tune the queries about all choices, whatever the model answers."""
    task = CalibratedTask(make_config(make_rows(3, ragged=False), **p_true()))
    task.build_all_requests()
    n_choices = len(task.doc_to_choice(task.instances[0].doc))
    assert len(task.instances) == 3 * 3 * n_choices
    assert not any(hasattr(request, "waits_for") for request in task.instances)
