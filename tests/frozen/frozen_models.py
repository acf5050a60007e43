"""Runs of models: every kind of task, of confidence and of backend."""

import json
import os
import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import yaml
from completions_server import Behaviour, chat_url, completions_server
from datasets import Dataset
from frozen.frozen_commands import Place
from frozen.frozen_files import case, of_results, plain
from frozen.frozen_lms import Exact, Templated, TextsOnly
from lm_eval import simple_evaluate
from lm_eval.api.group import Group
from tiny import make_config, make_rows
from users_tasks import SHAPES, write_task
from users_tasks import make_rows as make_trees

from lm_eval_calibration import calibrated
from lm_eval_calibration.tasks import CalibratedTask, CalibrationTaskManager

Run = dict[str, Any]
TORCH = 1e-5
EXTENDED = "ace_top_label brier_top_label nll mce rms_ce sce full_ece_choices ece_debiased ce_l2_debiased aurc "
EXTENDED += "augrc auprc overconfidence confident_error_rate skill_score"
LETTERS = {"doc_to_choice": ["A", "B", "C", "D"], "doc_to_target": "{{answer % 4}}"}


def evaluate(lm: Any, tasks: list[Any], folder: Path | None = None, **options: Any) -> Run:
    where = None if folder is None else str(folder)
    manager = CalibrationTaskManager(include_path=where, include_defaults=False, metadata=options.get("metadata"))
    names = [name for name in tasks if isinstance(name, str)]
    tasks = [*(manager.match_tasks(names) if names else ()), *(t for t in tasks if not isinstance(t, str))]
    results = simple_evaluate(model=lm, tasks=tasks, task_manager=manager, **options)
    return of_results(results or {"configs": {}, "results": {}})


def choices(n: int = 10, task: str = "letters_calibration", keys: Run | None = None, **options: Any) -> Any:
    return CalibratedTask(make_config(make_rows(n), task, metadata={"calibration": options}, **(keys or {})))


def sums(task: str = "sums_calibration", keys: Run | None = None, **options: Any) -> Any:
    rows = [{"question": f"{i} + {i % 3}", "answer": str(i + i % 3)} for i in range(10)]
    if not options.get("verbalized"):  # by itself an answer alone is no reference beside a regex filter
        options = {"reference": "{{' ' ~ answer}}", **options}
    return CalibratedTask(written(rows, task) | {"metadata": {"calibration": options}} | (keys or {}))


def written(rows: list[Run], task: str) -> Run:
    take = [{"function": "take_first"}]
    filters = {"strict": r"= (\d+)", "loose": r"(\d+)$"}
    return {
        "task": task,
        "custom_dataset": lambda **_: {"test": Dataset.from_list(rows)},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "answer",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8, "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "filter_list": [
            {"name": name, "filter": [{"function": "regex", "regex_pattern": pattern}, *take]}
            for name, pattern in filters.items()
        ],
    }


def pages(n: int = 5) -> Any:
    words = ["a", "river", "= =", "town was", "1901 ,", "and its", "bridge fell .", '" no "', "( twice )", "@-@"]
    rows = [{"page": " ".join(words[(i * k) % len(words)] for k in range(3 + 17 * i))} for i in range(1, n + 1)]
    splits = {"test": Dataset.from_list(rows)}
    return CalibratedTask(
        {"task": "pages_calibration", "custom_dataset": lambda **_: splits, "test_split": "test"}
        | {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{page}}"}
    )


def users_folder(place: Place) -> Path:
    """A user's YAMLs of every shape, a group in a group, and a tag."""
    folder = place.folder / "users"
    if not folder.exists():
        folder.mkdir()
        for name, keys in SHAPES.items():
            rows = make_trees(8)
            write_task(folder, name, rows, **({"tag": "shapes", **keys} if name in ("letters", "ragged") else keys))
        inner = {"group": "texts", "task": ["text_gold", {"task": "ragged", "num_fewshot": 2}]}
        group = {"group": "trees", "task": ["letters", inner]}
        pooled = {"aggregate_metric_list": [{"metric": "acc", "weight_by_size": True}]}
        (folder / "trees.yaml").write_text(yaml.safe_dump(group | pooled), encoding="utf-8")
    return folder


# --- choices ----------------------------------------------------------------------------------------------------------


@case()
def choices_with_every_metric(place: Place) -> Run:
    tasks = [choices(12, metrics=EXTENDED.split()), choices(5, "n_calibration", confidence="length_normalized")]
    return evaluate(Exact(), tasks)


@case()
def choices_with_every_column(place: Place) -> Run:
    listed = {"metric_list": [{"metric": name} for name in ("acc", "ece", "brier_score", "full_ece", "nll")]}
    shown = {"intervals": True, "nulls": True, "temperature": True, "n_bins": 15}
    return evaluate(Exact(), [choices(30, keys=listed, **shown)])


