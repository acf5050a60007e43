"""One rank of a run over gloo; rank 0 writes what it has."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from frozen.frozen_lms import Exact
from frozen.frozen_models import choices, evaluate, sums


class OverGloo(Exact):
    """The scripted backend on several ranks."""

    def __init__(self) -> None:
        super().__init__()
        self._rank, self._world_size = dist.get_rank(), dist.get_world_size()

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


def main() -> None:
    dist.init_process_group("gloo")
    tasks = [choices(9, p_true="kapoor"), choices(1, "one_calibration"), sums(), sums("said", verbalized=True)]
    found = evaluate(OverGloo(), tasks)
    if dist.get_rank() == 0:
        Path(sys.argv[1]).write_text(json.dumps(found["numbers"]), encoding="utf-8")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
