"""Tiny models, docs and runs that the tests share."""

import copy
import sys
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

from lm_eval_calibration.metrics import CORE

# The harness adds a report of the machine to every run's results, for which torch calls pip and other programs: seconds
# that no test is about.
_no_report = ModuleType("torch.utils.collect_env")
_no_report.get_pretty_env_info = lambda: "not collected in tests"  # type: ignore[attr-defined]
sys.modules[_no_report.__name__] = _no_report


def make_tokenizer() -> Any:
    """A tokenizer of bytes with an end token; no BOS."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<pad>", "<eos>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>")


def _peaked(model: Any, factor: float = 10.0) -> Any:
    """Random weights give nearly uniform distributions; scale the output layer so that some bins are filled."""
    import torch

    with torch.no_grad():
        model.get_output_embeddings().weight *= factor
    return model.eval()


def make_gpt2(tokenizer: Any, *, vocab_size: int | None = None, n_positions: int = 256) -> Any:
    """A GPT-2-style model with random weights; a larger vocab_size has padding rows the tokenizer lacks."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=vocab_size or len(tokenizer),
        n_positions=n_positions,
        n_embd=32,
        n_layer=2,
        n_head=2,
        bos_token_id=1,
        eos_token_id=1,
        tie_word_embeddings=False,
    )
    return _peaked(GPT2LMHeadModel(config))


def make_t5(tokenizer: Any) -> Any:
    """A T5-style encoder-decoder with random weights."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=16,
        d_ff=64,
        num_layers=2,
        num_heads=2,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=False,
    )
    return _peaked(T5ForConditionalGeneration(config), 1.0)


def write_gguf(path: Path) -> None:
    """Write a Llama with random weights and a tokenizer of bytes as a GGUF file."""
    import gguf
    import numpy as np

    width, heads, layers, vocabulary = 32, 4, 2, 256
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(512)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(2 * width)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(vocabulary)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([chr(256 + i) for i in range(vocabulary - 96)] + ["ab"] + [chr(c) for c in range(32, 127)])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    rng = np.random.default_rng(0)
    shapes = {"token_embd": (vocabulary, width), "output": (vocabulary, width), "output_norm": (width,)}
    for i in range(layers):
        block = f"blk.{i}."
        shapes |= {f"{block}{name}": (width, width) for name in ("attn_q", "attn_k", "attn_v", "attn_output")}
        shapes |= {f"{block}{name}": (2 * width, width) for name in ("ffn_gate", "ffn_up")}
        shapes |= {f"{block}ffn_down": (width, 2 * width)}
        shapes |= {f"{block}{name}": (width,) for name in ("attn_norm", "ffn_norm")}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", rng.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def scoring_requests(contexts: Iterable[str], continuations: Iterable[str], **attributes: Any) -> list[Any]:
    """Every continuation of every context; what a run wants is an attribute."""
    from lm_eval.api.instance import Instance

    continuations = list(continuations)
    requests = [
        Instance("loglikelihood", {}, (context, continuation), i, metadata=("a_task", doc, 1))
        for doc, context in enumerate(contexts)
        for i, continuation in enumerate(continuations)
    ]
    for request in requests:
        vars(request).update(attributes)
    return requests


def generation_requests(contexts: Iterable[Any], settings: dict[str, Any]) -> list[Any]:
    """One request for each context, with its own copy of the settings."""
    from lm_eval.api.instance import Instance

    return [
        Instance("generate_until", {}, (context, copy.deepcopy(settings)), 0, ("t", i, 1))
        for i, context in enumerate(contexts)
    ]


GROUP_METRICS = [{"metric": name, "weight_by_size": True} for name in ("acc", *CORE)]

QUESTION = "Which letter comes after {}?"


def make_rows(n: int = 40, *, ragged: bool = True) -> list[dict[str, Any]]:
    """Docs with two to five choices of one or several tokens."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    rows = []
    for i in range(n):
        k = 2 + (i * 7) % 4 if ragged else 4
        choices = [letters[(i + j * 3) % 26] * (1 + (i + j) % 3) for j in range(k)]
        rows.append(
            {
                "question": QUESTION.format(letters[i % 26] * (1 + i // 26)),
                "choices": choices,
                "answer": i % k,
            }
        )
    return rows


def make_config(rows: list[dict[str, Any]], task: str = "letters_calibration", **overrides: Any) -> dict[str, Any]:
    """A whole task configuration over these rows; the first three also serve as examples."""
    from datasets import Dataset

    def splits(**_: Any) -> dict[str, Any]:
        return {"test": Dataset.from_list(rows), "dev": Dataset.from_list(rows[:3])}

    return {
        "task": task,
        "custom_dataset": splits,
        "test_split": "test",
        "fewshot_split": "dev",
        "fewshot_config": {"sampler": "first_n"},
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}\nAnswer:",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        **overrides,
    }


def make_tasks(sizes: dict[str, int], **overrides: Any) -> list[Any]:
    """Calibrated tasks of so many docs each, none of them twice."""
    from lm_eval_calibration.tasks import CalibratedTask

    rows = iter(make_rows(60))
    return [
        CalibratedTask(make_config(list(islice(rows, size)), task=name, **overrides)) for name, size in sizes.items()
    ]


def make_group(name: str, children: list[Any], metrics: Any = GROUP_METRICS) -> Any:
    """A group of tasks and groups, pooled."""
    from lm_eval.api.group import Group

    group = Group.from_config({"group": name, "aggregate_metric_list": metrics, "metadata": {"version": 1}})
    for child in children:
        group.add(child)
    return group


def run_tasks(lm: Any, tasks: list[Any], *, bootstrap_iters: int = 0, **options: Any) -> dict[str, Any]:
    """The harness's own `simple_evaluate`, without its index of stock tasks, and without standard errors by default."""
    from lm_eval import simple_evaluate

    from lm_eval_calibration.tasks import CalibrationTaskManager

    manager = CalibrationTaskManager(include_defaults=False, metadata=options.get("metadata"))
    return simple_evaluate(model=lm, tasks=tasks, task_manager=manager, bootstrap_iters=bootstrap_iters, **options)
