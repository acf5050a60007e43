"""What is served: the list of the runs that folders hold at the moment, and the report of each."""

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.reports.compare.together import together
from lm_eval_calibration.reports.listing import Listed, listed
from lm_eval_calibration.reports.page import render_page
from lm_eval_calibration.reports.report.content import make_report
from lm_eval_calibration.reports.report.formats import to_html
from lm_eval_calibration.reports.runs import read_runs
from lm_eval_calibration.results import Selection, Source, find_sources, load_run
from lm_eval_calibration.results.loading import find_run
from lm_eval_calibration.results.selection import when


class Pages:
    """Pages of the runs in some folders; a report is made when it is first looked at, and again when its files change.

    Args:
        folders: searched at any depth whenever a page is wanted.
        select: which of their runs.
        redact: without texts of docs.
    """

    def __init__(self, folders: Sequence[Path], select: Selection, *, redact: bool = False) -> None:
        self._folders, self._select, self._redact = folders, select, redact
        self._made: dict[str, tuple[str, str]] = {}
        self._lock = threading.Lock()

    def runs(self) -> dict[str, tuple[Listed, Source]]:
        """The runs there are now, the latest first, by a name that stays the same while the server runs."""
        try:
            sources = self._select.of(find_sources(self._folders).sources)
        except UserError:  # nothing yet
            return {}
        found = [(listed(source), source) for source in sorted(sources, key=when, reverse=True)]
        return {hashlib.sha256(one.path.encode()).hexdigest()[:12]: (one, source) for one, source in found}

    def state(self, *names: str) -> str:
        """Something that changes whenever a file of a run does: of those of these names, or of any."""
        return _digest([_state(source) for key, (_, source) in self.runs().items() if not names or key in names])

    def index(self) -> str:
        """The page that lists the runs and follows what is added."""
        return render_page(
            Path(__file__).with_name("index.html"),
            title="Runs",
            runs={name: one for name, (one, _) in self.runs().items()},
            folders=[str(folder) for folder in self._folders],
            state=self.state(),
        )

    def report(self, *names: str) -> str | None:
        """The report of a run, or of several side by side; None where there is none of one of these names."""
        runs = self.runs()
        if not set(names) <= runs.keys():
            return None
        key, state = ",".join(names), self.state(*names)
        with self._lock:  # two readers of a page don't make it twice
            if self._made.get(key, ("", ""))[0] != state:
                follow = render_page(Path(__file__).with_name("follow.html"), name=key, state=state)
                page = self._make([runs[name][0] for name in names])
                self._made[key] = (state, page.replace("<main>", f"<main>\n{follow}", 1))
            return self._made[key][1]

    def _make(self, listed: Sequence[Listed]) -> str:
        paths = [Path(one.path) for one in listed]
        try:
            if len(paths) > 1:
                found = [find_run(path, select=self._select) for path in paths]
                return str(together(read_runs([""] * len(found), found, None), "html", redact=self._redact))
            run = load_run(*paths, select=self._select)
            return to_html(make_report(run, redact=self._redact, explorable=True))
        except UserError as error:
            page = Path(__file__).with_name("failed.html")
            return render_page(page, title="No report", runs=listed, reason=str(error))


def _state(source: Source) -> str:
    files = [*source.samples.values(), *([source.results_file] if source.results_file else [])]
    parts = []
    for file in map(Path, files):
        try:
            found = file.stat()
            parts.append(f"{file} {found.st_mtime_ns} {found.st_size}")
        except OSError:  # gone since
            parts.append(f"{file} gone")
    return _digest(parts)


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()[:16]
