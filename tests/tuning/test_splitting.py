"""Which docs are learned from and which are judged."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from lm_eval_calibration.tasks.line_completion import lines
from lm_eval_calibration.tuning.questions import _sources
from lm_eval_calibration.tuning.splitting import VALIDATION_SHARE, Hashes, content_hash, split_across, split_within

CONTENTS = [content_hash(f"question {i}", ["yes", "no"]) for i in range(2000)]
DOCS = Hashes(CONTENTS, CONTENTS)


def test_content_is_what_is_asked_whatever_its_case_and_blanks() -> None:
    assert content_hash("Which  Bone?", ["Ulna", "rib"]) == content_hash(" which bone?", ["ulna", "Rib"])
    assert content_hash("Which bone?", ["rib", "ulna"]) != content_hash("Which bone?", ["ulna", "rib"])
    assert content_hash("a b", ["c"]) != content_hash("a", ["b c"])


def test_no_doc_is_on_both_sides_and_none_is_lost() -> None:
    parts = split_within(DOCS, 0.5, 10_000)
    fit, validation, test = map(set, parts[:3])
    assert not fit & validation
    assert not (fit | validation) & test
    assert fit | validation | test == set(range(2000))
    assert len(fit | validation) == pytest.approx(1000, abs=4 * 22.4)  # a binomial's four standard deviations
    assert len(validation) == round(VALIDATION_SHARE * len(fit | validation))


def test_a_doc_that_stands_there_twice_is_on_one_side_once() -> None:
    doubled = [*CONTENTS[:300], *CONTENTS[:300]]
    parts = split_within(Hashes(doubled, doubled), 0.5, 10_000)
    assert parts.n_duplicates == 300
    chosen = [*parts.fit, *parts.validation, *parts.test]
    assert len({doubled[i] for i in chosen}) == len(chosen) == 300


def test_a_doc_s_side_does_not_depend_on_the_others() -> None:
    whole, half = (
        split_within(DOCS, 0.3, 10_000),
        split_within(Hashes(CONTENTS[1000:], CONTENTS[1000:]), 0.3, 10_000),
    )
    assert {i - 1000 for i in whole.test if i >= 1000} == set(half.test)


def test_a_limit_takes_docs_from_what_is_learned_only() -> None:
    whole, few = split_within(DOCS, 0.5, 10_000), split_within(DOCS, 0.5, 100)
    assert len(few.fit) + len(few.validation) == 100
    assert few.test == whole.test
    assert {*few.fit, *few.validation} < {*whole.fit, *whole.validation}


def test_a_training_split_loses_what_is_evaluated_too() -> None:
    training, evaluated = [*CONTENTS[:100], *CONTENTS[:10]], [*CONTENTS[90:150], CONTENTS[149]]
    parts = split_across(Hashes(training, training), Hashes(evaluated, evaluated), 10_000)
    assert {*parts.fit, *parts.validation} == set(range(90))
    assert parts.test == tuple(range(60))
    assert parts.n_duplicates == 10 + 10 + 1  # of the training split, in both, of the evaluated one


def test_docs_of_one_source_are_on_one_side() -> None:
    sources = [content_hash(f"program {i // 10}", []) for i in range(2000)]
    parts = split_within(Hashes(CONTENTS, sources), 0.5, 10_000)
    learned = {sources[i] for i in (*parts.fit, *parts.validation)}
    assert 50 < len(learned) < 150
    assert not learned & {sources[i] for i in parts.test}
    assert not {sources[i] for i in parts.fit} & {sources[i] for i in parts.validation}
    assert len(parts.validation) == pytest.approx(VALIDATION_SHARE * (len(parts.fit) + len(parts.validation)), abs=10)


def test_a_training_split_loses_docs_of_a_passage_that_is_evaluated() -> None:
    training = Hashes(CONTENTS[:40], [content_hash(f"passage {i // 10}", ()) for i in range(40)])
    evaluated = Hashes(CONTENTS[100:105], [content_hash("passage 2", ())] * 5)
    parts = split_across(training, evaluated, 10_000)
    assert {*parts.fit, *parts.validation} == {*range(20), *range(30, 40)}
    assert parts.test == tuple(range(5))


def test_lines_of_one_program_have_one_source_and_other_docs_their_own() -> None:
    programs = [{"task_id": f"p/{i}", "prompt": "", "canonical_solution": "a = 1\nb = 2\nc = 3\n"} for i in range(2)]
    of_lines = _sources(_task(lines(programs)), CONTENTS[:6])
    assert of_lines[:3] == [of_lines[0]] * 3 != of_lines[3:] == [of_lines[3]] * 3
    docs = [{"task_id": "the same for all", "question": str(i)} for i in range(3)]
    assert _sources(_task(docs), CONTENTS[:3]) == CONTENTS[:3]


def test_docs_of_one_cluster_have_one_source() -> None:
    docs = [{"passage_id": i // 2, "question": str(i)} for i in range(4)]
    sources = _sources(_task(docs, cluster="doc.passage_id"), CONTENTS[:4])
    assert sources[0] == sources[1] != sources[2] == sources[3]


def _task(docs: Sequence[Any], *, cluster: str | None = None) -> SimpleNamespace:
    return SimpleNamespace(eval_docs=docs, options=SimpleNamespace(cluster=cluster))
