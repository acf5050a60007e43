"""The page in a real browser: no errors, no sideways scrolling, and what axe looks for."""

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from logged_runs import make_lines, write_run
from typer.testing import CliRunner

from lm_eval_calibration.cli import app

pytest.importorskip("jinja2", reason="reports need jinja2 (extra `report`)")

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--enable-logging=stderr", "--virtual-time-budget=60000"),
)

LOOK = """
const widths = [360, 1024, 1600], found = {};
async function look() {
  for (const width of widths) {
    const frame = document.createElement("iframe");
    frame.width = width; frame.height = 900; frame.srcdoc = document.getElementById("page").textContent;
    await new Promise(loaded => { frame.onload = loaded; document.body.append(frame); });
    const inside = frame.contentDocument, root = inside.documentElement;
    const cut = [...inside.querySelectorAll("svg text")].filter(text => {
      const box = text.getBoundingClientRect(), picture = text.ownerSVGElement.getBoundingClientRect();
      return box.left < picture.left - 1 || box.right > picture.right + 1 || box.bottom > picture.bottom + 1;
    }).map(text => text.textContent);
    const script = inside.createElement("script");
    script.textContent = document.getElementById("axe").textContent; root.append(script);
    const axe = await frame.contentWindow.axe.run(inside);
    found[width] = {
      scroll: root.scrollWidth, cut, charts: inside.querySelectorAll("svg").length,
      violations: axe.violations.map(v => [v.id, v.nodes.length, v.nodes[0].html]), passes: axe.passes.length,
    };
    frame.remove();
  }
  document.title = "done";
  document.getElementById("result").textContent = JSON.stringify(found);
}
look().catch(error => { console.error(error); });
"""


@pytest.fixture(scope="module")
def browser() -> str:
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        pytest.skip("no chromium (set CHROMIUM)")
    return found


@pytest.fixture(scope="module")
def axe() -> str:
    places = [
        os.environ.get("AXE", ""),
        "node_modules/axe-core/axe.min.js",
        "/usr/share/javascript/axe-core/axe.min.js",
    ]
    found = next((Path(place) for place in places if place and Path(place).is_file()), None)
    if not found:
        pytest.skip("no axe.min.js (npm install axe-core, or set AXE)")
    return found.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_sound_in_a_browser(browser: str, axe: str, scheme: str, tmp_path: Path) -> None:
    names = ("mmlu_high_school_government_and_politics_calibration", "mmlu_law_calibration")
    folder = write_run(
        tmp_path / "run", {name: make_lines(name, n=40, text="<script>alert(1)</script>") for name in names}
    )
    page = tmp_path / "report.html"
    assert CliRunner().invoke(app, ["report", str(folder), "--output", str(page)]).exit_code == 0
    around = (
        f'<!doctype html><html lang="en"><title>x</title><body><pre id="result"></pre>'
        f'<script type="text/plain" id="page">{_in_a_script(page.read_text(encoding="utf-8"))}</script>'
        f'<script type="text/plain" id="axe">{_in_a_script(axe)}</script>'
        f"<script>{_RESTORE}{LOOK}</script></body></html>"
    )
    (tmp_path / "around.html").write_text(around, encoding="utf-8")
    done = subprocess.run(
        [
            *(browser, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"),
            *(["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []),
            (tmp_path / "around.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not said
    result = re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.DOTALL)
    found = json.loads(html.unescape(result.group(1)))
    assert set(found) == {"360", "1024", "1600"}
    for width, looked in found.items():
        assert looked["scroll"] <= int(width)
        assert looked["cut"] == []
        assert looked["charts"] == 10
        assert looked["violations"] == []
        assert looked["passes"] > 20


_RESTORE = """
for (const id of ["page", "axe"]) {
  const holder = document.getElementById(id);
  holder.textContent = holder.textContent.replaceAll("\\u0001", "<");
}
"""


def _in_a_script(text: str) -> str:
    """Text that ends no script element; ``_RESTORE`` makes it itself again."""
    return text.replace("<", "\x01")
