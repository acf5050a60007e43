"""Python programs in processes of their own, without the seconds in which each imports torch and the harness.

A server imports these once, and forks for every program that it is told to run: with the program's arguments, folder,
environment and open files, and to the program's own end. What libraries read of the environment when they are imported
(`HF_HOME`, `OMP_NUM_THREADS`, `PYTHONPATH`) is the server's; the tests' modules can be imported.

    python warm_python.py SOCKET [FILE | -m MODULE] ARGUMENT ...    runs a program, and ends as it ends
    python warm_python.py SOCKET --serve                            serves until nobody holds it, see `hold`
"""

import json
import os
import select
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

# --- who has programs run ---------------------------------------------------------------------------------------------


class Running:
    """A program that runs.

    Args:
        address: socket of the server.
        arguments: what would follow ``python``: a file, or -m and a module, and the program's own.
        cwd: the folder in which it runs.
        env: its whole environment.
        files: file descriptors that are its input, output and errors.
    """

    def __init__(self, address: str, arguments: list[str], *, cwd: str, env: dict[str, str], files: list[int]) -> None:
        connection = _connected(address)
        socket.send_fds(connection, [b"p"], files)
        program = {"arguments": arguments, "cwd": cwd, "env": env}
        connection.sendall(json.dumps(program).encode() + b"\n")
        self._connection = connection
        self.pid = self._reply()
        self.code: int | None = None

    def wait(self, timeout: float | None = None) -> int | None:
        """Return the exit code (negative: of a signal), or None where the program runs on after the timeout."""
        if self.code is None and select.select([self._connection], [], [], timeout)[0]:
            self.code = self._reply()
            self._connection.close()
        return self.code

    def _reply(self) -> int:
        return int.from_bytes(self._connection.recv(4, socket.MSG_WAITALL), signed=True)


def run(address: str, arguments: list[str]) -> None:
    """Run a program with what this process has, and end as it ends."""
    code = Running(address, arguments, cwd=str(Path.cwd()), env=dict(os.environ), files=[0, 1, 2]).wait()
    assert code is not None
    if code < 0:
        os.kill(os.getpid(), -code)
    sys.exit(code)


def hold(address: str) -> socket.socket:
    """Return what keeps the server there until it is closed; start the server where there is none."""
    server = None
    while True:
        with suppress(FileNotFoundError, ConnectionError):  # none there, or one that just ends
            connection = _connected(address)
            connection.sendall(b"h")
            if connection.recv(1):
                return connection
            connection.close()
        server = server or _start(address)
        assert os.waitpid(server, os.WNOHANG) == (0, 0), Path(f"{address}.log").read_text(encoding="utf-8")
        time.sleep(0.05)


def _start(address: str) -> int:
    """Start the server, which may outlive this process."""
    nothing = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
    log = (os.POSIX_SPAWN_OPEN, 1, f"{address}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    command, env = [sys.executable, __file__, address, "--serve"], {**os.environ, "HF_HOME": f"{address}_hf"}
    return os.posix_spawn(command[0], command, env, file_actions=[nothing, log, (os.POSIX_SPAWN_DUP2, 1, 2)])


def _connected(address: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(address)
    except OSError:
        connection.close()
        raise
    return connection


# --- the server -------------------------------------------------------------------------------------------------------


def import_everything() -> None:
    """Import all of ours, and what a run imports of the harness and its libraries when it is used."""
    import pkgutil
    from importlib import import_module

    import lm_eval_calibration

    ours = [module.name for module in pkgutil.walk_packages(lm_eval_calibration.__path__, "lm_eval_calibration.")]
    theirs = ("__main__", "evaluator", "models.dummy", "models.huggingface", "models.openai_completions")
    others = ("datasets.packaged_modules.json.json", "peft", "pytablewriter", "transformers.models.gpt2.modeling_gpt2")
    for name in (*ours, *(f"lm_eval.{name}" for name in theirs), *others):
        import_module(name)
    import_module("tiny")  # which spares runs a report of the machine: seconds


def next_program(address: str) -> dict[str, Any]:
    """Wait for programs; return each in a process of its own, which has its open files."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the processes that wait for programs
    Path(address).unlink(missing_ok=True)
    holds: list[socket.socket] = []
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        while True:
            for one in select.select([listening, *holds], [], [])[0]:
                if one is not listening:
                    holds.remove(one)
                    if not holds:
                        sys.exit()
                    continue
                connection, _ = listening.accept()
                what, files, *_ = socket.recv_fds(connection, 1, 3)
                if what == b"h":
                    connection.sendall(b"h")
                    holds.append(connection)
                elif os.fork() == 0:
                    return _forked(connection, files)
                else:
                    connection.close()
                    for file in files:
                        os.close(file)


def _forked(connection: socket.socket, files: list[int]) -> dict[str, Any]:
    """Return what to run, in a further process; tell how that one ends."""
    program: dict[str, Any] = json.loads(connection.makefile("rb").readline())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if (pid := os.fork()) == 0:
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        return program
    for file in files:
        os.close(file)
    connection.sendall(pid.to_bytes(4))
    _, status = os.waitpid(pid, 0)
    connection.sendall(os.waitstatus_to_exitcode(status).to_bytes(4, signed=True))
    os._exit(0)


def serve(address: str) -> None:
    """Run what is told, in processes of their own."""
    import gc
    import runpy

    from stock_index import built_once

    import_everything()
    gc.collect()
    gc.freeze()  # what is not looked through is not copied
    with built_once(Path(address).parent):
        program = next_program(address)
        os.chdir(program["cwd"])
        os.environ.clear()
        os.environ.update(program["env"])
        first, *rest = program["arguments"]
        if first == "-m":
            sys.path.insert(0, program["cwd"])
            sys.argv = rest
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            sys.path.insert(0, str(Path(first).resolve().parent))
            sys.argv = [first, *rest]
            runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    socket_, *arguments_ = sys.argv[1:]
    if arguments_ == ["--serve"]:
        serve(socket_)
    else:
        run(socket_, arguments_)
