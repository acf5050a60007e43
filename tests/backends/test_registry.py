"""What our functions rely on in the harness is there: a release that renames it fails here, not in a user's run."""

import ast
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import lm_eval.api.model
import pytest
from source_files import parse

from lm_eval_calibration.backends import registry

USED = {
    "lm_eval.models.huggingface.HFLM": {
        "loglikelihood": ("requests", "disable_tqdm"),
        "generate_until": ("requests", "disable_tqdm"),
        "_loglikelihood_tokens": ("requests", "disable_tqdm", "override_bs"),
        "_model_call": ("inps", "attn_mask", "labels"),
        "_model_generate": ("context", "max_length", "stop", "generation_kwargs"),
        "_batch_scheduler": ("pos", "n_reordered_requests"),
        "_detect_batch_size": ("requests", "pos"),
    },
    "lm_eval.models.openai_completions.LocalCompletionsAPI": {
        "_create_payload": ("messages", "generate", "gen_kwargs", "seed", "eos", "kwargs"),
        "parse_logprobs": ("outputs", "tokens", "ctxlens", "kwargs"),
        "parse_generations": ("outputs", "kwargs"),
    },
    "lm_eval.models.vllm_causallms.VLLM": {
        "_model_generate": ("requests", "generate", "sampling_params"),
        "_parse_logprobs": ("tokens", "outputs", "ctxlen"),
    },
    "lm_eval.models.sglang_causallms.SGLangLM": {
        "_model_generate": (
            *("requests", "generate", "sampling_params"),
            *("return_logprob", "top_logprobs_num", "logprob_start_len"),
        ),
        "_parse_logprobs": ("tokens", "outputs", "ctxlen"),
    },
}
"""Methods that we replace during a call, or call, and their parameters."""


def methods(class_name: str) -> dict[str, tuple[str, ...]]:
    """The methods of a class and of its base classes, read without its packages: vLLM is not installed."""
    module, _, name = class_name.rpartition(".")
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    tree = parse(Path(spec.origin))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    found: dict[str, tuple[str, ...]] = {}
    for base in classes[name].bases:
        base_name = ast.unparse(base)
        if base_name in classes:
            found |= methods(f"{module}.{base_name}")
        elif base_name == "TemplateLM":
            found |= methods(f"{lm_eval.api.model.__name__}.TemplateLM")
        elif base_name == "TemplateAPI":
            found |= methods("lm_eval.models.api_models.TemplateAPI")
    for node in classes[name].body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            rest = [argument for argument in (node.args.vararg, node.args.kwarg) if argument]
            found[node.name] = tuple(a.arg for a in (*arguments, *rest) if a.arg != "self")
    return found


@pytest.mark.parametrize("class_name", USED)
def test_methods_that_are_replaced_or_called_have_their_parameters(class_name: str) -> None:
    there = methods(class_name)
    assert {name: there.get(name) for name in USED[class_name]} == USED[class_name]


def test_every_module_is_found_and_every_stock_method_exists() -> None:
    pytest.importorskip("aiohttp", reason="servers need `pip install 'lm-eval[api]'`")
    for modules in registry._OURS.values():
        for module in modules:
            import_module(f"lm_eval_calibration.backends.{module}")
    ours = {key: value for key, value in registry._REGISTERED.items() if key[0].startswith("lm_eval.")}
    assert len(ours) == 11
    for (class_name, request_type), registered in ours.items():
        missing = set(registered.stock_methods) - set(methods(class_name))
        assert not missing, f"{class_name} answers {request_type} without {missing}"
