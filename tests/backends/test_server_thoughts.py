"""What servers give of a model that thinks, and what servers that lie give: named, and no wrong number."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import tiny
from scripted_server import entries, scripted_server
from tiny import generation_requests

from lm_eval_calibration import backends as scoring
from lm_eval_calibration.backends import GENERATION_REQUEST_TYPE, GeneratedText
from lm_eval_calibration.backends.api.echo import positions
from lm_eval_calibration.backends.api.first_token import top_tokens
from lm_eval_calibration.backends.api.reasoning import reason_in_answer
from lm_eval_calibration.backends.api.written import content_after, written_text
from lm_eval_calibration.errors import UserError
from lm_eval_calibration.records import Record
from lm_eval_calibration.tasks import CalibratedTask, TaskError

pytest.importorskip("aiohttp", reason="servers need `pip install 'lm-eval[api]'`")

from lm_eval.models.openai_completions import LocalChatCompletion

scoring.install()

pytestmark = pytest.mark.usefixtures("no_waits")

THOUGHT = ["Two", " and", " two", " is", " 4", "."]
CLOSED = ["</think>", "\n\n"]
ANSWER = ["4", "!"]
LOGS = [-0.1 * (i + 1) for i in range(12)]


def chat_choice(
    pieces: list[str], content: Any = "4!", thought: Any = "Two and two is 4.", **more: Any
) -> dict[str, Any]:
    """A chat's choice whose tokens have different log-probabilities; `thought` None: no field for it."""
    message = {"role": "assistant", "content": content} | ({} if thought is None else {"reasoning_content": thought})
    return {"message": message, "logprobs": entries(pieces, LOGS[: len(pieces)]), "finish_reason": "stop", **more}


def make_config(**overrides: Any) -> dict[str, Any]:
    """Sums, answered in writing."""
    rows = [{"question": f"{i} + 2", "choices": [], "answer": str(i + 2)} for i in range(12)]
    written = {"output_type": "generate_until", "doc_to_choice": None, "doc_to_text": "{{question}}"}
    metric = {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}
    settings = {"generation_kwargs": {"until": ["\n"], "max_gen_toks": 64}, "metric_list": [metric]}
    return tiny.make_config(rows, "sums_calibration", **written, **settings, **overrides)


# --- one reply --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pieces", "first", "n_thought"),
    [
        ([*THOUGHT, *CLOSED, *ANSWER], 8, 6),  # as vLLM lists them
        (["<think>\n", *THOUGHT, "\n", *CLOSED, *ANSWER], 10, 6),
        ([*THOUGHT, "<|end|>", "<|start|>", "<|final|>", *ANSWER, "<eos>"], 9, 6),
        (ANSWER, 0, 0),  # of the content alone
        ([*ANSWER, "<eos>"], 0, 0),
        ([*THOUGHT, "</think>4", "!"], 6, 6),  # a token that closes the thought and begins the answer
    ],
)
def test_the_answer_s_tokens_are_those_after_the_thought(pieces: list[str], first: int, n_thought: int) -> None:
    """Though " 4" is a token of the thought, too."""
    found = written_text(chat_choice(pieces), "4!")
    assert found.token_log_probs.tolist() == LOGS[first : first + 2]
    assert found.token_ends.tolist() == [1, 2]
    assert found.thought == "Two and two is 4."
    assert not found.thought_is_open
    assert found.finish_reason == "stop"
    if n_thought:
        begin = pieces.index("Two")
        assert found.thought_log_probs.tolist() == LOGS[begin : begin + n_thought]
        assert found.thought_ends.tolist() == [3, 7, 11, 14, 16, 17]
    else:
        assert found.thought_log_probs is None


@pytest.mark.parametrize(
    ("pieces", "content", "thought"),
    [
        (THOUGHT, "4", "Two and two is 4."),  # a token of the thought reads as the answer, whose own are not listed
        ([*THOUGHT, *CLOSED, "5"], "4", "Two and two is 4."),
        (["Other", " words", " 4"], "4", "Two and two is 4."),  # a thought that is retold
        ([*THOUGHT, "so it is", "4", "4"], "4", "Two and two is 4."),
        (["4"], "4!", None),  # fewer tokens than characters
        (["4", "?"], "4!", None),
        ([], "4!", None),
    ],
)
def test_tokens_that_can_t_be_told_apart_have_no_probabilities(pieces: list[str], content: str, thought: Any) -> None:
    choice = chat_choice(pieces, content, thought)
    if not pieces:
        with pytest.raises(ValueError, match="no log-probabilities of its tokens"):
            written_text(choice, content)
        return
    found = written_text(choice, content)
    assert found.token_log_probs is None
    assert found.thought_log_probs is None
    assert found == content


