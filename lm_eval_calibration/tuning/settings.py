"""Settings of ``tune``, checked, and the file by which an interrupted run is resumed with the same ones."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.records.files import write_whole

METHODS = ("lora", "probe", "lora-probe")
"""``lora``: an adapter, which answers the query. ``probe``: a linear map of the frozen model's last hidden state.
``lora-probe``: both, trained together.
"""

FILE = "tuning.json"


@dataclass(frozen=True)
class GradingSettings:
    """What the grades of a model's answers depend on: options of these names (``lm-eval-calibration tune --help``).

    ``fit_fraction`` is None to learn from the training split, ``num_fewshot`` for the task's own number.
    """

    model: str
    model_args: str
    tasks: tuple[str, ...]
    fit_fraction: float | None
    limit: int
    num_fewshot: int | None = None
    apply_chat_template: bool = False
    include_path: str | None = None
    confirm_run_unsafe_code: bool = False

    def __post_init__(self) -> None:
        """Refuse settings without meaning."""
        if not self.tasks:
            raise UserError("name what to learn from: --tasks NAME,...")
        if self.fit_fraction is not None and not 0 < self.fit_fraction < 1:
            raise UserError(f"--fit-fraction is {self.fit_fraction}; it must lie between 0 and 1")

    @property
    def of_answers(self) -> dict[str, Any]:
        """The settings on which the model's answer to a given question depends."""
        names = ("model", "model_args", "num_fewshot", "apply_chat_template")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Protocol:
    """How the adapter is trained: options of these names. Defaults: Kapoor et al. 2024, arXiv:2406.08391.

    ``target_modules`` is empty for PEFT's own choice for the architecture.
    """

    method: str = METHODS[0]
    query: str = "kapoor"
    epochs: int = 1
    batch_size: int = 4
    gradient_accumulation: int = 1
    learning_rate: float = 1e-4
    target_modules: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings without meaning."""
        from lm_eval_calibration.tasks.confidences.p_true_query import QUERIES

        for name, value, known in (("method", self.method, METHODS), ("query", self.query, tuple(QUERIES))):
            if value not in known:
                raise UserError(f"no {name} {value!r}; there are {', '.join(known)}")
        if not 0 < self.learning_rate < float("inf"):
            raise UserError(f"--learning_rate is {self.learning_rate}; it must be a positive number")

    @property
    def trains(self) -> bool:
        """Whether weights of the model change."""
        return self.method != "probe"


def check_output(directory: Path, grading: GradingSettings, protocol: Protocol) -> None:
    """Refuse an output folder with anything but an unfinished run of these settings in it.

    Raises:
        UserError: it holds a finished run, or one of other settings, which it names.
    """
    if directory.exists() and not directory.is_dir():
        raise UserError(f"{directory} is not a folder")
    if not (directory / FILE).exists():
        return
    saved = read(directory)
    changed = [
        f"{name} is {json.dumps(before)}, not {json.dumps(value)}"
        for part, values in _content(grading, protocol).items()
        for name, value in values.items()
        if name != "confirm_run_unsafe_code"  # changes no answer
        if (before := saved.get(part, {}).get(name)) != value
    ]
    if changed:
        raise UserError(f"{directory} holds a run of other settings ({'; '.join(changed)}): give another --output")
    if "result" in saved:
        raise UserError(f"{directory} holds the finished run of these settings: give another --output")


def read(directory: Path) -> dict[str, Any]:
    """Return the content of ``tuning.json`` in a folder."""
    path = directory / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: this is not a {FILE} that tune wrote")
    return content


def write(directory: Path, grading: GradingSettings, protocol: Protocol, **result: Any) -> None:
    """Write the settings of a run and, once it is finished, its result."""
    content = _content(grading, protocol) | ({"result": result} if result else {})
    write_whole(directory / FILE, json.dumps(content, indent=1) + "\n")


def _content(grading: GradingSettings, protocol: Protocol) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(json.dumps({"grading": asdict(grading), "protocol": asdict(protocol)}))
    return content
