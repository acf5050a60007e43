"""Runs over gloo, each on several ranks that are forks of this process; rank 0 writes the results.

The harness's hf backend never splits work on a CPU. One process imports everything for all runs: that is most of the
time that one takes.

    python ranks_worker.py [{"n_ranks": 2, "n_docs": 42, "n_letters": 29, "kind": "whole", "output": FILE}, ...]
"""

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing
from lm_eval.api.group import Group
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from torch.distributed.fsdp import fully_shard

sys.path.insert(0, str(Path(__file__).parent))

import generation_tasks
import tiny
from scripted import TextsOnly

from lm_eval_calibration import backends
from lm_eval_calibration.backends.hf import corpus as hf_corpus
from lm_eval_calibration.backends.hf.sharded import is_sharded
from lm_eval_calibration.metrics import CORE
from lm_eval_calibration.tasks import CalibratedTask


class OverGloo:
    """A backend's ranks over gloo instead of accelerate."""

    def start(self) -> Any:
        self._rank, self._world_size = dist.get_rank(), dist.get_world_size()
        return self

    def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
        tensors = [torch.zeros_like(tensor) for _ in range(self._world_size)]
        dist.all_gather(tensors, tensor)
        return torch.stack(tensors)

    def gather_object(self, obj: Any, dst: int = 0) -> Any:
        gathered = [None] * self._world_size if self._rank == dst else None
        dist.gather_object(obj, gathered, dst)
        return gathered

    def barrier(self) -> None:
        dist.barrier()


class GlooLM(OverGloo, HFLM):
    """The hf backend."""


class GlooTexts(OverGloo, TextsOnly):
    """Chooses, and says how sure it is, by the length of the prompt; some of it can't be read."""

    def __init__(self) -> None:
        super().__init__(self.reply)

    @staticmethod
    def reply(prompt: str, _: int) -> str:
        if prompt.endswith("Probability:"):
            return f"{len(prompt) * 37 % 101}%" if len(prompt) % 5 else "no idea"
        return "AB"[len(prompt) % 2]


def run_rank(rank: int, run: dict[str, Any], port: int) -> None:
    """Evaluate docs in two tasks, the first of which has ``n_letters``; write the metrics of both.

    With the kind "follow_ups" the tasks are evaluated twice: for P(true), and for a percentage in words.
    """
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(run["n_ranks"])}
    dist.init_process_group("gloo")
    if run["kind"] == "sharded corpus":
        numbers = corpus(run["n_docs"])
        if rank == 0:
            Path(run["output"]).write_text(json.dumps(numbers), encoding="utf-8")
        dist.destroy_process_group()
        return
    rows = tiny.make_rows(run["n_docs"])
    results = evaluate(rows[: run["n_letters"]], rows[run["n_letters"] :], run["kind"])
    if rank == 0:
        numbers = {
            task: {key: value for key, value in row.items() if key.endswith(",none")}
            for task, row in results["results"].items()
        }
        for task, lines in results["samples"].items():
            ids = sorted(line["calibration"]["doc_id"] for line in lines)
            assert ids == list(range(len(lines))), task
        Path(run["output"]).write_text(json.dumps(numbers), encoding="utf-8")
    dist.destroy_process_group()


