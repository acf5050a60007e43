"""Names of models and tasks as people say them."""

EVERYTHING = "All together"
"""Name of the docs of all tasks, as a part of a report."""

_WRITTEN = {
    word.lower(): word
    for word in (
        *("MMLU", "CMMLU", "MMMLU", "STEM", "ARC", "BBH", "GSM8K", "US", "CoT", "GPQA", "AGIEval", "SAT", "LSAT"),
        *("BoolQ", "PIQA", "CB", "RTE", "COPA", "WiC", "WSC", "MultiRC", "ReCoRD", "GLUE", "CoLA", "MNLI", "MRPC"),
        *("QNLI", "QQP", "WNLI", "ANLI", "XNLI", "XCOPA", "HellaSwag", "WinoGrande", "OpenBookQA", "TruthfulQA"),
        *("MC1", "MC2", "SciQ", "SQuAD", "DROP", "RACE", "LogiQA", "LAMBADA", "SWAG", "IFEval", "MATH", "AIME"),
        *("MedQA", "MedMCQA", "PubMedQA", "HumanEval", "MBPP", "WikiText", "TriviaQA", "SimpleQA", "CommonsenseQA"),
    )
} | {"sglue": "SuperGLUE", "sst2": "SST-2", "ceval": "C-Eval", "4options": "(4 options)"}
"""How words of tasks' names are written that are no English words."""


def task_name(name: str) -> str:
    """Return the name of a task or group in words."""
    if name in (EVERYTHING, "all"):
        return "All tasks"
    text = " ".join(_WRITTEN.get(word, word) for word in name.removesuffix("_calibration").split("_"))
    return text[:1].upper() + text[1:]


def short_task_name(name: str, length: int = 24) -> str:
    """Return :func:`task_name` in the width of a diagram's label."""
    text = task_name(name).removeprefix("MMLU ")
    return text if len(text) <= length else f"{text[: length - 1]}…"
