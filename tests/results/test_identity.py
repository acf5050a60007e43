"""What tells runs apart."""

from pathlib import Path

import pytest
from made_runs import write_run

from lm_eval_calibration.results import Run, load_run
from lm_eval_calibration.results.grouping import with_whole
from lm_eval_calibration.results.identity import date_of, fingerprint, labels

SMALL = {"anatomy_calibration": 5}


def test_a_fingerprint_is_that_of_the_samples_wherever_they_lie(tmp_path: Path) -> None:
    one = load_run(write_run(tmp_path / "a", tasks=SMALL))
    copy = load_run(write_run(tmp_path / "b", tasks=SMALL, time="2027-01-01T00-00-00.1"))
    other = load_run(write_run(tmp_path / "c", tasks=SMALL, seed=1))
    assert fingerprint(one) == fingerprint(copy) != fingerprint(other)


def test_the_date_is_that_of_the_files_names(tmp_path: Path) -> None:
    assert date_of(load_run(write_run(tmp_path, tasks=SMALL))) == "2026-01-31T10:00:00"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([{"model": "org/a"}, {"model": "org/b"}], ["a", "b"]),
        ([{}, {"shots": 5}], ["model (0-shot)", "model (5-shot)"]),
        ([{}, {"template": "abc"}], ["model (no chat template)", "model (chat template)"]),
        ([{}, {"time": "2026-02-28T10-00-00.1"}], ["model (2026-01-31)", "model (2026-02-28)"]),
        ([{}, {}], ["model #1", "model #2"]),
        ([{"model": "a\n b/"}, {"model": "/x/y__z"}], ["a b", "z"]),
    ],
)
def test_labels_tell_runs_apart(options: list[dict], expected: list[str], tmp_path: Path) -> None:
    runs = [
        load_run(write_run(tmp_path / str(i), **{"tasks": SMALL, "seed": i, **option}))
        for i, option in enumerate(options)
    ]
    assert labels(runs) == expected


def scopes(run: Run) -> list[str]:
    return list(with_whole(run.tasks, run.groups))


def test_scopes_are_groups_and_tasks_and_all_where_no_group_is(tmp_path: Path) -> None:
    two = {"a_calibration": 3, "b_calibration": 3}
    assert scopes(load_run(write_run(tmp_path / "1", tasks=SMALL))) == ["anatomy_calibration"]
    assert scopes(load_run(write_run(tmp_path / "2", tasks=two))) == ["all", *two]
    grouped = write_run(tmp_path / "3", tasks=two, groups={"g": list(two)})
    assert scopes(load_run(grouped)) == ["g", *two]
