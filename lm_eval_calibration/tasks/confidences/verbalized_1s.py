"""Verbalized confidence in one turn: one reply has an explanation, the answer, and how likely that answer is right.

The protocol is "Verb. 1S top-1" of Tian et al. 2023, arXiv:2305.14975, in the form that Humanity's Last Exam
(arXiv:2501.14249) and BrowseComp (arXiv:2504.12516) use. The wording is ours.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from lm_eval_calibration.backends.thoughts import after_thought
from lm_eval_calibration.metrics import RMS_CE_MASS_WITHOUT_LAST
from lm_eval_calibration.records import StatedConfidence
from lm_eval_calibration.tasks.confidences.elicitation import Elicitation
from lm_eval_calibration.tasks.confidences.option import flag
from lm_eval_calibration.tasks.confidences.source import StatedSource, Table
from lm_eval_calibration.tasks.confidences.table_rows import TableMetric
from lm_eval_calibration.tasks.confidences.verbalized import stated_probability

WORDING = "tian_1s"
"""Name of the wording, as records give it."""

FORM = """Write your reply in this form, each part on a line of its own:
Explanation: why you answer as you do
Answer: your answer and nothing else
Confidence: the probability that your answer is correct, as a percentage from 0% to 100%"""

UNPARSED = "unparsed_verbalized_1s"
"""The share of docs whose reply states no probability in this form, or whose answer can't be read."""

MAX_GEN_TOKS = 512
"""Tokens of a reply, unless the stock task allows more."""

_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""Keys by which a task may limit the tokens of a reply."""

PUBLISHED_FIGURES = ("rms_ce_mass", RMS_CE_MASS_WITHOUT_LAST.name)
"""The calibration error of those two benchmarks: over all bins, and as their code computes it."""


class Verbalized1S(StatedSource):
    """The probability that the model states beside its answer: for servers that give nothing but texts."""

    name = "verbalized_1s"
    option = flag("verbalized_1s")
    report_name = "in words, beside the answer"
    means: ClassVar = {UNPARSED: False}
    variant: ClassVar = {"verbalized_1s": True}
    writes_only = True
    needs_named_choice = True
    sets_form = True
    left_out_message = (
        f"{{n}} of {{total}} replies state no confidence in the requested form ({{docs}}); they count in acc and "
        f"{UNPARSED}, and in no metric of verbalized confidence"
    )

    def rows(self, table: Table) -> dict[str, TableMetric]:
        """Return its rows, the published figure among them."""
        name = f"{RMS_CE_MASS_WITHOUT_LAST.name}{self.suffix}"
        published = TableMetric(replace(RMS_CE_MASS_WITHOUT_LAST, name=name), self, self.view, has_stderr=False)
        return {**super().rows(table), name: published}

    def shown(self, names: Sequence[str], options: Any, table: Table) -> list[str]:
        """Return the rows beside these metrics, and those that published results have."""
        return super().shown([*names, *(name for name in PUBLISHED_FIGURES if name not in names)], options, table)

    def means_of(self, record: Any, options: Any) -> dict[str, float]:
        """Return whether a reply states no probability."""
        return {UNPARSED: float(record.stated[self.name].confidence is None)} if self.is_in(record) else {}

    def with_form(self, text: str) -> str:
        """Return a prompt that asks for the form."""
        return f"{text}\n\n{FORM}"

    def generation_settings(self, stock: Mapping[str, Any]) -> dict[str, Any]:
        """Return settings that cut no reply short: no stop string, and tokens for the explanation."""
        most = max([MAX_GEN_TOKS, *(stock[key] for key in _LENGTHS if key in stock)])
        kept = {key: value for key, value in stock.items() if key not in _LENGTHS}
        return {"do_sample": False, "temperature": 0.0, **kept, "until": [], "max_gen_toks": most}

    def answers_in(self, reply: str) -> tuple[str, ...]:
        """Return what stands after ``Answer:``, alone and as a sentence; of another reply, all before the confidence.

        An answer that begins on the next line keeps its indentation, which a program needs.
        """
        before, *_ = _parts("Confidence", after_thought(reply) or "")
        _, *answers = _parts("Answer", before)
        if not answers:
            return (before.strip(),)
        answer = re.sub(r"^[ \t]*(?:\n+|(?=\S))", "", answers[-1]).rstrip()
        return answer, f"The answer is {answer}."

    def answer_start(self, reply: str) -> int:
        """Return where in a reply the answer begins, before its line of confidence."""
        said = after_thought(reply) or ""
        end = len(reply) - len(said) + len(_parts("Confidence", said)[0])
        return reply.rfind(self.answers_in(reply)[0], 0, end)

    def start(self, task: Any, lm: Any, chat_template: Any) -> "Verbalized1SReading":
        """Return what reads the replies."""
        return Verbalized1SReading(self.name, WORDING)


class Verbalized1SReading(Elicitation):
    """Reads the confidence in a reply."""

    def confidence_of(self, text: Any, answer: Any, replies: Sequence[Any]) -> StatedConfidence:
        """Return the probability that the reply states in its one line of confidence; None where there is no such line.

        Several lines contradict each other or repeat the form, so none of them is read.
        """
        _, *stated = _parts("Confidence", after_thought(str(text)) or "")
        line = stated[0].partition("\n")[0] if len(stated) == 1 else ""
        return StatedConfidence(WORDING, stated_probability(line.replace("*", "")))


def _parts(label: str, text: str) -> list[str]:
    """Split a text at the lines that begin with a label; bold type is no matter."""
    return re.split(rf"^[ \t]*\**{label}\**:\**", text, flags=re.MULTILINE)


VERBALIZED_1S = Verbalized1S()
