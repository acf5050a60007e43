"""The class that every calibrated YAML names; what it makes is a task of one of four kinds.

Importing this module activates the plugin: it adds the request types to every backend, registers the metrics and
applies the (few, named) patches.
"""

from collections.abc import Mapping
from typing import Any

from lm_eval_calibration import backends
from lm_eval_calibration.harness import patches
from lm_eval_calibration.tasks.base import BaseTask
from lm_eval_calibration.tasks.choices import ChoiceTask
from lm_eval_calibration.tasks.configuration import GENERATION, ROLLING, configuration
from lm_eval_calibration.tasks.corpus import CorpusTask
from lm_eval_calibration.tasks.generation import GenerationTask
from lm_eval_calibration.tasks.written_choices import WrittenChoiceTask

_KINDS: Mapping[str, type[BaseTask]] = {GENERATION: GenerationTask, ROLLING: CorpusTask}
"""By the stock task's output type; every other one has choices."""


class CalibratedTask:
    """Makes the calibrated task of a configuration: a :class:`~lm_eval_calibration.tasks.base.BaseTask`.

    Args:
        config: ``task`` (our name) and ``stock_task`` (the harness's name of a task, or the path of a task YAML, as
            seen from ours); any other key of a task YAML overrides that task's. Without ``stock_task`` it is a whole
            task configuration. A ``metric_list`` chooses among our metrics; without one the core metrics are used.
            Options stand in ``metadata: {calibration: ...}``.

    Raises:
        TaskError: naming file, task, doc and field, and what can't be calibrated in it.
    """

    def __new__(cls, config: Mapping[str, Any] | None = None) -> Any:
        """Return a task of the stock task's kind."""
        calibration = configuration(config)
        if calibration.in_words:
            return WrittenChoiceTask(calibration)
        return _KINDS.get(calibration.output_type, ChoiceTask)(calibration)

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        """Never called: the harness reads the name of the argument off this signature."""


backends.install()
patches.apply()