def test_a_thought_that_the_harness_takes_away_is_kept_apart() -> None:
    """`think_end_token` cuts it off the content."""
    pieces = ["<think>", *THOUGHT, *CLOSED, *ANSWER]
    found = written_text(chat_choice(pieces, "".join(pieces), None), "4!")
    assert found.token_log_probs.tolist() == LOGS[9:11]
    assert found.thought == "<think>Two and two is 4.</think>"
    assert found.thought_log_probs.tolist() == LOGS[:8]


@pytest.mark.parametrize("content", [None, "", "missing"])
def test_a_thought_that_took_all_tokens_is_no_answer(content: Any) -> None:
    choice = chat_choice(THOUGHT, content, finish_reason="length")
    if content == "missing":
        del choice["message"]["content"]
    found = written_text(choice, "")
    assert found.thought_is_open
    assert found.finish_reason == "length"
    assert found.token_log_probs.tolist() == []
    assert found.thought_log_probs.tolist() == LOGS[:6]
    assert found.has_content == (content == "")


def test_where_the_content_begins() -> None:
    assert content_after("ab</think>\n\ncd", "ab", "cd") == 12
    assert content_after("ab</think>\n\ncd", "ab", "\n\ncd") == 10  # the content keeps its blanks
    assert content_after("ab\n<b>c</b>", "ab", "<b>c</b>") == 3  # a mark that is the content's
    assert content_after("cd", "ab", "cd") is content_after("ab x cd cd", "ab", "cd") is None


# --- whole runs -------------------------------------------------------------------------------------------------------


def ask(script: Any, n: int = 4, **settings: Any) -> tuple[list[GeneratedText], list[str], list[dict[str, Any]]]:
    """Our texts of some prompts, the stock run's, and the requests that came."""
    with scripted_server(script) as (url, received):
        lm = LocalChatCompletion(base_url=url, model="scripted")
        prompts = [lm.apply_chat_template([{"role": "user", "content": f"{i} + 2"}]) for i in range(n)]
        requests = partial(generation_requests, prompts, {"until": ["\n"], "max_gen_toks": 64, **settings})
        stock = lm.generate_until(requests())
        received.clear()
        return getattr(lm, GENERATION_REQUEST_TYPE)(requests()), stock, received


def test_a_server_that_returns_reasoning_content(harness_log: pytest.LogCaptureFixture) -> None:
    def script(request: dict[str, Any]) -> dict[str, Any]:
        if "1 + 2" in request["messages"][0]["content"]:
            return {"choices": [chat_choice(THOUGHT, None, finish_reason="length")]}
        return {"choices": [chat_choice([*THOUGHT, *CLOSED, *ANSWER])]}

    found, stock, _ = ask(script)
    assert list(map(str, found)) == stock == ["4!", "", "4!", "4!"]
    assert found[0].token_log_probs.tolist() == LOGS[8:10]
    assert found[0].thought_log_probs.tolist() == LOGS[:6]
    assert [text.thought_is_open for text in found] == [False, True, False, False]
    assert "1 of 4 replies of http://127.0.0.1:" in harness_log.text
    assert "have no content: they are empty answers" in harness_log.text
    assert "a thought was cut off before any answer: allow more tokens (max_gen_toks)" in harness_log.text


def test_a_reply_without_content_is_named(harness_log: pytest.LogCaptureFixture) -> None:
    def script(request: dict[str, Any]) -> dict[str, Any]:
        choice = chat_choice(ANSWER, thought=None)
        if "1 + 2" in request["messages"][0]["content"]:
            del choice["message"]["content"]
        return {"choices": [choice]}

    found, stock, _ = ask(script)
    assert list(map(str, found)) == stock == ["4!", "", "4!", "4!"]
    assert found[1].token_log_probs.tolist() == []
    assert "1 of 4 replies of http://127.0.0.1:" in harness_log.text


def placeholders(value: float, n_probe: int) -> Any:
    """Answers the first request, by which the server is tried out, as all servers do; then it lies."""
    n_requests = -4  # of the stock run before

    def script(request: dict[str, Any]) -> dict[str, Any]:
        nonlocal n_requests
        n_requests += 1
        pieces = ["ab", "cd", "ef", "gh", "ij"]
        logs = entries(pieces, value if n_requests > n_probe else -0.5)
        return {"choices": [{"message": {"content": "abcdefghij"}, "logprobs": logs}]}

    return script


