"""Columns of many docs against the literal definitions, doc by doc."""

import json
import math
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from logged_runs import make_lines

from lm_eval_calibration import metrics
from lm_eval_calibration.records import (
    ChoicesRecord,
    Columns,
    Record,
    columns,
    jsonl,
    metric_arrays,
    read_columns,
    read_records,
    reading,
)
from lm_eval_calibration.records.gap_sums import doc_gap_sums
from lm_eval_calibration.records.jsonl import JsonLines
from lm_eval_calibration.records.reading import read_batches

KINDS = ("top_label", "choices", "full_vocabulary")


def make(rng: np.random.Generator, n: int, *, ragged: bool = False, positions: int = 1, broken: bool = False) -> Any:
    """Records in no order, of two tasks; some log-likelihoods are minus infinity, some choices tie."""
    records = []
    for i in rng.permutation(n).tolist():
        k = int(rng.integers(2, 6)) if ragged else 4
        shares = rng.multinomial(10, rng.dirichlet(np.ones(k))) / 10
        log_probs, large_probs = [], []
        for _ in range(int(rng.integers(1, positions + 1))):
            probs = rng.dirichlet(np.full(30, 0.1))
            large = probs[probs >= 0.05]
            log_probs.append(float(np.log(rng.choice(probs))))
            large_probs.append(tuple(large.tolist()))
        records.append(
            ChoicesRecord(
                task=f"task_{'ba'[i % 2]}",
                doc_id=i,
                doc_hash="d",
                prompt_hash="p",
                log_likelihoods=tuple(math.log(p) if p else -math.inf for p in shares),
                gold=None if broken and i % 5 == 0 else int(rng.integers(k)),
                log_probs=tuple(log_probs),
                large_probs=tuple(large_probs),
                kept_from=0.05,
                vocab_size=30,
            )
        )
    return records


def literal(records: list[Record], n_bins: int) -> dict[str, tuple[Any, Any]]:
    """The arrays of each kind by plain Python."""
    docs = sorted((r for r in records if r.gold is not None), key=lambda r: (r.task, r.doc_id))
    probs, gaps = [], []
    for doc in docs:
        weights = [math.exp(x - max(doc.log_likelihoods)) for x in doc.log_likelihoods]
        probs.append([w / sum(weights) for w in weights])
        doc_gaps = [0.0] * n_bins
        for log_prob, large in zip(doc.log_probs or (), doc.large_probs or (), strict=True):
            above = [[p for p in large if m / n_bins <= p < (m + 1) / n_bins] for m in range(1, n_bins)]
            hits = [m / n_bins <= math.exp(log_prob) < (m + 1) / n_bins for m in range(1, n_bins)]
            position = [hit - sum(mass) for hit, mass in zip(hits, above, strict=True)]
            for m, gap in enumerate([-sum(position), *position]):
                doc_gaps[m] += gap
        gaps.append(doc_gaps)
    correct = [int(max(range(len(p)), key=p.__getitem__) == doc.gold) for doc, p in zip(docs, probs, strict=True)]
    return {
        "top_label": ([max(p) for p in probs], correct),
        "choices": (probs, [doc.gold for doc in docs]),
        "full_vocabulary": (gaps, [len(doc.log_probs or ()) for doc in docs]),
    }


def assert_same(found: Any, expected: Any) -> None:
    assert len(found) == len(expected)
    for row, expected_row in zip(found, expected, strict=True):
        np.testing.assert_allclose(row, expected_row, rtol=0, atol=1e-12)


@pytest.mark.parametrize("chunk", [1, 7, columns.CHUNK])
@pytest.mark.parametrize("n_bins", [2, 10, 20])
@pytest.mark.parametrize(
    "shape",
    [{}, {"ragged": True}, {"positions": 5}, {"broken": True}, {"ragged": True, "positions": 3, "broken": True}],
)
def test_arrays_are_those_of_the_docs_one_by_one(
    shape: dict[str, Any], n_bins: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns, "CHUNK", chunk)
    records = make(np.random.default_rng(0), 60, **shape)
    expected = literal(records, n_bins)
    taken = Columns.of(iter(records), n_bins)
    assert len(taken) == len(expected["top_label"][0])
    for kind in KINDS:
        for found in (taken.arrays(kind), metric_arrays(iter(records), kind, n_bins)):
            assert_same(found[0], expected[kind][0])
            assert found[1].tolist() == expected[kind][1]
    assert isinstance(taken.arrays("choices")[0], list) == ("ragged" in shape)


def test_gap_sums_of_a_record_are_its_row() -> None:
    records = make(np.random.default_rng(1), 9, positions=4)
    rows, _ = Columns.of(records, 15).arrays("full_vocabulary")
    by_doc = sorted(records, key=lambda r: (r.task, r.doc_id))
    assert_same(rows, doc_gap_sums(by_doc, 15))


