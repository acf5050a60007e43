"""The server of pages: whoever knows the token sees the folder's runs as they are now, all others see nothing."""

import json
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from logged_runs import make_lines, write_run

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.reports.view.pages import Pages
from lm_eval_calibration.reports.view.server import make_server
from lm_eval_calibration.results import Selection

pytest.importorskip("jinja2", reason="pages need jinja2 (extra `report`)")


class Site:
    def __init__(self, folder: Path, *, redact: bool = False, task: str | None = None) -> None:
        self.server, self.address = make_server(Pages([folder], Selection(task=task), redact=redact), 0)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def get(self, where: str = "", *, host: str | None = None, token: str | None = None) -> tuple[int, str]:
        parts = urlsplit(self.address)
        connection = HTTPConnection("127.0.0.1", parts.port, timeout=120)
        path = parts.path if token is None else f"/{token}/"
        connection.request("GET", path + where, headers={"Host": host} if host else {})
        reply = connection.getresponse()
        assert reply.getheader("Cache-Control") == "no-store"
        return reply.status, reply.read().decode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


@pytest.fixture
def site(folder: Path) -> Iterator[Site]:
    made = Site(folder)
    yield made
    made.close()


def names_in(page: str) -> list[str]:
    return [part.split('"')[0] for part in page.split('href="run/')[1:]]


def test_a_run_appears_when_it_is_logged(site: Site, folder: Path) -> None:
    status, page = site.get()
    assert (status, "No run yet" in page) == (200, True)
    before = site.get("state")
    write_run(folder / "a", {"law_calibration": make_lines("law_calibration", n=40)}, model="org/a")
    assert site.get("state") != before
    (name,) = names_in(site.get()[1])
    status, report = site.get(f"run/{name}")
    assert status == 200
    assert "Can the confidence of org/a be trusted?" in report
    assert site.get(f"run/{name}") == (200, report)
    write_run(folder / "b", {"law_calibration": make_lines("law_calibration", n=40, seed=1)}, model="org/b")
    assert len(names_in(site.get()[1])) == 2


def test_a_run_that_can_not_be_read_says_why(site: Site, folder: Path) -> None:
    lines = make_lines("law_calibration", n=10)
    lines[3]["calibration"] = {**lines[3]["calibration"], "version": 99}
    write_run(folder / "a", {"law_calibration": lines})
    (name,) = names_in(site.get()[1])
    status, page = site.get(f"run/{name}")
    assert status == 200
    assert "99" in page


@pytest.mark.parametrize("where", ["", "state", "run/x"])
def test_without_the_token_nothing_is_served(site: Site, where: str) -> None:
    for token in ("", "x", "..", "%2e%2e"):
        assert site.get(where, token=token)[0] == 403


def test_a_page_elsewhere_that_points_here_gets_nothing(site: Site) -> None:
    assert site.get(host="evil.example:80")[0] == 403
    assert site.get(host="localhost:80")[0] == 200


@pytest.mark.parametrize("where", ["run/", "run/none", "nothing", "run/../../etc/passwd"])
def test_what_is_not_there_is_not_found(site: Site, where: str) -> None:
    assert site.get(where)[0] == 404


def test_a_redacted_view_holds_no_text(folder: Path) -> None:
    write_run(folder, {"law_calibration": make_lines("law_calibration", n=40, text="planted")})
    site = Site(folder, redact=True)
    (name,) = names_in(site.get()[1])
    assert "planted" not in json.dumps(site.get(f"run/{name}"))
    site.close()


def test_a_report_is_of_the_tasks_that_were_chosen(folder: Path) -> None:
    names = ("law_calibration", "art_calibration")
    write_run(folder, {name: make_lines(name, n=40) for name in names})
    site = Site(folder, task="art")
    (name,) = names_in(site.get()[1])
    assert "40 questions of 1 task." in site.get(f"run/{name}")[1]
    site.close()


def test_a_port_that_is_taken_is_named(site: Site) -> None:
    port = urlsplit(site.address).port
    assert port is not None
    with pytest.raises(UserError, match=f"--port {port} can't be had"):
        make_server(site.server.RequestHandlerClass.pages, port)  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="--port 99999 can't be had"):
        make_server(site.server.RequestHandlerClass.pages, 99999)  # type: ignore[attr-defined]


def test_a_report_follows_its_run(folder: Path, browser: Any) -> None:
    lines = make_lines("law_calibration", n=60)
    write_run(folder / "a", {"law_calibration": lines[:40]}, model="org/a")
    for results in folder.rglob("results_*.json"):
        results.unlink()  # which a run that goes on has not yet
    site = Site(folder)
    try:
        (name,) = names_in(site.get()[1])
        page = browser.new_page()
        page.goto(f"{site.address}run/{name}#explore?outcome=wrong")
        page.wait_for_selector("html[data-explorer=ready]", timeout=60_000)
        assert "of 40 questions" in page.inner_text("#explorer-count")
        (samples,) = folder.rglob("samples_*.jsonl")
        with samples.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines[40:])
        page.wait_for_function("document.body.innerText.includes('of 60 questions')", timeout=60_000)
        assert page.url.endswith("#explore?outcome=wrong")
        page.click("text=All runs")
        assert "1 run in" in page.inner_text("h1")
    finally:
        site.close()


def test_runs_are_shown_side_by_side(site: Site, folder: Path) -> None:
    for seed, name in enumerate("ab"):
        lines = make_lines("law_calibration", n=60, seed=seed)
        write_run(folder / name, {"law_calibration": lines}, model=f"org/{name}")
    status, page = site.get()
    names = names_in(page)
    assert page.count('type="checkbox" name="run"') == len(names) == 2
    status, report = site.get(f"runs/side?run={names[0]}&run={names[1]}")
    assert status == 200
    assert "2 runs compared" in report
    assert "Reliability: Law" in report
    for query in ("", f"?run={names[0]}", f"?run={names[0]}&run=nobody"):
        assert site.get(f"runs/side{query}")[0] == 404
    before = site.get(f"state/{','.join(names)}")
    next(folder.rglob("samples_*.jsonl")).touch()
    assert site.get(f"state/{','.join(names)}") != before