@pytest.mark.parametrize("n_probe", [0, 1])
def test_log_probabilities_that_are_all_zero_are_none(n_probe: int, harness_log: pytest.LogCaptureFixture) -> None:
    found, stock, _ = ask(placeholders(0.0, n_probe))
    assert list(map(str, found)) == stock
    assert not any(text.has_probabilities for text in found)
    said = "gives all of 20 tokens that it wrote probability 1" if n_probe else "it gives every token probability 1"
    assert said in harness_log.text
    if n_probe:
        assert "probability 1" in found[0].certificate["suspect"]


def test_without_log_probabilities_a_thought_that_is_cut_off_is_no_empty_answer() -> None:
    def script(request: dict[str, Any]) -> dict[str, Any]:
        if request.get("logprobs"):
            return {"refused": "no logprobs"}
        number = int(request["messages"][-1]["content"].split()[0])
        choices = (
            {"message": {"content": "4!", "reasoning_content": "Two."}, "finish_reason": "stop"},
            {"message": {"content": "", "reasoning_content": "Two and"}, "finish_reason": "length"},
            {"message": {"content": ""}, "finish_reason": "length"},  # a thought that is not shown
            {"message": {"content": ""}, "finish_reason": "stop"},
        )
        return {"choices": [dict(choices[number % 4])]}

    with scripted_server(script) as (url, _):
        lm = LocalChatCompletion(base_url=url, model="m")
        results = tiny.run_tasks(lm, [CalibratedTask(make_config())], apply_chat_template=True)
    records = [Record.from_dict(line["calibration"]) for line in results["samples"]["sums_calibration"]]
    assert [r.generation.outcome for r in records] == ["answered", "truncated", "truncated", "empty"] * 3
    assert {r.generation.token_log_probs for r in records} == {None}


def test_log_probabilities_that_stand_for_none_are_named(harness_log: pytest.LogCaptureFixture) -> None:
    found, stock, _ = ask(placeholders(-9999.0, 0))
    assert list(map(str, found)) == stock
    assert not any(text.has_probabilities for text in found)
    assert "is -9999.0, which stands for none): its answers have no confidence" in harness_log.text
    with pytest.raises(ValueError, match=r"of token 0, 'ab' is -9999\.0, which stands for none"):
        ask(placeholders(-9999.0, 1))


def test_fewer_tokens_than_characters_are_named(harness_log: pytest.LogCaptureFixture) -> None:
    found, _, _ = ask(lambda _: {"choices": [chat_choice(["4"], thought=None)]})
    assert [text.token_log_probs for text in found] == [None] * 4
    assert "4 of 4 answers have no token probabilities" in harness_log.text


def test_a_group_of_metrics_without_wrong_numbers() -> None:
    """Zeros: no confidence, no ece of 1 - acc."""
    with scripted_server(placeholders(0.0, -3)) as (url, _):
        lm = LocalChatCompletion(base_url=url, model="scripted")
        row = tiny.run_tasks(lm, [CalibratedTask(make_config())], apply_chat_template=True)["results"]
    assert not [name for name in row["sums_calibration"] if name.startswith("ece")]
    assert row["sums_calibration"]["acc,none"] == 0


# --- choices read from the first token --------------------------------------------------------------------------------


def letters() -> CalibratedTask:
    rows = [{"question": "Which?", "choices": ["A", "B"], "answer": i % 2} for i in range(4)]
    return CalibratedTask(tiny.make_config(rows))


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (chat_choice([*THOUGHT], None, finish_reason="length"), "the server returns reasoning_content"),
        ({"message": {"content": None, "reasoning": "Two"}}, "the server returns reasoning"),
        ({"message": {"content": "<think>\nTwo and"}}, "its reply begins with a thought"),
        ({"message": {"content": "A"}, "hidden": 12}, "the server counts 12 reasoning_tokens"),
        ({"message": {"content": ""}, "finish_reason": "length"}, "it spent all tokens of a reply and wrote nothing"),
    ],
)
def test_choices_are_refused_before_anything_is_generated(reply: dict[str, Any], why: str) -> None:
    def script(request: dict[str, Any]) -> dict[str, Any]:
        details = {"completion_tokens_details": {"reasoning_tokens": reply.get("hidden", 0)}}
        return {"choices": [dict(reply)], "usage": details}

    with scripted_server(script) as (url, received):
        lm = LocalChatCompletion(base_url=url, model="scripted")
        tasks = [CalibratedTask(make_config()), letters()]
        with pytest.raises(TaskError, match=f"letters_calibration: the model thinks before it answers .{why}") as error:
            tiny.run_tasks(lm, tasks, apply_chat_template=True)
        assert len(received) == 1  # the small one that showed it
    assert "letters_verbalized_calibration and letters_verbalized_1s_calibration" in str(error.value)