@pytest.mark.parametrize("name", metrics.CORE)
def test_metrics_of_columns_are_those_of_the_records(name: str) -> None:
    records = make(np.random.default_rng(2), 200, positions=2)
    metric, expected = metrics.CATALOG[name], literal(records, 10)
    for function in (metric.value, metric.stderr):
        found = function(*Columns.of(records).arrays(metric.kind))
        assert found == pytest.approx(function(*map(np.array, expected[metric.kind])), abs=1e-12)
        assert found > 0


def test_docs_are_taken_one_after_the_other_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "CHUNK", 5)
    alive: weakref.WeakSet[Record] = weakref.WeakSet()
    most = 0

    class Counted(ChoicesRecord):
        __hash__ = object.__hash__

    def docs() -> Iterator[Record]:
        nonlocal most
        for record in make(np.random.default_rng(3), 100):
            doc = Counted(**vars(record))
            alive.add(doc)
            most = max(most, len(alive))
            yield doc

    assert len(Columns.of(docs())) == 100
    assert 5 <= most <= 7
    assert len(alive) <= 1


def test_docs_can_be_added_after_arrays_were_taken() -> None:
    records = make(np.random.default_rng(4), 20)
    taken = Columns.of(records[:7])
    taken.arrays("top_label")
    for record in records[7:]:
        taken.add(record)
    assert len(taken) == 20
    for kind in KINDS:
        for one, other in zip(taken.arrays(kind), Columns.of(records).arrays(kind), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_arrays_are_whose_that_took_them(kind: str, ragged: bool) -> None:
    records = make(np.random.default_rng(6), 30, ragged=ragged)
    taken = Columns.of(records[:20])
    for column in taken.arrays(kind):
        for row in column if isinstance(column, list) else [column]:
            row[...] = 0
    for one, other in zip(taken.arrays(kind), Columns.of(records[:20]).arrays(kind), strict=True):
        assert_same(one, other)
    taken.extend(Columns.of(records[20:]))
    for one, other in zip(taken.arrays(kind), Columns.of(records).arrays(kind), strict=True):
        assert_same(one, other)


def test_a_four_choice_doc_takes_less_than_100_bytes() -> None:
    taken = Columns.of(make(np.random.default_rng(5), 3000))
    assert 50 < taken.nbytes / len(taken) < 100


def test_no_docs_have_empty_arrays() -> None:
    for kind in KINDS:
        assert [len(array) for array in Columns.of([]).arrays(kind)] == [0, 0]
    with pytest.raises(ValueError, match="confidence is empty"):
        metrics.ece(*Columns.of([]).arrays("top_label"))


@pytest.mark.parametrize(
    ("changes", "n_bins", "message"),
    [
        ({"log_probs": None, "large_probs": None}, 10, "task_a doc 3: no token distributions were recorded"),
        ({"kept_from": 0.2}, 10, "n_bins=10 needs every probability of at least 1 / 10"),
        ({"large_probs": ((0.9, 0.8),)}, 10, "task_a doc 3: large_probs sums to 1.7, more than 1"),
        ({"large_probs": ((1.5,),)}, 10, r"task_a doc 3: large_probs\[0\] is 1.5, outside"),
        (
            {"log_probs": (math.log(0.5),), "large_probs": ((0.3,),)},
            10,
            r"task_a doc 3: target_prob is 0\.5\d*, at least",
        ),
        ({}, 21, "n_bins=21 needs every probability of at least 1 / 21"),
    ],
)
def test_unsound_distributions_are_no_obstacle_to_other_metrics(
    changes: dict[str, Any], n_bins: int, message: str
) -> None:
    records = [replace(r, **changes) if r.doc_id == 3 else r for r in make(np.random.default_rng(6), 12)]
    taken = Columns.of(records, n_bins)
    assert len(taken.arrays("top_label")[0]) == len(taken.arrays("choices")[0]) == 12
    with pytest.raises(ValueError, match=message):
        taken.arrays("full_vocabulary")


def write(path: Path, records: list[Record], change: Callable[[str], str] = str) -> Path:
    lines = [json.dumps({"doc_id": r.doc_id, "doc": {"x": r.doc_hash}, "calibration": r.to_dict()}) for r in records]
    path.write_text("".join(change(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_a_file_is_read_in_one_pass(tmp_path: Path) -> None:
    records = make(np.random.default_rng(7), 30, ragged=True, positions=2, broken=True)
    path = write(tmp_path / "samples.jsonl", records)
    nan = write(
        tmp_path / "nan.jsonl", records, lambda line: line.replace('"prompt_hash"', '"entropy": NaN, "prompt_hash"')
    )
    for kind in KINDS:
        expected = metric_arrays(list(read_records(path)), kind, 15)
        for found in (read_columns(path, n_bins=15), read_columns(nan, n_bins=15)):
            for one, other in zip(found.arrays(kind), expected, strict=True):
                assert_same(one, other)


def test_a_group_s_files_are_read_together(tmp_path: Path) -> None:
    records = make(np.random.default_rng(10), 30)
    paths = [write(tmp_path / f"{task}.jsonl", [r for r in records if r.task == task]) for task in ("task_b", "task_a")]
    for kind in KINDS:
        for one, other in zip(read_columns(*paths).arrays(kind), metric_arrays(records, kind, 10), strict=True):
            assert_same(one, other)


@pytest.mark.parametrize("n_bins", [0, -1, 2.5, True])
def test_n_bins_is_a_positive_integer(n_bins: Any) -> None:
    with pytest.raises(ValueError, match=r"n_bins is .*; it must be a positive integer"):
        Columns(n_bins)


def test_a_bad_line_of_a_file_is_named(tmp_path: Path) -> None:
    records = make(np.random.default_rng(8), 20)
    path = write(tmp_path / "samples.jsonl", records, lambda line: line.replace('"gold": 2', '"gold": 7'))
    number = 1 + next(i for i, record in enumerate(records) if record.gold == 2)
    with pytest.raises(ValueError, match=rf"samples\.jsonl, line {number}: gold is 7, but there are 4 choices"):
        read_columns(path)


def test_gap_sums_of_many_positions_are_those_of_each() -> None:
    rng = np.random.default_rng(9)
    probs = rng.dirichlet(np.full(40, 0.1), size=50)
    targets = np.array([rng.choice(40, p=p) for p in probs])
    rows = [p[p >= 1 / 12] for p in probs]
    target_probs = probs[np.arange(50), targets]
    many = metrics.gap_sums_of_positions(np.concatenate(rows), [len(row) for row in rows], target_probs, n_bins=12)
    assert_same(many, metrics.position_gap_sums(probs, targets, n_bins=12))
    assert_same(many, [metrics.gap_sums(row, p, n_bins=12) for row, p in zip(rows, target_probs, strict=True)])


@pytest.mark.parametrize(
    ("large", "counts", "targets", "message"),
    [
        ([0.9, 0.6, 0.6], [1, 2], [0.9, 0.6], "large_probs of position 1 sums to 1.2, more than 1"),
        ([0.9, 0.6], [1, 1], [0.9, 0.3], "target_prob of position 1 is 0.3, at least 1 / 10, but not in large_probs"),
        ([0.9, 0.6], [1, 2], [0.9, 0.6], "n_large counts 3 of 2 large_probs"),
        ([0.9, 0.6], [1, 1], [0.9], "at 2 of 1 positions"),
        ([0.9, np.nan], [1, 1], [0.9, 0.6], r"large_probs\[1\] is nan"),
    ],
)
def test_bad_positions_are_named(large: Any, counts: Any, targets: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.gap_sums_of_positions(large, counts, targets)


def test_parts_of_a_large_file_are_its_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [json.dumps(line) for line in make_lines("a_calibration", 300)]
    for i, text in enumerate(("", "x" * 5000)):  # a line longer than a part
        path = tmp_path / f"samples_a_{i}.jsonl"
        whole = [
            line.replace('"target"', f'"pad": "{text}", "target"', 1) if j == 7 else line
            for j, line in enumerate(lines)
        ]
        path.write_text("\n".join(whole))
        expected = read_columns(path)
        monkeypatch.setattr(jsonl, "_PART", 4096)
        monkeypatch.setattr(reading, "processors", lambda: 2)
        file = JsonLines(path)
        assert [line for part in file.parts() for _, block in file.blocks_of(part, 1) for line in block] == [
            line for _, block in file.blocks() for line in block
        ]
        found = read_columns(path)
        for kind in ("top_label", "choices", "full_vocabulary"):
            for one, other in zip(found.arrays(kind), expected.arrays(kind), strict=True):
                np.testing.assert_array_equal(one, other)
        rows = [row for _, some in read_batches(file) for row in some]
        assert rows == list(range(300))
        monkeypatch.undo()


def test_a_broken_line_of_a_large_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [json.dumps(line) for line in make_lines("a_calibration", 300)]
    lines[213] = lines[213].replace('"gold": ', '"gold": 1.5, "was": ')
    path = tmp_path / "samples_a.jsonl"
    path.write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(jsonl, "_PART", 4096)
    monkeypatch.setattr(reading, "processors", lambda: 2)
    with pytest.raises(ValueError, match=r"samples_a\.jsonl, line 214: gold is 1\.5"):
        read_columns(path)
