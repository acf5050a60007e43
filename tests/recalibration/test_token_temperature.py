"""Token-level temperature: curves over the grid, the best T of other docs, the one way in which T changes accuracy."""

import json
from dataclasses import replace

import numpy as np
import pytest
from commands import cells
from typer.testing import CliRunner

from lm_eval_calibration import metrics
from lm_eval_calibration.cli import app
from lm_eval_calibration.recalibration import RecalibrationWarning, TokenGrid, TokenTemperature, cross_fit_tokens
from lm_eval_calibration.records import ChoicesRecord, Record, TokenTemperatures

GRID = tuple(12 / k for k in range(4, 25))
VOCABULARY = 50


def softmax(z):
    weights = np.exp(z - z.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def docs(n, *, said=2.0, n_tokens=(1, 1), seed=0, keep=None):
    """Records of docs whose logits are right but for being ``said`` times too large; choices of n_tokens tokens."""
    rng, records = np.random.default_rng(seed), []
    for i in range(n):
        choices = []
        for length in n_tokens:
            z = rng.normal(0, 1.5, (length, VOCABULARY))
            tokens = [int(rng.choice(VOCABULARY, p=p)) for p in softmax(z)]
            choices.append((said * z, tokens))
        gold = int(rng.integers(len(choices)))
        records.append(record(i, choices, gold))
        if keep is not None:
            keep.append((choices, gold))
    return records


def record(i, choices, gold, n_bins=10):
    at = [[softmax(z / t) for t in GRID] for z, _ in choices]
    log_likelihoods = [
        [float(np.log(p[np.arange(len(tokens)), tokens]).sum()) for p in probs]
        for probs, (_, tokens) in zip(at, choices, strict=True)
    ]
    tokens = np.array(choices[gold][1])
    gaps = [metrics.position_gap_sums(p, tokens, n_bins=n_bins).sum(axis=0).tolist() for p in at[gold]]
    plain = at[gold][8]
    return ChoicesRecord(
        task="t",
        doc_id=i,
        doc_hash=f"doc {i}",
        prompt_hash="p",
        log_likelihoods=tuple(row[8] for row in log_likelihoods),
        gold=gold,
        log_probs=tuple(np.log(plain[np.arange(len(tokens)), tokens]).tolist()),
        large_probs=tuple(tuple(p[p >= 0.05].tolist()) for p in plain),
        vocab_size=VOCABULARY,
        temperatures=TokenTemperatures(GRID, tuple(map(tuple, log_likelihoods)), n_bins, tuple(map(tuple, gaps))),
    )


def test_curves_are_those_of_all_tokens_at_each_temperature():
    drawn = []
    grid = TokenGrid.of(docs(30, n_tokens=(2, 3), keep=drawn))
    for index, temperature in enumerate(GRID):
        probs = np.concatenate([softmax(choices[gold][0] / temperature) for choices, gold in drawn])
        tokens = np.concatenate([choices[gold][1] for choices, gold in drawn])
        assert grid.full_ece()[index] == pytest.approx(metrics.full_ece(probs, tokens), abs=1e-12)
        assert grid.nll()[index] == pytest.approx(-np.log(probs[np.arange(len(tokens)), tokens]).mean(), abs=1e-12)
        right = 0
        for choices, gold in drawn:
            sums = [np.log(softmax(z / temperature)[np.arange(len(t)), t]).sum() for z, t in choices]
            right += int(np.argmax(sums)) == gold
        assert grid.acc()[index] == right / 30


@pytest.mark.slow
def test_the_temperature_that_was_made_is_found_and_judged_on_other_docs():
    grid = TokenGrid.of(docs(1500, said=2.0))
    assert TokenTemperature().fit(grid).temperature == pytest.approx(2.0, rel=0.2)
    crossed = cross_fit_tokens(grid)
    assert len(crossed.maps) == 5
    for k, fitted in crossed.maps.items():
        others = np.flatnonzero(metrics_fold(grid) != k)
        assert fitted.temperature == TokenTemperature().fit(grid.take(others)).temperature
    after = metrics.full_ece_from_gap_sums(grid.gap_sums[np.arange(1500), crossed.of_doc], grid.n_positions)
    assert after < grid.full_ece()[8] / 2
    assert grid.losses[np.arange(1500), crossed.of_doc].sum() < grid.losses[:, 8].sum()


def metrics_fold(grid):
    from lm_eval_calibration.recalibration import fold_of

    return fold_of(grid.doc_hashes)


def test_choices_of_one_token_of_one_context_keep_their_order_and_others_need_not():
    # One position, two choices: their log-likelihoods differ by (z_a - z_b) / T at every T.
    rng = np.random.default_rng(0)
    records = []
    for i in range(50):
        z = rng.normal(0, 3, (1, VOCABULARY))
        records.append(record(i, [(z, [3]), (z, [7])], i % 2))
    assert len(set(TokenGrid.of(records).acc())) == 1
    # A sure token and a surprising one against two middling ones: sharper, the sum of the first falls below.
    sure, middling = np.full((2, 4), -50.0), np.zeros((2, 4))
    sure[0, 0] = 0
    sure[1] = [0, 2.5, -50, -50]
    middling[:, 1:] = [-0.5, -0.5, -0.5]
    padded = [np.hstack([z, np.full((2, VOCABULARY - 4), -200.0)]) for z in (sure, middling)]
    crossing = TokenGrid.of([record(0, [(padded[0], [0, 0]), (padded[1], [0, 0])], 0)])
    assert set(crossing.acc()) == {0, 1}


def test_a_map_is_saved_and_read_and_needs_the_same_grid():
    fitted = TokenTemperature().fit(TokenGrid.of(docs(200)))
    again = TokenTemperature.from_dict(json.loads(json.dumps(fitted.to_dict())))
    assert again == fitted
    grid = TokenGrid.of(docs(10, seed=1))
    probs = again.predict_proba(grid)
    assert np.allclose([row.sum() for row in probs], 1)
    with pytest.raises(ValueError, match=r"temperature 1\.1 is not in the grid"):
        TokenTemperature(1.1).index(grid)


def test_what_the_grid_cannot_tell_is_said():
    with pytest.warns(RecalibrationWarning, match="at the end of the grid, 3, or beyond"):
        TokenTemperature().fit(TokenGrid.of(docs(100, said=9.0)))
    with pytest.raises(ValueError, match="t doc 3 was not scored at several temperatures"):
        TokenGrid.of(
            [ChoicesRecord(task="t", doc_id=3, doc_hash="d", prompt_hash="p", log_likelihoods=(-1.0, -2.0), gold=0)]
        )
    with pytest.raises(ValueError, match="no doc has a gold label"):
        TokenGrid.of([])


def test_a_record_keeps_its_temperatures_and_checks_them():
    (one,) = docs(1, n_tokens=(2, 1))
    assert Record.from_dict(json.loads(json.dumps(one.to_dict()))) == one
    never = TokenTemperatures((1.0,), ((-np.inf,),), 1, ((0.0,),))
    assert json.loads(json.dumps(never.to_dict()))["log_likelihoods"] == [[None]]
    assert TokenTemperatures.from_dict(never.to_dict()) == never
    with pytest.raises(ValueError, match="not of 2 temperatures"):
        TokenTemperatures((1.0, 2.0), ((-1.0,),), 1, ((0.0,), (0.0,)))
    with pytest.raises(ValueError, match="not of 3 bins"):
        TokenTemperatures((1.0,), ((-1.0,),), 3, ((0.0,),))


def write(folder, records):
    folder.mkdir(parents=True)
    text = "".join(json.dumps({"doc_id": r.doc_id, "calibration": r.to_dict()}) + "\n" for r in records)
    (folder / "samples_t_2026-01-01.jsonl").write_text(text, encoding="utf-8")
    return folder


def command(*arguments):
    result = CliRunner().invoke(app, ["recalibrate", *map(str, arguments)])
    return result, {(row := cells(line))[0]: row for line in result.stdout.splitlines() if "\t" in line}


@pytest.mark.slow
def test_the_command_fits_saves_and_applies_it(tmp_path):
    records, others = docs(60, n_tokens=(1, 2, 2)), docs(150, n_tokens=(1, 2, 2), seed=1)
    fitted_on = write(tmp_path / "fit", [replace(r, doc_hash=f"fit {r.doc_id}") for r in records])
    judged = write(tmp_path / "judge", others)
    saved = tmp_path / "map.json"
    result, rows = command(fitted_on, "--method", "token_temperature", "--output", saved)
    assert result.exit_code == 0, result.output
    temperature = json.loads(saved.read_text())["map"]["maps"][""]["temperature"]
    assert 1.5 < temperature <= 3
    assert f"temperature of all docs: {temperature:g}" in result.stdout
    result, rows = command("--apply", saved, judged)
    assert result.exit_code == 0, result.output
    grid = TokenGrid.of(others)
    index, one = TokenTemperature(temperature).index(grid), GRID.index(1.0)
    for name, curve in (("acc", grid.acc()), ("full_ece", grid.full_ece())):
        assert rows[name][1:3] == [f"{curve[one]:.4f}", f"{curve[index]:.4f}"]
    assert f"of a gold token: {grid.nll()[one]:.4f} before, {grid.nll()[index]:.4f} after" in result.stdout
    assert rows["full_ece"][-1] == "better"
    assert command("--apply", saved, fitted_on)[0].exit_code == 2


@pytest.mark.parametrize(
    ("records", "options", "message"),
    [
        (docs(3), ("--by", "task"), "--method token_temperature is one temperature"),
        ([replace(r, temperatures=None) for r in docs(3)], (), "run it with the option temperatures: true"),
    ],
)
def test_the_command_says_what_is_missing(records, options, message, tmp_path):
    result, _ = command(write(tmp_path / "run", records), "--method", "token_temperature", *options)
    assert result.exit_code == 2
    assert message in result.stderr