def test_a_thought_that_shows_later_is_no_choice() -> None:
    """The scoring requests themselves look, too."""
    top = {"logprobs": entries(["A"], -0.5)}

    def script(request: dict[str, Any]) -> dict[str, Any]:
        thinks = "Which?" in request["messages"][0]["content"]
        return {"choices": [{"message": {"content": "A", **({"reasoning": "so"} if thinks else {})}, **top}]}

    with scripted_server(script) as (url, _):
        lm = LocalChatCompletion(base_url=url, model="scripted")
        with pytest.raises(UserError, match="so the first token of its answer names no choice"):
            tiny.run_tasks(lm, [letters()], apply_chat_template=True)


def test_a_server_that_does_not_think_is_asked_once_more(harness_log: pytest.LogCaptureFixture) -> None:
    def script(request: dict[str, Any]) -> dict[str, Any]:
        logs = entries(["A"], -0.5)
        logs["content"][0]["top_logprobs"] = [{"token": "A", "logprob": -0.5}, {"token": "B", "logprob": -1.5}]
        return {"choices": [{"message": {"content": "A"}, "logprobs": logs}], "usage": None}

    with scripted_server(script) as (url, received):
        lm = LocalChatCompletion(base_url=url, model="scripted")
        results = tiny.run_tasks(lm, [letters()], apply_chat_template=True)
        assert len(received) == 2 + 4  # does it think, does it give log-probabilities; then the docs
    record = Record.from_dict(results["samples"]["letters_calibration"][0]["calibration"])
    assert record.confidence == pytest.approx(1 / (1 + np.exp(-1)))


def test_no_reason_is_seen_where_there_is_none() -> None:
    assert reason_in_answer({"message": {"content": "A", "reasoning": None, "reasoning_content": ""}}, {}) == ""
    assert reason_in_answer({}, {"usage": {"completion_tokens_details": None}}) == ""


@pytest.mark.parametrize(("value", "total"), [(0.0, "20"), (-9999.0, "0")])
def test_first_tokens_that_are_no_distribution_are_named(value: float, total: str) -> None:
    listed = [{"token": f"t{i}", "logprob": value} for i in range(20)]
    with pytest.raises(ValueError, match=f"the 20 most probable first tokens add up to {total}$"):
        top_tokens({"logprobs": {"content": [{"token": "t0", "top_logprobs": listed}]}})


@pytest.mark.parametrize("value", [0.0, -9999.0])
def test_an_echo_of_placeholders_is_named(value: float) -> None:
    tokens = [f"t{i}" for i in range(10)]
    choice = {"logprobs": {"tokens": tokens, "token_logprobs": [None, *[value] * 9], "top_logprobs": None}}
    with pytest.raises(ValueError, match=f"every token of the prompt the log-probability {value:g}"):
        positions(choice, None)
    choice["logprobs"]["token_logprobs"][4] = -0.5
    assert len(positions(choice, None)) == 9


def test_the_verbalized_question_is_put_to_a_server_that_thinks() -> None:
    """Room to think, and the reply's first line after it."""
    from lm_eval_calibration.tasks.confidences.verbalized import QUESTION

    def script(request: dict[str, Any]) -> dict[str, Any]:
        asked = request["messages"][-1]["content"] == QUESTION
        return {"choices": [chat_choice([*THOUGHT, *CLOSED, *ANSWER], "75%" if asked else "4!")]}

    with scripted_server(script) as (url, received):
        lm = LocalChatCompletion(base_url=url, model="scripted")
        config = make_config(metadata={"calibration": {"verbalized": True}})
        lines = tiny.run_tasks(lm, [CalibratedTask(config)], apply_chat_template=True, limit=2)["samples"]
    assert [line["calibration"]["verbalized"]["confidence"] for line in lines["sums_calibration"]] == [0.75] * 2
    questions = [request for request in received if request["messages"][-1]["content"] == QUESTION]
    assert [(request["max_tokens"], request["stop"]) for request in questions] == [(1024, [])] * 2
