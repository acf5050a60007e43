"""A Llama in a folder, loaded as large models are; run by itself: in tensor parallel on two ranks over gloo.

python large_models.py FOLDER    the rank 0 writes answers.json there
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
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import LlamaConfig, LlamaForCausalLM

sys.path.insert(0, str(Path(__file__).parent))

from tiny import make_tokenizer, scoring_requests

from lm_eval_calibration import backends

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, "max_position_embeddings": 256}


def save(folder: Path) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=258, num_attention_heads=4, num_key_value_heads=2, eos_token_id=1, **SIZE)
    LlamaForCausalLM(config).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)


def load(folder: Path, **options: Any) -> HFLM:
    return HFLM(pretrained=str(folder), device="cpu", batch_size=3, dtype="float32", **options)


def answers(lm: HFLM) -> dict[str, Any]:
    """Log-likelihoods with shared prefixes and without, of a corpus, and what was shared."""
    corpora = [Instance("loglikelihood_rolling", {}, ("x y" * 100,), 0, metadata=("t", 0, 1))]
    corpora[0].n_bins = 10
    contexts = [f"question {i} and so on" for i in range(6)]
    found: dict[str, Any] = {}
    for shared in (True, False):
        scores = backends.token_scores(lm, scoring_requests(contexts, (" A", " more"), shared_prefixes=shared))
        found[f"shared {shared}"] = [of_one[0] for of_one in scores]
        assert {of_one.certificate["shared_prefixes"] for of_one in scores} == {shared}
    shapes: list[int] = []
    head = lm.model.get_output_embeddings()
    handle = head.register_forward_hook(lambda _m, _i, output: shapes.append(output.shape[:2].numel()))
    found["corpus"] = [float(of_one) for of_one in backends.corpus_scores(lm, corpora)]
    handle.remove()
    return {**found, "most positions": max(shapes)}


def rank(number: int, port: int, folder: Path) -> None:
    about = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in about.items()})
    from lm_eval_calibration.backends.hf import corpus
    from lm_eval_calibration.backends.hf.sharded import is_sharded

    corpus._CHUNK_ELEMENTS["cpu"] = 50 * 258
    lm = load(folder, tp_plan="auto")
    assert is_sharded(lm.model)
    found = answers(lm)
    if number == 0:
        (folder / "answers.json").write_text(json.dumps(found), encoding="utf-8")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        free_port = int(s.getsockname()[1])
    torch.multiprocessing.start_processes(rank, (free_port, Path(sys.argv[1])), nprocs=2, start_method="fork")
