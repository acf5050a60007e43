"""Our metrics and pictures in Trackio, through the harness's own logger, offline."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from lm_eval_calibration.metrics import CORE

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

with styled_figure() as (figure, (axes,)), open("picture.png", "wb") as file:
    axes.plot([0, 1], [0, 1])
    file.write(save(figure, "png", label=""))
trackio.log({"trade-off": trackio.Image("picture.png")})
logger.finish()
"""


@pytest.mark.slow
def test_trackio_gets_metrics_and_pictures(tmp_path: Path) -> None:
    pytest.importorskip("trackio", reason="trackio is not installed")
    tests = Path(__file__).parents[2]
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path), "PYTHONPATH": f"{tests}{os.pathsep}{tests.parent}"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, env=environment, check=False, capture_output=True, text=True
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
