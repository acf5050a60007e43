"""From the files of a run to the run."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.metrics.validation import check_n_bins
from lm_eval_calibration.results.configuration import Configuration
from lm_eval_calibration.results.files import Source, find_sources, task_of
from lm_eval_calibration.results.reading import read_samples
from lm_eval_calibration.results.run import Run
from lm_eval_calibration.results.task_docs import TaskDocs


def load_run(*paths: str | Path, n_bins: int | None = None, cluster: str | None = None) -> Run:
    """Read what the harness logged of one model, with our record or, for multiple-choice tasks, without.

    Args:
        *paths: folders, searched at any depth; results files, each of which brings the samples of its time; or samples
            files.
        n_bins: bins of the binned metrics; those of the run where not given.
        cluster: field of the docs that says what was drawn together, such as "doc.passage_id"; "" for none. What the
            run knew where not given.

    Returns:
        The run. Its docs are kept as arrays, in some hundred bytes each; their texts stay in the files.

    Raises:
        UserError: naming file and line, and what to do: nothing there, a line that is cut short or has no record or
            one of another version, missing samples, docs of several runs or models.
        ValueError: ``n_bins`` is no positive integer.
    """
    sources = find_sources([Path(path) for path in paths])
    configuration = Configuration(tuple(sources))
    if n_bins is None:
        n_bins = configuration.n_bins_of(task_of(file) for source in sources for file in source.samples)
    left_out: dict[str, str] = {}
    docs = _read(sources, check_n_bins(n_bins), left_out, cluster)
    _check_complete(sources, docs, left_out)
    return Run(configuration, docs, n_bins, left_out)


def _read(sources: Sequence[Source], n_bins: int, left_out: dict[str, str], cluster: str | None) -> dict[str, TaskDocs]:
    """Return docs by task."""
    docs: dict[str, TaskDocs] = {}
    for file, sample in read_samples(sources, left_out, cluster):
        task = sample.record.task
        if task not in docs:
            docs[task] = TaskDocs(task, n_bins)
        docs[task].add(file, sample)
    for of_task in docs.values():
        of_task.finish()
    return docs


def _check_complete(sources: Sequence[Source], docs: dict[str, TaskDocs], left_out: dict[str, str]) -> None:
    """Refuse a call of the harness of which samples are missing, since its groups would be other than it says."""
    n_lines = {name: Counter(file.path for file, _ in of_task.locations) for name, of_task in docs.items()}
    for source in sources:
        for task, size in (source.results.get("n-samples", {}) if source.is_whole else {}).items():
            wanted = size.get("effective") if isinstance(size, dict) else None
            path = source.folder / f"samples_{task}_{source.time}.jsonl"
            found = max((lines[path] for lines in n_lines.values()), default=0)
            if wanted is not None and task not in left_out and found != wanted:
                raise UserError(
                    f"{source.results_file} counts {wanted} docs of {task}, but {path.name} has {found}; to go on "
                    "without the others, name the samples files"
                )
