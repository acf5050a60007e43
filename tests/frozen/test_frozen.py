"""Every kind of run and every command gives what it gave when it was frozen.

``LM_EVAL_CALIBRATION_FREEZE=1 pytest tests/frozen`` writes the snapshots anew. ``LM_EVAL_CALIBRATION_FROZEN_EXACT=1``
demands 1e-12 of torch models too, as the machine that froze them gives it.

Only the command, ``load_run``, ``calibrated``, the classes of ``lm_eval_calibration.tasks`` and files are touched, so
the same tests run on any inner structure. The fixed runs in ``runs/`` were written once by ``tests/made_runs.py`` and
``tests/logged_runs.py`` (``grid`` and ``corpus`` by the tiny model).
"""

import contextlib
import json
import os
import re
from functools import cache, partial
from typing import Any

import frozen.frozen_models  # noqa: F401  (fills the table of cases)
import pytest
from frozen import frozen_commands
from frozen.frozen_files import CASES, FREEZE, PACKAGE, differences, logged, read, unpack_runs, without_figures, write

pytestmark = pytest.mark.filterwarnings("ignore")

for package in ("aiohttp", "betacal", "jinja2", "matplotlib", "rapidfuzz", "relplot"):
    pytest.importorskip(package, reason="the snapshots were made with all extras for tests")


SLOW = {
    *("two_ranks", "report", "compare", "drift", "export", "evidence", "confidences", "recalibrate", "tasks"),
    *("completions_servers", "loaded_runs", "every_shape_of_a_users_task", "code_and_open_answers"),
}
"""Commands that draw pictures or resample, two processes, the largest runs. The rooms' own tests of them are fast."""

NAMES = [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in CASES]


@pytest.fixture(scope="session")
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, gpt2_lm: Any, t5_lm: Any
) -> frozen_commands.Place:
    folder = tmp_path_factory.mktemp("frozen")
    unpack_runs(folder / "runs")
    return frozen_commands.Place(folder, gpt2_lm, t5_lm, partial(request.getfixturevalue, "python"))


@pytest.fixture(scope="session")
def run(place: frozen_commands.Place) -> Any:
    """Function that runs a case, once."""

    @cache
    def of(name: str) -> dict[str, Any]:
        with contextlib.chdir(place.folder / "runs"), pytest.MonkeyPatch.context() as patch:
            for key, value in {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}.items():
                patch.setitem(os.environ, key, value)
            patch.setattr("datasets.config.HF_DATASETS_CACHE", place.folder / "cache")
            for lm in (place.gpt2, place.t5):
                patch.setattr(lm, "batch_size_per_gpu", 3)
            with logged() as log:
                found = CASES[name].run(place)
            found["texts"]["log"] = [re.sub(r"127\.0\.0\.1:\d+", "<server>", line) for line in log]
        text = json.dumps(found, ensure_ascii=False).replace(str(place.folder), "<folder>")
        text = text.replace(str(PACKAGE.parent), "<package>")
        found = json.loads(text)
        if FREEZE:
            write(name, found)
        return found

    return of


@pytest.mark.parametrize("name", NAMES)
def test_numbers_are_as_they_were(name: str, run: Any) -> None:
    found = list(differences(run(name)["numbers"], read(name)["numbers"], CASES[name]))
    assert not found, f"{len(found)} differences\n" + "\n".join(found[:20])


@pytest.mark.parametrize("name", NAMES)
def test_texts_are_as_they_were(name: str, run: Any) -> None:
    found, frozen = run(name)["texts"], read(name)["texts"]
    if CASES[name].is_rough:
        assert without_figures(found).splitlines() == without_figures(frozen).splitlines()
    else:
        assert found == frozen