def corpus(n_texts: int) -> dict[str, dict[str, float]]:
    """Score texts, of which the first rank has most, 50 positions at a time; return their log-likelihoods and sums."""
    tokenizer, rank, n_ranks = tiny.make_tokenizer(), dist.get_rank(), dist.get_world_size()
    lm = GlooLM(
        pretrained=tiny.make_gpt2(tokenizer), tokenizer=tokenizer, backend="causal", device="cpu", batch_size=2
    ).start()
    if n_ranks > 1:
        shard(lm)
    hf_corpus._CHUNK_ELEMENTS["cpu"] = 50 * len(tokenizer)
    shapes: list[int] = []
    lm.model.get_output_embeddings().register_forward_hook(lambda _m, _i, out: shapes.append(out.shape[:2].numel()))
    numbers = [i for i in range(n_texts) if min(i // (n_texts - 1), n_ranks - 1) == rank]
    requests = [Instance("loglikelihood_rolling", {}, ("x y " * (90 + i),), 0, metadata=("t", i, 1)) for i in numbers]
    for request in requests:
        request.n_bins = 10
    found = {
        str(i): {"log-likelihood": float(one), "gaps": float(abs(one.sums.gap_sums).sum()), "tokens": one.n_tokens}
        for i, one in zip(numbers, backends.corpus_scores(lm, requests), strict=True)
    }
    gathered = lm.gather_object((found, max(shapes))) or []
    of_all = {"most positions": {str(i): most for i, (_, most) in enumerate(gathered)}}
    return of_all | {name: one for of_rank, _ in gathered for name, one in of_rank.items()}


def shard(lm: HFLM) -> None:
    """Spread the weights over the ranks."""
    for block in lm.model.transformer.h:
        fully_shard(block)
    fully_shard(lm.model)
    assert is_sharded(lm.model)


def evaluate(few: list[dict[str, Any]], many: list[dict[str, Any]], kind: str) -> Any:
    """Evaluate two tasks; return the harness's results."""
    tokenizer = tiny.make_tokenizer()
    # Each prompt by itself: else the prompts beside it, and so the last bits of its logits, differ between ranks.
    lm = GlooLM(
        pretrained=tiny.make_gpt2(tokenizer), tokenizer=tokenizer, backend="causal", device="cpu", batch_size=1
    ).start()
    if kind == "follow_ups":
        parts = {"few": few, "many": many}
        options: dict[str, Any] = {"calibration": {"p_true": "kapoor", "shared_prefixes": False}}
        tasks = [CalibratedTask(tiny.make_config(part, f"{n}_p_true", metadata=options)) for n, part in parts.items()]
        results = tiny.run_tasks(lm, tasks, bootstrap_iters=10)
        options = {"calibration": {"verbalized": True}}
        tasks = [CalibratedTask(tiny.make_config(part, f"{n}_words", metadata=options)) for n, part in parts.items()]
        verbalized = tiny.run_tasks(GlooTexts().start(), tasks, bootstrap_iters=10)
        if dist.get_rank() == 0:
            for part in ("results", "samples"):
                results[part] |= verbalized[part]
        return results
    if kind == "final_answers":
        return tiny.run_tasks(lm, [final_answers({"few": few, "many": many}[name], name) for name in ("few", "many")])
    if kind in ("sharded", "sharded waits") and dist.get_world_size() > 1:
        shard(lm)
    if kind == "sharded waits":
        query = {"metadata": {"calibration": {"p_true": "kapoor"}}}
        tasks = [CalibratedTask(tiny.make_config(few, "few_p_true", **query)), CalibratedTask(tiny.make_config(many))]
        return tiny.run_tasks(lm, tasks, bootstrap_iters=10)
    alone = {"calibration": {"shared_prefixes": False}}  # what shares a batch rounds with it
    metrics = [{"metric": name} for name in ("acc", *CORE)]
    group = Group.from_config({"group": "both_calibration", "aggregate_metric_list": metrics})
    group.add(CalibratedTask(tiny.make_config(few, metadata=alone)))
    group.add(CalibratedTask(tiny.make_config(many, task="digits_calibration", metadata=alone)))
    return tiny.run_tasks(lm, [group], bootstrap_iters=10)


def final_answers(rows: list[dict[str, Any]], name: str) -> CalibratedTask:
    """A task in whose random texts the first digit is the answer; some have none."""
    says = {"name": "none", "filter": [{"function": "regex", "regex_pattern": "([0-4])"}, {"function": "take_first"}]}
    chosen = {"answer_options": list("01234"), "budgets": [0, 4], "chain": 4, "tail": 4, "shared_prefixes": False}
    config = generation_tasks.make_config(
        [{"question": row["question"], "answer": str(i % 5)} for i, row in enumerate(rows)],
        f"{name}_final_answers",
        filter_list=[says],
        generation_kwargs={"until": ["\n"], "max_gen_toks": 12, "do_sample": False},
        **generation_tasks.options(**chosen),
    )
    return CalibratedTask(config)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def import_everything() -> None:
    """Evaluate a few docs here, so that no fork of this process imports what is imported only when it is used."""
    tokenizer = tiny.make_tokenizer()
    lm = HFLM(pretrained=tiny.make_gpt2(tokenizer), tokenizer=tokenizer, backend="causal", device="cpu", batch_size=1)
    tiny.run_tasks(lm, [CalibratedTask(tiny.make_config(tiny.make_rows(4)))], bootstrap_iters=10)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import_everything()
    for job in json.loads(sys.argv[1]):
        torch.multiprocessing.start_processes(run_rank, (job, free_port()), nprocs=job["n_ranks"], start_method="fork")
