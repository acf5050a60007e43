"""Our metrics and pictures in Trackio, through the harness's own logger, offline."""

import json
import math
import os
import sqlite3
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.harness.loggers import logging_more
from lm_eval_calibration.metrics import CORE
from lm_eval_calibration.records import RECORD_KEY, ChoicesRecord
from lm_eval_calibration.reports.tracked import tracked

SCRIPT = """
import sys
from lm_eval.loggers.trackio_logger import TrackioLogger
from lm_eval.models.huggingface import HFLM
from tiny import make_gpt2, make_tokenizer, run_tasks
from lm_eval_calibration.demo.quiz import quiz_group
from lm_eval_calibration.plots.style import save, styled_figure

tokenizer = make_tokenizer()
lm = HFLM(pretrained=make_gpt2(tokenizer), tokenizer=tokenizer, backend="causal", device="cpu", batch_size=8)
results = run_tasks(lm, [quiz_group()], limit=6, log_samples=True, bootstrap_iters=1)
samples = results.pop("samples")
logger = TrackioLogger({"project": "calibration", "name": "tiny"})
logger.post_init(results)
logger.log_eval_result()
logger.log_eval_samples(samples)

import trackio

with styled_figure(3, 3) as (figure, (axes,)), open("picture.png", "wb") as file:
    axes.plot([0, 1], [0, 1])
    file.write(save(figure, "png", label=""))
trackio.log({"trade-off": trackio.Image("picture.png")})
logger.finish()
"""


@pytest.mark.slow
def test_trackio_gets_metrics_and_pictures(tmp_path: Path, python: list[str]) -> None:
    pytest.importorskip("trackio", reason="trackio is not installed")
    (script := tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path)}
    done = subprocess.run(
        [*python, str(script)], cwd=tmp_path, env=environment, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    with sqlite3.connect(next(tmp_path.glob("*.db"))) as database:
        rows = [json.loads(row) for (row,) in database.execute("select metrics from metrics order by step")]
    database.close()
    logged = rows[0]
    for name in ("acc", *CORE):
        assert isinstance(logged[f"quiz_calibration/{name}"], float | int)
    assert logged["quiz_calibration/ece_stderr"] > 0
    assert "trade-off" in rows[-1]
    assert list(tmp_path.glob("media/**/*.png"))


@pytest.mark.slow
def test_run_gives_trackio_a_table_and_pictures_by_itself(tmp_path: Path, python: list[str]) -> None:
    pytest.importorskip("trackio", reason="trackio is not installed")
    questions = [f"Which number is {i}?,{i},{i + 1},A" for i in range(12)]
    (tmp_path / "q.csv").write_text("\n".join(["question,a,b,answer", *questions]), encoding="utf-8")
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio")}
    run = [*python, "-m", "lm_eval_calibration", "run", "--csv", "q.csv", "--model", "dummy"]
    done = subprocess.run(
        [*run, "--trackio_args", "project=p"],
        cwd=tmp_path,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    with sqlite3.connect(next((tmp_path / "trackio").glob("*.db"))) as database:
        rows = [json.loads(row) for (row,) in database.execute("select metrics from metrics order by step")]
    database.close()
    logged = {key: value for row in rows for key, value in row.items()}
    assert {"calibration/metrics", "calibration/reliability", "calibration/risk_coverage"} <= set(logged)
    assert len(list((tmp_path / "trackio").glob("media/**/*.png"))) == 2


def test_a_tracker_gets_what_the_docs_have() -> None:
    docs = [
        ChoicesRecord(
            task="t",
            doc_id=i,
            doc_hash="",
            prompt_hash="",
            log_likelihoods=(math.log(0.7), math.log(0.3)),
            gold=int(i % 4 == 0),
        ).to_dict()
        for i in range(20)
    ]
    samples = {"t": [{RECORD_KEY: record} for record in docs for _ in range(2)], "stock": [{"doc_id": 0}]}
    found = tracked(samples, {"configs": {"t": {"metadata": {"calibration": {"n_bins": 5}}}, "stock": {}}})
    assert list(found) == ["calibration/metrics", "calibration/reliability", "calibration/risk_coverage"]
    table = found["calibration/metrics"].set_index("metric")
    assert table.loc["ece", "value"] == pytest.approx(abs(0.75 - 0.7))
    assert table.loc["ece", "docs"] == 20
    assert "full_ece" not in table.index
    assert all(found[f"calibration/{name}"].startswith(b"\x89PNG") for name in ("reliability", "risk_coverage"))
    assert tracked({"stock": [{"doc_id": 0}]}, {}) == {}


def test_both_loggers_log_more_within_and_only_there(harness_log: pytest.LogCaptureFixture) -> None:
    from lm_eval.loggers import TrackioLogger, WandbLogger

    before = WandbLogger.log_eval_samples, TrackioLogger.log_eval_samples

    def fail(*_: object) -> dict[str, object]:
        raise UserError("figures need matplotlib")

    logger = SimpleNamespace(results={}, task_names=[], task_configs={}, group_names=[], step=None)
    with logging_more(fail):
        assert WandbLogger.log_eval_samples is not before[0]
        TrackioLogger.log_eval_samples(logger, {})
    assert (WandbLogger.log_eval_samples, TrackioLogger.log_eval_samples) == before
    assert "no pictures in trackio: figures need matplotlib" in harness_log.text
