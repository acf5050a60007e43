"""One rank of a run over gloo; rank 0 writes the results. The harness's hf backend never splits work on a CPU."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lm_eval.api.group import Group
from lm_eval.models.huggingface import HFLM
from torch.distributed.fsdp import fully_shard

sys.path.insert(0, str(Path(__file__).parent))

import tiny
from scripted import TextsOnly

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


def main() -> None:
    dist.init_process_group("gloo")
    tokenizer = tiny.make_tokenizer()
    # Each prompt by itself: else what stands beside it, and so the last bits of its logits, differ between ranks.
    lm = GlooLM(
        pretrained=tiny.make_gpt2(tokenizer),
        tokenizer=tokenizer,
        backend="causal",
        device="cpu",
        batch_size=1,
    ).start()
    alone = {"calibration": {"shared_prefixes": False}}  # what shares a batch rounds with it
    metrics = [{"metric": name} for name in ("acc", *CORE)]
    n_docs, first, kind = int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    if kind == "sharded":
        for block in lm.model.transformer.h:
            fully_shard(block)
        fully_shard(lm.model)
        assert is_sharded(lm.model)
    rows = tiny.make_rows(n_docs)
    parts = {"few": rows[:first], "many": rows[first:]}
    if kind == "asked":
        options = {"calibration": {"p_true": "kapoor", "shared_prefixes": False}}
        tasks = [CalibratedTask(tiny.make_config(part, f"{n}_p_true", metadata=options)) for n, part in parts.items()]
        results = tiny.run_tasks(lm, tasks)
        options = {"calibration": {"verbalized": True}}
        tasks = [CalibratedTask(tiny.make_config(part, f"{n}_words", metadata=options)) for n, part in parts.items()]
        said = tiny.run_tasks(GlooTexts().start(), tasks)
        if dist.get_rank() == 0:
            for part in ("results", "samples"):
                results[part] |= said[part]
    else:
        group = Group.from_config({"group": "both_calibration", "aggregate_metric_list": metrics})
        group.add(CalibratedTask(tiny.make_config(rows[:first], metadata=alone)))
        group.add(CalibratedTask(tiny.make_config(rows[first:], task="digits_calibration", metadata=alone)))
        results = tiny.run_tasks(lm, [group])
    if dist.get_rank() == 0:
        numbers = {
            task: {key: value for key, value in row.items() if key.endswith(",none")}
            for task, row in results["results"].items()
        }
        for task, lines in results["samples"].items():
            ids = sorted(line["calibration"]["doc_id"] for line in lines)
            assert ids == list(range(len(lines))), task
        Path(sys.argv[1]).write_text(json.dumps(numbers), encoding="utf-8")
    dist.destroy_process_group()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