@case()
def every_shape_of_a_users_task(place: Place) -> Run:
    names = [f"{name}_calibration" for name in SHAPES]
    return evaluate(Exact(), [*names, "multi_token"], users_folder(place), num_fewshot=1, limit=5)


@case()
def choices_length_normalized_by_metadata(place: Place) -> Run:
    asked = {"calibration": {"confidence": "length_normalized", "n_bins": 5}}
    return evaluate(Exact(), ["normalized_calibration"], users_folder(place), metadata=asked)


@case()
def choices_permuted(place: Place) -> Run:
    names = ["letters_calibration", "fields_calibration", "listed_texts_calibration", "multi_token_calibration"]
    return evaluate(Exact(), names, users_folder(place), metadata={"calibration": {"permute": 4}})


@case()
def choices_without_distributions(place: Place) -> Run:
    return evaluate(TextsOnly(), [choices(metrics=["overconfidence"]), choices(1, "one_calibration")])


@case()
def choices_with_a_broken_gold(place: Place) -> Run:
    config = make_config([*make_rows(9), {**make_rows(1)[0], "answer": -100}], "broken_calibration")
    texts = [row | {"answer": row["choices"][row["answer"]]} for row in make_rows(3)]
    named = make_config([texts[0], texts[1] | {"answer": "none of them"}, texts[2]], "named_calibration")
    none = make_config([row | {"answer": "none of them"} for row in texts], "none_calibration")
    return evaluate(Exact(), [CalibratedTask(some) for some in (config, named, none)])


@case()
def choices_predicted_only(place: Place) -> Run:
    return evaluate(Exact(), [choices()], predict_only=True)


@case()
def choices_of_one_doc(place: Place) -> Run:
    return evaluate(Exact(), [choices(), sums(), pages()], limit=1)


@case()
def choices_without_errors_or_samples(place: Place) -> Run:
    return evaluate(Exact(), [choices(repeats=3)], bootstrap_iters=0, log_samples=False)


@case()
def groups_and_tags_of_a_user(place: Place) -> Run:
    folder = users_folder(place)
    return _both(
        evaluate(Exact(), ["trees_calibration"], folder), evaluate(TextsOnly(), ["shapes_calibration"], folder)
    )


@case()
def groups_pooled_and_of_other_bins(place: Place) -> Run:
    metrics = [{"metric": name, "weight_by_size": True} for name in ("acc", "brier_score", "ece", "full_ece", "auroc")]
    groups = {
        name: Group.from_config({"group": f"{name}_calibration", "aggregate_metric_list": metrics})
        for name in ("top", "low", "bins")
    }
    groups["low"].add(choices(4, "one_calibration", metrics=["mce"]))
    groups["low"].add(choices(7, "two_calibration", metrics=["mce"]))
    groups["top"].add(groups["low"])
    groups["top"].add(choices(5, "three_calibration", metrics=["mce"]))
    for n_bins in (5, 20):
        groups["bins"].add(choices(6, f"bins{n_bins}_calibration", n_bins=n_bins))
    return evaluate(Exact(), [groups["top"], groups["bins"]])


@case()
def calibrated_from_python(place: Place) -> Run:
    path = users_folder(place) / "ragged.yaml"
    return evaluate(TextsOnly(), [calibrated(path, n_bins=7, metrics=["nll"], intervals=True)])


# --- what is written, corpora, what is asked --------------------------------------------------------------------------


@case()
def generation_of_several_filters(place: Place) -> Run:
    tasks = [sums(intervals=True, metrics=["overconfidence", "aurc"], permute=2), sums("l", filter="loose")]
    return evaluate(Exact(), [*tasks, sums("q", reference="{{question}}")])


@case()
def generation_without_probabilities(place: Place) -> Run:
    return evaluate(TextsOnly(), [sums(), sums("r_calibration", repeats=3)])


@case()
def generation_repeated(place: Place) -> Run:
    return evaluate(Exact(), [sums(repeats=5), sums("e_calibration", repeats=5, filter="loose", p_true="kapoor")])


@case()
def corpus_of_a_plain_backend(place: Place) -> Run:
    return evaluate(TextsOnly(), [pages()])


@case()
def p_true_of_choices(place: Place) -> Run:
    tasks = [choices(p_true=name, task=f"{name}_calibration", intervals=True) for name in ("kapoor", "kadavath")]
    return evaluate(Exact(), [*tasks, "trees_p_true_calibration"], users_folder(place))


@case()
def p_true_of_generations(place: Place) -> Run:
    tasks = [sums(p_true="kapoor"), sums("k_calibration", p_true="kadavath", reference="")]
    plain_backend = evaluate(TextsOnly(), [sums(p_true="kapoor")])
    return _both(evaluate(Exact(), tasks), plain_backend)


