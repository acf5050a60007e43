"""The statement as data: what was measured, on what, how, with which limits, from which files."""

import hashlib
import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from lm_eval_calibration import __version__
from lm_eval_calibration.records import DEFINITION_VERSION
from lm_eval_calibration.records.display import counted
from lm_eval_calibration.reports.decide.formats import as_data
from lm_eval_calibration.reports.numbers import finite
from lm_eval_calibration.reports.values import values
from lm_eval_calibration.results import Run
from lm_eval_calibration.results.columns import metric_of
from lm_eval_calibration.results.doc_fields import ALL
from lm_eval_calibration.results.identity import date_of, files_of, sha256

FORM = 1
"""Version of the statement's form."""

NO_CLAIM = (
    "This statement reports measurements. It makes no claim of conformity with any law, regulation or standard, and "
    "none that the model is fit for a purpose."
)


def make_statement(run: Run, domain: str | None = None, made: datetime | None = None) -> dict[str, Any]:
    """Return the statement: ``content``, and ``sha256`` of its canonical JSON.

    Args:
        run: of one model.
        domain: what the tasks stand for, in the words of the user; names of the tasks where not given.
        made: when; now where not given.
    """
    content = {
        "statement": "quantified uncertainty of a language model's answers",
        "form": FORM,
        "made": (made or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds"),
        "made_by": {"lm-eval-calibration": __version__, "definitions": DEFINITION_VERSION},
        "domain": domain or ", ".join(run.tasks),
        "model": {"name": run.model, "settings": run.configuration.settings, "evaluated": date_of(run)},
        "obtained": [{**certificate, "docs": n_docs} for certificate, n_docs in run.certificates],
        "harness": dict(run.configuration.versions),
        "measured_on": [_task(run, task) for task in run.tasks],
        "method": _method(run),
        "values": list(_values(run)),
        "decision": _decision(run),
        "limits": _limits(run),
        "files": [{"name": p.name, "bytes": p.stat().st_size, "sha256": sha256(p)} for p in files_of(run)],
    }
    content = finite(json.loads(json.dumps(content, default=str)))
    return {"content": content, "sha256": digest(content)}


def canonical(content: Any) -> bytes:
    """JSON of one form: keys sorted, no spaces, UTF-8, numbers as Python writes them."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def digest(content: Any) -> str:
    """SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical(content)).hexdigest()


def _task(run: Run, task: str) -> dict[str, Any]:
    docs, configuration = run.docs[task], run.configuration
    path, name = run.configuration.dataset_of(task)
    return {
        "task": task,
        "version": configuration.task_versions.get(task),
        "data_set": path,
        "configuration": name,
        "split": run.configuration.split_of(task),
        "docs": len(docs),
        **({} if (n := run.n_clusters(task)) is None else {"clusters": n}),
        "docs_with_broken_label": _broken(run, task),
        "shots": configuration.num_fewshot.get(task),
        "chat_template_sha256": configuration.chat_template,
        "docs_sha256": _joint(docs.doc_hashes),
        "prompts_sha256": _joint(docs.prompt_hashes),
    }


def _broken(run: Run, task: str) -> int:
    """Number of docs whose label is out of range; a corpus has no labels."""
    docs = run.docs[task]
    return sum(correct < 0 and kind != "corpus" for correct, kind in zip(docs.correct, docs.kinds, strict=True))


def _joint(hashes: list[str]) -> str:
    """SHA-256 of the docs' hashes, sorted, a line each: the order of the docs does not matter."""
    return hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()


def _method(run: Run) -> dict[str, Any]:
    return {
        "n_bins": run.n_bins,
        "level": 0.95,
        "seed": 0,
        "confidence": "of a multiple-choice doc: softmax of the choices' log-likelihoods, its greatest entry",
        "bins": "equal width, lower edge included, the last one closed",
        "intervals": "of the population's value; binned errors by inverted tests, means by Student's t, with wrong "
        "answers and shares binomial, auroc by DeLong on the logit scale",
        "nulls": "what a perfectly calibrated model would show with these forecasts on these docs (simulated): mean, "
        "95% quantile, p-value",
        "pooling": "metrics of a group are those of all its docs, each counted once",
    }


def _values(run: Run) -> Iterator[dict[str, Any]]:
    for value in values(run):
        measured, null = value.measured, value.null
        better = metric_of(value.metric).higher_is_better
        yield {
            "scope": value.scope,
            "metric": value.metric,
            "better": "nearer to 0" if better is None else "higher" if better else "lower",
            "value": measured.value,
            "standard_error": measured.stderr,
            "interval": None if math.isnan(measured.low) else [measured.low, measured.high],
            "null": None if null is None else {"mean": null.mean, "upper": null.upper, "p_value": null.p_value},
            "docs": measured.n_docs,
            **({} if measured.n_clusters is None else {"clusters": measured.n_clusters}),
            "undefined_because": measured.reason,
        }


def _decision(run: Run) -> Any:
    """When the model may answer alone; None where the docs are too few or of different kinds."""
    try:
        return finite(as_data(run.decide(groups=ALL)))
    except ValueError:
        return None


def _limits(run: Run) -> list[str]:
    """What the numbers don't say, as far as the run itself tells."""
    n_docs = len(run)
    limits = [
        f"The numbers describe {n_docs} docs of the tasks named, under the prompts whose hashes are given. They say "
        "nothing about other tasks, domains, languages, prompts, decoding or versions of the model.",
        "The docs are taken as independent draws; where they belong together (several questions on one text), "
        "intervals are too narrow."
        if run.n_clusters() is None
        else f"The docs are taken as {run.n_clusters()} clusters, each drawn whole, and clusters as independent draws.",
        "Whether the model has seen the docs in training is not known.",
    ]
    ece = run.metrics(names=["ece"])["ece"]
    if (null := run.null("ece")) is not None and math.isfinite(null.upper):
        limits.append(
            f"On these {ece.n_docs} docs a perfectly calibrated model would show an ece of {null.mean:.4f} on average "
            f"and up to {null.upper:.4f} (95%); errors of that size can't be told from none."
        )
    if not math.isnan(ece.low):
        limits.append(f"The interval of ece is {ece.high - ece.low:.4f} wide; smaller differences are not resolved.")
    if broken := sum(_broken(run, task) for task in run.tasks):
        limits.append(f"No sound label, so in no calibration metric: {counted(broken)}.")
    shares = {str(setting["limit"]) for setting in run.configuration.settings if setting.get("limit")}
    if shares:
        limits.append(f"Only the first docs of each task were used (limit {', '.join(sorted(shares))}), not a sample.")
    if run.left_out:
        limits.append(f"Not in these numbers: {'; '.join(f'{t} ({why})' for t, why in run.left_out.items())}.")
    if not math.isnan(run.metrics(names=["full_ece"])["full_ece"].value):
        limits.append("full_ece depends on the tokenizer and is comparable between models of one tokenizer only.")
    return [*limits, NO_CLAIM]
