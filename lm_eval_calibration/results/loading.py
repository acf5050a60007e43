"""From the files of a run to the run."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.metrics.validation import check_n_bins
from lm_eval_calibration.records.display import counted, some
from lm_eval_calibration.results.configuration import Configuration
from lm_eval_calibration.results.files import Source, find_sources
from lm_eval_calibration.results.names import in_name, parse
from lm_eval_calibration.results.reading import SUFFIX, FormFile, SamplesFile, check_cluster_field
from lm_eval_calibration.results.run import Run
from lm_eval_calibration.results.selection import ALL, Selection, one_run, runs_of
from lm_eval_calibration.results.stock import StockError
from lm_eval_calibration.results.task_docs import TaskDocs


def load_run(
    *paths: str | Path,
    n_bins: int | None = None,
    cluster: str | None = None,
    select: Selection = ALL,
    is_strict: bool = False,
) -> Run:
    """Read what the harness logged of one model, with our record or, for multiple-choice tasks, without.

    Args:
        *paths: folders, searched at any depth; results files, each of which brings the samples of its time; or samples
            files.
        n_bins: bins of the binned metrics; those of the run where not given.
        cluster: field of the docs that says what was drawn together, such as "doc.passage_id"; "" for none. What the
            run knew where not given.
        select: which run is meant, where there are several.
        is_strict: whether a broken file is an error where others are sound.

    Returns:
        The run. Its docs are kept as arrays, in some hundred bytes each; their texts stay in the files. A task whose
        samples are broken (cut short, without records or of another version, fewer docs than the results count) is in
        ``left_out``, with file, line and reason.

    Raises:
        UserError: naming file and line, and what to do: nothing sound there, or docs of several runs or models.
        ValueError: ``n_bins`` is no positive integer.
    """
    return find_run(*paths, select=select).load(n_bins, cluster, is_strict=is_strict)


class FoundRun(NamedTuple):
    """A run that was found, and is not read yet.

    Attributes:
        sources: calls of the harness.
        broken: files beside it that are left out, each with the reason.
    """

    sources: Sequence[Source]
    broken: Mapping[Path, str]

    @property
    def place(self) -> Path:
        """Its folder, or its file where another program wrote it."""
        source = self.sources[0]
        return source.folder if source.form is None else next(iter(source.samples.values()))

    def load(self, n_bins: int | None = None, cluster: str | None = None, *, is_strict: bool = False) -> Run:
        """Read it; arguments, result and errors as those of :func:`load_run`."""
        check_cluster_field(cluster)
        configuration = Configuration(tuple(self.sources))
        if n_bins is None:
            n_bins = configuration.n_bins_of(task for source in self.sources for task in source.samples)
        found = {in_name(task) for source in self.sources for task in source.samples}
        left_out = {_named(path, found): reason for path, reason in self.broken.items()}
        if is_strict and self.broken:
            raise UserError(next(iter(self.broken.values())))
        docs = _read(self.sources, check_n_bins(n_bins), left_out, cluster, is_strict=is_strict)
        return Run(configuration, docs, n_bins, left_out)


def find_run(*paths: str | Path, select: Selection = ALL) -> FoundRun:
    """Return the run that :func:`load_run` would read; raise UserError where there are several."""
    found = find_sources([Path(path) for path in paths], select.columns)
    return FoundRun(one_run(select.of(found.sources), paths), found.broken)


def find_runs(*paths: str | Path, select: Selection = ALL) -> list[FoundRun]:
    """Return every run that is in some places."""
    found = find_sources([Path(path) for path in paths], select.columns)
    return [FoundRun(sources, found.broken) for sources in runs_of(select.of(found.sources))]


def _named(path: Path, found: Collection[str]) -> str:
    """What a broken file is called: by its task, if it is one of samples and there are no others."""
    name = parse(path)
    return name.task if name.is_samples and name.task not in found else path.name


def _read(
    sources: Sequence[Source], n_bins: int, left_out: dict[str, str], cluster: str | None, *, is_strict: bool
) -> dict[str, TaskDocs]:
    """Return docs by task; a bar shows how far, where it takes more than a moment."""
    from tqdm import tqdm

    files: list[tuple[Source, SamplesFile]] = []
    for source in sources:
        form = source.form
        for task, path in source.samples.items():
            file = SamplesFile(path, task, cluster) if form is None else FormFile(path, task, form, cluster)
            files.append((source, file))
    names = {file.task for _, file in files}
    docs: dict[str, TaskDocs] = {}
    for source, file in tqdm(files, desc="Reading samples", unit="file", delay=2, leave=False):
        try:
            if file.task + SUFFIX in names and file.is_stock:
                raise StockError(f"{file.task + SUFFIX} is here too")
            _join(docs, _read_file(source, file, n_bins))
        except UserError as error:
            if is_strict and not isinstance(error, StockError):
                raise
            left_out[file.task] = str(error)
        if file.broken is not None:
            left_out[file.broken[0]] = file.broken[1]
    for source in sources:
        for task, reason in _missing(source).items():
            if task in left_out or task in map(in_name, docs):
                continue
            if is_strict:
                raise UserError(reason)
            left_out[task] = reason
    if not docs:
        raise UserError(_nothing([file.path for _, file in files], left_out))
    return docs


def _nothing(files: Sequence[Path], left_out: Mapping[str, str]) -> str:
    """What is said where nothing can be read."""
    names = list(map(str, files))
    reasons = sorted(dict.fromkeys(left_out.values()), key=lambda reason: not any(name in reason for name in names))
    return f"{', '.join(map(str, files[:3]))}: nothing can be read: {some(reasons, between='; ')}"


def _read_file(source: Source, file: SamplesFile, n_bins: int) -> dict[str, TaskDocs]:
    """Return the docs of a file by task; raise UserError where they are not what the call of the harness logged."""
    docs: dict[str, TaskDocs] = {}
    for batch, rows in file.batches():
        for task, mine in batch.by_task():
            if task not in docs:
                docs[task] = TaskDocs(task, n_bins)
            docs[task].add(file, rows if len(mine) == len(batch) else [rows[i] for i in mine], batch.take(mine))
    for of_task in docs.values():  # before they are counted: a doc that is twice says more than one too many
        if (i := of_task.twice()) is not None:
            twice = f"doc {of_task.doc_ids[i]} of {of_task.name} is twice in {file.path}: name the samples of one run"
            if file.is_stock:
                raise StockError(f"{twice} (or its task has several filters, which old samples don't tell apart)")
            raise UserError(twice)
    _check_tasks(source, file, docs)
    n_docs = sum(map(len, docs.values()))
    wanted = _counted(source).get(in_name(file.task)) if source.is_whole else None
    if wanted is not None and n_docs != wanted:
        raise UserError(_miscounted(source, file.task, wanted, file.path.name, n_docs))
    if not n_docs:
        raise UserError(f"{file.path}: no lines")
    return docs


def _check_tasks(source: Source, file: SamplesFile, docs: Mapping[str, TaskDocs]) -> None:
    """Raise UserError where docs are of another task than their file, unless this has another name, as of a group."""
    own, here = in_name(file.task), {in_name(task): task for task in docs}
    if (others := here.keys() - {own}) and (own in here or own in _counted(source)):
        other = docs[here[min(others)]]
        raise UserError(f"{file.path}: doc {other.doc_ids[0]} is of {other.name}, not of {file.task}")


def _join(docs: dict[str, TaskDocs], new: Mapping[str, TaskDocs]) -> None:
    """Take the docs of a file to those of others; the same doc in both is an error."""
    for task, of_task in new.items():
        if task not in docs:
            docs[task] = of_task
            continue
        known, more = (
            dict(zip(zip(one.doc_ids, one.doc_hashes, strict=True), one.locations, strict=True))
            for one in (docs[task], of_task)
        )
        if doc := next((doc for doc in more if doc in known), None):
            locations = f"in {known[doc][0].path} and in {more[doc][0].path}"
            raise UserError(f"doc {doc[0]} of {task} is {locations}: name the samples of one run")
        docs[task].extend(of_task)


def _counted(source: Source) -> dict[str, int]:
    """Number of docs of each task, as names of files have it, by the results."""
    sizes = source.results.get("n-samples") or {}
    counts = {in_name(task): size.get("effective") for task, size in sizes.items() if size}
    return {task: count for task, count in counts.items() if count is not None}


def _miscounted(source: Source, task: str, wanted: int, file: str, found: int) -> str:
    return (
        f"{source.results_file} counts {counted(wanted)} of {task}, but {file} has {found}; to go on without the "
        "others, name the samples files"
    )


def _missing(source: Source) -> dict[str, str]:
    """Tasks that results count docs of, but that have no samples file."""
    here = {in_name(task) for task in source.samples}
    return {
        task: _miscounted(source, task, count, f"samples_{task}_{source.time}.jsonl", 0)
        for task, count in (_counted(source) if source.is_whole and not source.is_part else {}).items()
        if task not in here and count
    }
