"""The map that is calibrated within groups: what it mends, what it leaves alone, its definition."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import write_run
from scipy.special import expit, logit
from typer.testing import CliRunner, Result

from lm_eval_calibration.cli import app
from lm_eval_calibration.metrics.fields import Field
from lm_eval_calibration.metrics.group_errors import group_errors
from lm_eval_calibration.recalibration import Docs, Grouped, MapByGroup, Multicalibrated, before_after, cross_fit

N = 2000


def made(seed: int, off: float, n: int = N) -> tuple[Docs, Any]:
    """Docs of two wards and two languages, ward a underconfident and b overconfident by ``off``; how likely right."""
    rng = np.random.default_rng(seed)
    ward, language = rng.choice(["a", "b"], n), rng.choice(["de", "en"], n, p=[0.3, 0.7])
    confidence = rng.uniform(0.3, 0.8, n)
    right = np.clip(confidence + np.where(ward == "a", off, -off), 0, 1)
    correct = (rng.random(n) < right).astype(int)
    docs = Docs.of_answers(confidence, correct, [f"{seed} {i}" for i in range(n)])
    return docs.with_fields({"doc.ward": Field.of(ward), "doc.language": Field.of(language)}), right


@pytest.mark.parametrize(("method", "mends"), [("platt", False), ("isotonic", False), ("multicalibrated", True)])
def test_opposite_errors_of_two_groups(method: str, mends: bool) -> None:
    """Over all docs nothing is wrong, so a map that knows no groups finds nothing to mend."""
    docs, right = made(1, off=0.2)
    after = cross_fit(method, docs).forecasts
    for ward in ("a", "b"):
        member = docs.fields["doc.ward"].has(ward)
        assert (abs(np.mean(after.confidence[member] - right[member])) < 0.04) == mends
    _, change = before_after(docs.forecasts, after, names=["brier_top_label"])
    assert (change.change < -0.03) == mends
    assert any(one.tendency for one in group_errors(after.confidence, after.correct, docs.fields).groups) != mends


def test_calibrated_docs_are_left_as_they_are() -> None:
    changed = 0
    for seed in range(100):
        docs, _ = made(seed, off=0.0, n=300)
        changed += bool(Multicalibrated().fit(*docs.fit_arguments("groups")).patches)
    assert changed <= 5


def test_one_patch_is_its_definition() -> None:
    confidence, correct = np.full(100, 0.9), np.arange(100) < 50
    fitted = Multicalibrated().fit(Grouped(confidence, {}), correct)
    expected = logit((50 + 0.9) / 101) - logit(0.9)
    assert fitted.patches == ([[], 0.0, 1.0, pytest.approx(expected, abs=1e-9)],)
    assert fitted.predict_proba(Grouped([0.9, 0.6], {})) == pytest.approx(
        expit(logit([0.9, 0.6]) + expected), abs=1e-12
    )


def test_patches_follow_one_another_as_in_a_naive_loop() -> None:
    docs, _ = made(3, off=0.2)
    fitted = Multicalibrated().fit(*docs.fit_arguments("groups"))
    assert fitted.patches
    assert fitted.fields == ("doc.ward", "doc.language")
    values = {name: [field.values[code] for code in field.codes] for name, field in docs.fields.items()}
    expected = []
    for i, confidence in enumerate(docs.forecasts.confidence.tolist()):
        c = confidence
        for group, low, high, shift in fitted.patches:
            inside = low <= c < high or (high == 1 and c == 1)
            if inside and all(values[name][i] == value for name, value in group):
                c = float(expit(logit(c) + shift))
        expected.append(c)
    assert fitted.predict_proba(Grouped(docs.forecasts.confidence, docs.fields)) == pytest.approx(expected, abs=1e-12)


def test_all_right_and_few_docs() -> None:
    fitted = Multicalibrated().fit(Grouped(np.full(200, 0.5), {"f": Field.of(["a", "b"] * 100)}), np.ones(200))
    after = fitted.predict_proba(Grouped(np.full(2, 0.5), {"f": Field.of(["a", "c"])}))
    assert np.all((after > 0.98) & (after < 1))
    assert Multicalibrated.identity().predict_proba(Grouped([0.2, 1.0], {})).tolist() == [0.2, 1.0]


def test_saved_and_read_again() -> None:
    docs, _ = made(1, off=0.2)
    fitted = MapByGroup.fit("multicalibrated", docs)
    others, _ = made(2, off=0.2)
    again = MapByGroup.from_dict(json.loads(json.dumps(fitted.to_dict())))
    assert np.array_equal(fitted.forecasts(others).confidence, again.forecasts(others).confidence)
    with pytest.raises(ValueError, match=r"the map needs doc\.ward"):
        again.forecasts(others.with_fields({}))


def recalibrate(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["recalibrate", *map(str, arguments)])


def test_the_command_fits_saves_and_applies(tmp_path: Path) -> None:
    tasks = {"anatomy_calibration": 400, "law_calibration": 300}
    run = write_run(tmp_path / "run", tasks=tasks, sharpness=3.0, passages=3)
    fitted = recalibrate(run, "--method", "multicalibrated", "--output", tmp_path / "map.json")
    assert fitted.exit_code == 0, fitted.output
    assert "multicalibrated: 700 docs in 5 folds" in fitted.stdout
    assert "largest error of " in fitted.stdout
    assert "task = anatomy_calibration, doc.passage = 1" in fitted.stdout
    new = write_run(tmp_path / "new", tasks=tasks, sharpness=3.0, passages=3, docs=5)
    applied = recalibrate(new, "--apply", tmp_path / "map.json")
    assert applied.exit_code == 0, applied.output
    assert re.search(r"^ece +\t", applied.stdout, re.MULTILINE)
    one = recalibrate(run, "--method", "multicalibrated", "--groups", "doc.passage", "--fit_on", "task=law_calibration")
    assert one.exit_code == 0, one.output
    assert "tested on 400 others" in one.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "platt", "--groups", "task"], "--groups is for --method multicalibrated"),
        (["--method", "multicalibrated", "--by", "task"], "name them by --groups, not --by"),
        (["--method", "multicalibrated"], "no field of the docs makes groups: doc.question: more than 100 values"),
        (["--method", "multicalibrated", "--groups", "doc.ward"], "--groups doc.ward: no doc has it"),
    ],
)
def test_bad_input_is_named(tmp_path: Path, arguments: list[str], message: str) -> None:
    run = write_run(tmp_path / "run", tasks={"law_calibration": 120})
    result = recalibrate(run, *arguments)
    assert result.exit_code == 2
    assert message in result.output
