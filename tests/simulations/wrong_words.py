"""How often report, demo, recalibrate, compare and drift say in words what is not so, of calibrated models.

    cd tests && nice python -m simulations.wrong_words [--regimes 100] [--seed 0]

Each regime is drawn at random (``regimes.py``, calibrated, 50 to 2,000 docs). Its run is written and read as the
harness writes it. Two runs for ``compare`` and ``drift`` (tolerance 0) have each doc's two forecasts in random order,
so that no metric differs in the population. What recalibration does is never better, and in truth a little worse where
a map was overfitted: "worse" is counted by itself. Prints the share of the regimes in which each says something false.
"""

import argparse
import json
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from logged_runs import stock_line, write_run
from simulations.regimes import Sample, draw_regime, draw_sample

from lm_eval_calibration import load_run
from lm_eval_calibration.records import RECORD_KEY, ChoicesRecord, Generation, GenerationRecord
from lm_eval_calibration.reports.drift.gate import gate
from lm_eval_calibration.reports.report.content import chance
from lm_eval_calibration.reports.report.recalibration import recalibrated
from lm_eval_calibration.reports.report.verdicts import Answer, answers, spread
from lm_eval_calibration.reports.sentences import confidence_sentence
from lm_eval_calibration.results import Run, compare_runs

TASK = "words"
ASKED = ("overconfidence", "auroc", "confident_error_rate")
COMPARED = ("acc", "ece", "overconfidence", "brier_top_label", "auroc")
FALSE_ANSWERS = {
    "gap": ("as often as it says", ("Overconfident", "Underconfident")),
    "guessing": ("by guessing", ("No",)),
    "recalibration": ("recalibrat", ("Yes",)),
    "enough docs": ("enough", ("Yes", "Enough")),
}
"""Words of a question of the report, and beginnings of its answers that are false of a calibrated model."""


def lines_of(sample: Sample, which: np.ndarray) -> list[dict[str, Any]]:
    """A run's lines: of doc i the forecast ``which[i]`` (0 or 1)."""
    lines = []
    for i, run in enumerate(which):
        known = {"task": TASK, "doc_id": i, "doc_hash": f"doc {i}", "prompt_hash": f"prompt {i}"}
        if sample.docs.probs is None or sample.labels is None:
            log_prob = float(np.log(sample.docs.confidence[run, i]))
            answer = Generation(f"text {i}", "exact_match", "none", int(sample.correct[run, i]), (log_prob,))
            record: Any = GenerationRecord(**known, generation=answer)
            stock = {
                "doc_id": i,
                "doc": {},
                "resps": [["so"]],
                "filter": "none",
                "filtered_resps": ["so"],
                "target": "",
            }
            lines.append({**stock, "doc_hash": record.doc_hash, "prompt_hash": record.prompt_hash})
        else:
            log_likelihoods = np.log(np.maximum(sample.docs.probs[run, i], 1e-300)).tolist()
            gold = int(sample.labels[i])
            record = ChoicesRecord(**known, log_likelihoods=tuple(log_likelihoods), gold=gold)
            lines.append({**stock_line(i, f"Which? {i}", log_likelihoods, gold), "doc_hash": record.doc_hash})
        lines[-1][RECORD_KEY] = record.to_dict()
    return lines


def false_words(sample: Sample, rng: np.random.Generator, folder: Path) -> Iterator[tuple[str, bool]]:
    """What could be said, and whether it is and is false."""
    n_docs = len(sample.docs.cluster)
    run = _run(folder / "run", sample, np.zeros(n_docs, dtype=int))
    confidence, correct = run.arrays("top_label", TASK)
    yield "demo", "no clear" not in confidence_sentence(confidence, correct)
    after = recalibrated(run, [TASK])
    nulls = {name: run.null(name, TASK) for name in ("ece", "overconfidence")}
    guessing = chance(run, [TASK])
    said = answers(
        run.metrics(TASK, names=ASKED),
        nulls,
        confidence,
        correct,
        after and after.changes,
        chance=guessing,
        spread_after=spread(after.confidence, guessing) if after else 1.0,
    )
    found = {name: _begins(said, *words) for name, words in FALSE_ANSWERS.items()}
    # more than 10% wrong where it is 90% sure
    found["confident errors"] = next(one for one in said if "90% sure" in one.question).tone == "bad"
    yield from ((f"report: {name}", is_false) for name, is_false in found.items())
    yield "report: any", any(found.values())
    if after is not None:
        yield "recalibrate: better", any(change.verdict == "better" for change in after.changes)
        yield "recalibrate: worse", any(change.verdict == "worse" for change in after.changes)
    swap = rng.integers(0, 2, n_docs)
    one, other = (_run(folder / name, sample, which) for name, which in (("a", swap), ("b", 1 - swap)))
    comparison = compare_runs(one.records, other.records, names=COMPARED)
    for name, found in comparison.tasks[0].differences.items():
        yield f"compare: {name}", found.verdict != ""
    yield "drift", any(test.verdict == "drifted" for test in gate(comparison, dict.fromkeys(COMPARED, 0.0)))


def _begins(said: Sequence[Answer], of_question: str, beginnings: tuple[str, ...]) -> bool:
    return any(one.short.startswith(beginnings) for one in said if of_question in one.question)


def _run(folder: Path, sample: Sample, which: np.ndarray) -> Run:
    return load_run(write_run(folder, {TASK: lines_of(sample, which)}))


def main() -> None:
    """Print the share of the regimes in which each says something false."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--regimes", type=int, default=100)
    parser.add_argument("--largest", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    said: dict[str, list[bool]] = defaultdict(list)
    for i in range(options.regimes):
        rng = np.random.default_rng([options.seed, i])
        regime = draw_regime(rng, n_min=50, n_max=options.largest)._replace(shape="calibrated")
        with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
            warnings.simplefilter("ignore")
            for name, is_false in false_words(draw_sample(rng, regime), rng, Path(folder)):
                said[name].append(bool(is_false))
        if options.save:
            options.save.write_text(json.dumps(said))
    print(table(said))


def table(said: dict[str, list[bool]]) -> str:
    """A row for each thing that could be said."""
    rows = [f"| {name} | {len(found)} | {100 * np.mean(found):.1f} |" for name, found in said.items()]
    return "\n".join(["| said by | regimes | false, % |", "|---|---|---|", *rows])


if __name__ == "__main__":
    main()