@case()
def verbalized_of_choices_and_generations(place: Place) -> Run:
    names = ["fields_verbalized_calibration", "shapes_verbalized_calibration"]
    told = evaluate(TextsOnly(), [*names, sums(verbalized=True)], users_folder(place))
    return _both(told, evaluate(Exact(), [sums(verbalized=True, repeats=2)]))


@case()
def asked_in_chats(place: Place) -> Run:
    names = ["letters_verbalized_calibration", "letters_p_true_calibration"]
    options = {"apply_chat_template": True, "fewshot_as_multiturn": True, "num_fewshot": 2}
    return evaluate(Templated(), names, users_folder(place), **options)


def _both(one: Run, other: Run) -> Run:
    return {part: {"one": one[part], "other": other[part]} for part in one}


@case()
def code_and_open_answers(place: Place) -> Run:
    prompt = 'def double(x):\n    """Twice x."""\n'
    problem = {"task_id": "own/0", "prompt": prompt, "canonical_solution": "    y = x\n\n    return y * 2\n"}
    problem |= {"test": "def check(candidate):\n    assert candidate(3) == 6\n", "entry_point": "double"}
    test = ["assert f(1) == 3"] * 3
    exercises = [
        {"task_id": i, "text": f"Add {i}.", "code": "def f(a):\n  return a + 2", "test_list": test} for i in (1, 2)
    ]
    said = {"value": "A", "aliases": ["A", "B"]}
    rows = {
        "openai/openai_humaneval openai_humaneval test": [problem],
        "google-research-datasets/mbpp full test": exercises,
        "mandarjoshi/trivia_qa rc.nocontext validation": [
            {"question": f"Who{'!' * i}", "answer": said} for i in (0, 1)
        ],
    }
    for name, lines in rows.items():
        path, config, split = name.split()
        Path(path).mkdir(parents=True, exist_ok=True)
        files = f"configs:\n- config_name: {config}\n  data_files:\n  - split: {split}\n    path: {split}.jsonl\n"
        (Path(path) / "README.md").write_text(f"---\n{files}---\n", encoding="utf-8")
        (Path(path) / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    tasks = ["code_calibration"]
    return evaluate(Exact(), tasks, confirm_run_unsafe_code=True)


# --- torch models, servers, ranks -------------------------------------------------------------------------------------


@case(TORCH)
def torch_choices(place: Place) -> Run:
    shots = evaluate(place.gpt2, [choices(), choices(4, "t_calibration", temperatures=True)], num_fewshot=2)
    return _both(shots, evaluate(place.gpt2, [choices(shared_prefixes=False, p_true="kapoor")]))


@case(TORCH)
def torch_encoder_decoder(place: Place) -> Run:
    return evaluate(place.t5, [choices(6, temperatures=True)])


@case(TORCH)
def torch_generation(place: Place) -> Run:
    return evaluate(place.gpt2, [sums(p_true="kapoor"), sums("v_calibration", verbalized=True)], limit=4)


@case(TORCH)
def torch_corpus(place: Place) -> Run:
    return evaluate(place.gpt2, [pages()])


@case(TORCH)
def completions_servers(place: Place) -> Run:
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    folder = place.folder / "tokenizer"
    place.gpt2.tokenizer.save_pretrained(folder)
    found = []
    for most in (20, 1):
        with completions_server(place.gpt2.model, place.gpt2.tokenizer, Behaviour(most=most)) as url:
            lm = LocalCompletionsAPI(
                base_url=url, model="tiny", tokenizer=str(folder), tokenizer_backend="huggingface", max_length=257
            )
            found.append(evaluate(lm, [choices(6), sums()], limit=6))
    return _hide_urls(_both(*found))


@case(TORCH)
def chat_servers(place: Place) -> Run:
    from lm_eval.models.openai_completions import LocalChatCompletion

    with completions_server(place.gpt2.model, place.gpt2.tokenizer, Behaviour()) as url:
        lm = LocalChatCompletion(base_url=chat_url(url), model="tiny")
        return _hide_urls(evaluate(lm, [choices(keys=LETTERS), sums()], apply_chat_template=True))


def _hide_urls(run: Run) -> Run:
    return dict(json.loads(re.sub(r"127\.0\.0\.1:\d+", "<server>", json.dumps(run))))


@case()
def two_ranks(place: Place) -> Run:
    """Numbers of two processes over gloo, as rank 0 has them."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    output = place.folder / "ranks.json"
    command = [*place.python(), str(Path(__file__).with_name("frozen_rank.py")), str(output)]
    workers = [
        subprocess.Popen(
            command, env={**os.environ, **shared, "RANK": str(rank)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for rank in range(2)
    ]
    for worker in workers:
        said = worker.communicate(timeout=240)[0]
        assert worker.returncode == 0, said.decode()
    return {"numbers": plain(json.loads(output.read_text(encoding="utf-8"))), "texts": {}}
