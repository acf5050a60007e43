"""Whether there is anything to learn: what a probe of the hidden states makes of more and more graded answers.

    python tests/benchmarks/learning_curve.py FOLDER [--sizes 100 200 400 800 1600] [--repeats 10]

FOLDER is the output of `lm-eval-calibration tune --method probe`, or of another method. The model reads its own
answers once; then, of each size, so many random sets of the docs that it may learn from fit a probe, which is judged
on all held-out ones. Printed: means over the sets, with their standard deviations, beside P(true) of the untuned
model and a constant, the share of the docs learned from that were answered right. A curve that stays at the
constant's NLL and an AUROC of 0.5 says that the model's last hidden state doesn't tell its right answers from its
wrong ones, as far as a linear map of so many examples can see.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
from sklearn.exceptions import UndefinedMetricWarning

from lm_eval_calibration.tasks.confidences.p_true_query import QUERIES
from lm_eval_calibration.tuning import grading as grades
from lm_eval_calibration.tuning import settings
from lm_eval_calibration.tuning.examples import make_examples
from lm_eval_calibration.tuning.forward import Forward
from lm_eval_calibration.tuning.model import load
from lm_eval_calibration.tuning.probe import fit, read_out
from lm_eval_calibration.tuning.questions import load_questions
from lm_eval_calibration.tuning.settings import GradingSettings
from lm_eval_calibration.tuning.validation import validation_metrics

SHOWN = ("auroc", "ece", "nll")


def row(name: str, found: list[dict[str, float]]) -> str:
    """Means and standard deviations, on one line."""
    cells = []
    for metric in SHOWN:
        values = [validation[metric] for validation in found]
        spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
        cells.append(f"{np.mean(values):.4f}{spread}".ljust(17))
    return f"{name:>16}  {'  '.join(cells)}"


def main() -> None:
    """Read the hidden states, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 200, 400, 800, 1600])
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    kept = settings.read(options.folder)
    grading = GradingSettings(**{**kept["grading"], "tasks": tuple(kept["grading"]["tasks"])})
    query = kept["protocol"]["query"]
    lm = load(grading, None, 1)
    questions = [question for task in load_questions(grading, query, lm) for question in task.questions]
    answers = grades.read(options.folder / grades.FILE, grading.of_answers, questions)
    examples = make_examples([answer for answer in answers if answer.correct is not None], QUERIES[query], lm)
    forward = Forward(lm, examples.fit[0].rows[0].tokens)
    (hidden, correct, _), (held_out, held_out_correct, untuned) = (
        read_out(forward, lm.model, part, 1, examples.pad_token_id) for part in (examples.fit, examples.held_out)
    )
    print(f"{len(correct)} docs to learn from, {len(held_out_correct)} held out")
    print(f"{'':>16}  {'  '.join(metric.ljust(17) for metric in SHOWN)}")
    warnings.simplefilter("ignore", UndefinedMetricWarning)
    share = float(np.mean(correct))
    constant = np.full(len(held_out_correct), np.log(share / (1 - share)))
    for name, log_odds in (("untuned P(true)", untuned), (f"constant {share:.3f}", constant)):
        print(row(name, [validation_metrics(log_odds, held_out_correct, held_out_correct)]))
    for size in sorted({min(size, len(correct)) for size in options.sizes}):
        found = []
        for seed in range(options.repeats if size < len(correct) else 1):
            chosen = np.random.default_rng(seed).permutation(len(correct))[:size]
            probe = fit(hidden[chosen], correct[chosen], seed)
            log_odds = held_out @ probe.weight.detach().numpy() + float(probe.bias.detach())
            found.append(validation_metrics(log_odds, held_out_correct, held_out_correct))
        print(row(f"probe of {size}", found), flush=True)


if __name__ == "__main__":
    main()
