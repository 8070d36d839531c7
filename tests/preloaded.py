"""Host commands in forks of a process that has the libraries imported, which takes most of the time
of a command that is started as a person starts it. Workers are forks, too.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Done:
    """End of a command."""

    returncode: int
    stdout: str
    stderr: str


class Preloaded:
    """The process that forks; a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Preloaded:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_) -> None:
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def run(self, module: str, arguments: list[str], environment: dict[str, str]) -> Done:
        """``python -m MODULE`` with arguments and variables besides those of this process."""
        files = [str(self._folder / name) for name in ("stdout", "stderr")]
        request = {
            "module": module,
            "arguments": arguments,
            "environment": environment,
            "files": files,
        }
        print(json.dumps(request), file=self._process.stdin, flush=True)
        status = int(self._process.stdout.readline())
        return Done(status, *(Path(file).read_text() for file in files))


def _fork_workers() -> None:
    import multiprocessing

    context = multiprocessing.get_context("fork")
    multiprocessing.get_context = lambda _=None: context


def _run(module: str, arguments: list[str], environment: dict[str, str], files: list[str]) -> int:
    """In the fork: the command's exit status."""
    for number, file in enumerate(files, 1):
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, number)
    os.environ.update(environment)
    _fork_workers()
    try:
        return importlib.import_module(module).main(arguments)
    except BaseException:
        traceback.print_exc()
        return 1


def _serve() -> None:
    import torch
    from diffusers import StableDiffusionPipeline  # noqa: F401

    import host.accelerator
    import host.pictures
    import host.sampling
    import host.unet  # noqa: F401

    torch.set_num_threads(1)
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            os.setsid()
            status = _run(**request)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    _serve()
