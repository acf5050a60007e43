from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from completions_server import Behaviour, completions_server
from typer.testing import CliRunner

from lm_eval_calibration.cli import app
from lm_eval_calibration.demo.check import compare, verdict
from lm_eval_calibration.errors import UserError
from lm_eval_calibration.records import ChoicesRecord

runner = CliRunner()


def make_records(n: int = 4) -> list[ChoicesRecord]:
    return [
        ChoicesRecord(
            task="t_calibration",
            doc_id=i,
            doc_hash=f"doc {i}",
            prompt_hash=f"prompt {i}",
            log_likelihoods=(-1.0, -2.0 - i, -3.0),
            gold=i % 3,
        )
        for i in range(n)
    ]


def test_equal_runs_agree() -> None:
    outcome = compare(make_records(), make_records())
    assert outcome.agrees
    assert [d.difference for d in outcome.differences] == [0.0] * len(outcome.differences)
    assert "they agree" in verdict(outcome)
    assert "0 of 4 answers differ" in verdict(outcome)


def test_the_largest_difference_is_named() -> None:
    other = make_records()
    other[2] = replace(other[2], log_likelihoods=(-1.0, -4.5, -3.0))
    outcome = compare(make_records(), other)
    assert not outcome.agrees
    assert outcome.differences[0].difference == pytest.approx(0.5)
    assert outcome.differences[0].location == "t_calibration doc 2 choice 1"


@pytest.mark.parametrize(
    ("dtype", "agrees"), [("float32", False), ("float16", False), ("bfloat16", True), ("auto", False)]
)
def test_the_bound_is_that_of_the_coarser_dtype(dtype: str, agrees: bool) -> None:
    backend = [replace(record, certificate={"dtype": dtype}) for record in make_records()]
    other = [replace(record, certificate={"dtype": "float32"}) for record in make_records()]
    other[2] = replace(other[2], log_likelihoods=(-1.0, -4.5, -3.0))  # half a nat away
    for outcome in (compare(backend, other), compare(other, backend)):
        assert outcome.agrees == agrees
        bound = {"bfloat16": "1 or less in bfloat16", "float16": "0.2 or less in float16"}
        assert f"rounding is {bound.get(dtype, '0.001 or less in float32')}" in verdict(outcome)


def test_another_answer_is_a_close_call_only_where_the_choices_are_close() -> None:
    near, far = make_records(1), make_records(1)
    near[0] = replace(near[0], log_likelihoods=(-2.0, -1.9999, -3.0))
    other = [replace(near[0], log_likelihoods=(-1.9999, -2.0, -3.0))]
    assert compare(near, other).agrees
    assert compare(near, other).close_calls == 1
    far[0] = replace(far[0], log_likelihoods=(-1.0, -1.5, -3.0))
    assert not compare(far, [replace(far[0], log_likelihoods=(-1.5, -1.5 + 0.001, -3.0))]).agrees


def test_other_docs_and_prompts_are_refused() -> None:
    with pytest.raises(UserError, match="1 of 4 docs are not in the reference"):
        compare(make_records(4), make_records(3))
    other = make_records()
    other[1] = replace(other[1], prompt_hash="another")
    with pytest.raises(UserError, match="t_calibration doc 1 has a different prompt"):
        compare(make_records(), other)


def test_a_suspect_backend_never_agrees() -> None:
    records = [replace(record, certificate={"suspect": "shifted"}) for record in make_records()]
    assert not compare(records, make_records()).agrees
    assert verdict(compare(records, make_records())) == "shifted"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shifted", "exit_code", "said"),
    [(False, 0, "they agree"), pytest.param(True, 1, "THEY DISAGREE", marks=pytest.mark.slow)],
)
def test_check_of_a_server(gpt2_lm: Any, tmp_path: Path, shifted: bool, exit_code: int, said: str) -> None:
    pytest.importorskip("aiohttp", reason="servers need `pip install 'lm-eval[api]'`")
    gpt2_lm.tokenizer.save_pretrained(tmp_path)
    gpt2_lm.model.save_pretrained(tmp_path)
    with completions_server(gpt2_lm.model, gpt2_lm.tokenizer, Behaviour(shifted=shifted)) as url:
        arguments = ["--model", "local-completions", "--limit", "3"]
        arguments += ["--model_args", f"base_url={url},model=tiny,tokenizer={tmp_path},max_length=257"]
        arguments += ["--reference_args", f"pretrained={tmp_path},dtype=float32,device=cpu"]
        result = runner.invoke(app, ["check", *arguments])
    assert result.exit_code == exit_code, result.output
    assert said in result.output
    assert "full_ece" in result.output


def test_check_without_weights_to_compare_with_is_one_error() -> None:
    result = runner.invoke(app, ["check", "--model", "local-completions", "--model_args", "base_url=http://x"])
    assert result.exit_code == 2
    assert "--reference_args pretrained=DIR" in result.output
