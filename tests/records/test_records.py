import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import make_choices as make

from lm_eval_calibration.records import Record, metric_arrays, read_records
from lm_eval_calibration.records.gap_sums import doc_gap_sums


def test_probs_confidence_correct() -> None:
    weights = np.exp([0, -1, -2])
    np.testing.assert_allclose(make().probs, weights / weights.sum(), rtol=1e-15)
    assert make().confidence == pytest.approx(1 / weights.sum())
    assert [make(gold=gold).correct for gold in (0, 1, None)] == [1, 0, None]


def test_the_first_of_equal_choices_is_the_answer_as_in_the_harness() -> None:
    assert make(log_likelihoods=(-2.0, -1.0, -1.0), gold=1).correct == 1
    assert make(log_likelihoods=(-2.0, -1.0, -1.0), gold=2).correct == 0


def test_gap_sums_by_hand() -> None:
    # Position 1: token at 0.6 is right, 0.3 is not; the rest has 0.1. Position 2: 0.9 and 0.05 (below 1/10) are not,
    # the reference token has 0.004, so bin 0 has mass 0.1 and the one hit.
    expected = np.zeros(10)
    expected[[6, 3, 0]] = 1 - 0.6, -0.3, -0.1
    expected[9] -= 0.9
    expected[0] += 1 - 0.1
    np.testing.assert_allclose(doc_gap_sums([make()], 10)[0], expected, atol=1e-12)
    assert doc_gap_sums([make()], 10)[0].sum() == pytest.approx(0, abs=1e-12)


def test_without_distributions_gap_sums_are_an_error() -> None:
    with pytest.raises(ValueError, match="t doc 3: no token distributions were recorded"):
        doc_gap_sums([make(log_probs=None, large_probs=None)], 10)[0]


def test_more_bins_than_were_kept_for_are_refused() -> None:
    assert len(doc_gap_sums([make()], 20)[0]) == 20
    with pytest.raises(ValueError, match="n_bins=21 needs every probability of at least 1 / 21"):
        doc_gap_sums([make()], 21)[0]
    assert len(doc_gap_sums([make(kept_from=0.01)], 100)[0]) == 100


@pytest.mark.parametrize(
    "record",
    [
        make(),
        make(gold=None),
        make(log_probs=None, large_probs=None, kept_from=None, vocab_size=None),
        make(doc_id=None),
    ],
)
def test_json_round_trip(record: Record) -> None:
    assert Record.from_dict(json.loads(json.dumps(record.to_dict(), allow_nan=False))) == record


def test_unknown_fields_are_kept_and_unknown_versions_refused() -> None:
    data = {**make().to_dict(), "entropy": 0.7}
    assert Record.from_dict(data).extra == {"entropy": 0.7}
    assert Record.from_dict(data).to_dict() == data
    for version in (2, None, "1"):
        with pytest.raises(ValueError, match=f"record version {version!r} is not 1"):
            Record.from_dict({**data, "version": version})


def write(path: Path, lines: list[Any]) -> Path:
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n", encoding="utf-8")
    return path


def test_read_records(tmp_path: Path) -> None:
    records = [make(doc_id=i) for i in range(3)]
    path = write(tmp_path / "samples.jsonl", [{"calibration": r.to_dict(), "acc": 1} for r in records])
    assert list(read_records(path)) == records


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"acc": 1.0}, r"samples\.jsonl, line 2: no 'calibration' record"),
        ({"calibration": {"version": 9}}, r"samples\.jsonl, line 2: record version 9 is not 1"),
        ({"calibration": {"version": 1, "definitions": 1, "task": "t"}}, r"line 2: record of t doc None"),
        ({"calibration": "x"}, r"samples\.jsonl, line 2: no 'calibration' record"),
        (["calibration"], r"samples\.jsonl, line 2: no 'calibration' record"),
        ({"calibration": {**make().to_dict(), "definitions": 9}}, "line 2: definition version 9 is not 1"),
        ({"calibration": {**make().to_dict(), "kind": "q"}}, "line 2: kind is 'q'; there is answer, multiple_choice"),
        ({"calibration": {**make().to_dict(), "gold": 7}}, "line 2: gold is 7, but there are 3 choices"),
        ({"calibration": {**make().to_dict(), "log_likelihoods": []}}, r"line 2: log_likelihoods are \[\]"),
        ({"calibration": {**make().to_dict(), "large_probs": None}}, "line 2: log_probs and large_probs are not of"),
    ],
)
def test_a_bad_line_is_named(line: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "samples.jsonl", [{"calibration": make().to_dict()}, line])
    with pytest.raises(ValueError, match=message):
        list(read_records(path))


def test_arrays_come_in_doc_order_whatever_the_ranks_did() -> None:
    records = [make(task=t, doc_id=i, gold=i % 3) for t in "ab" for i in range(4)]
    shuffled = [records[i] for i in (5, 0, 7, 2, 1, 6, 4, 3)]
    for kind in ("top_label", "choices", "full_vocabulary"):
        for one, other in zip(metric_arrays(records, kind, 10), metric_arrays(shuffled, kind, 10), strict=True):
            np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match="unknown kind of metric 'x'"):
        metric_arrays(records, "x", 10)


def test_ragged_choices_stay_ragged() -> None:
    probs, labels = metric_arrays([make(), make(doc_id=4, log_likelihoods=(-1.0, -1.0), gold=1)], "choices", 10)
    assert [len(p) for p in probs] == [3, 2]
    assert labels.tolist() == [0, 1]


def test_a_line_that_is_no_json_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "samples.jsonl", [{"calibration": make().to_dict()}])
    path.write_text(path.read_text(encoding="utf-8") + '{"calibration": {"vers', encoding="utf-8")
    with pytest.raises(ValueError, match=r"samples\.jsonl, line 2: not JSON, cut short"):
        list(read_records(path))


def test_nan_in_a_doc_is_no_obstacle(tmp_path: Path) -> None:
    line = {"doc": {"age": float("nan")}, "calibration": make().to_dict()}
    assert list(read_records(write(tmp_path / "samples.jsonl", [line]))) == [make()]
