"""Errors and Ctrl-C as one sentence with exit status 2: what all commands share."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gen.errors import UserError


def guarded(main: Callable[[], int | None], interrupted: str) -> int:
    """Run a command; print errors that a user is meant to see as one sentence.

    Returns:
        Exit status: the command's own, or 2 after an error or Ctrl-C.
    """
    try:
        return main() or 0
    except UserError as error:
        message = str(error)
    except KeyboardInterrupt:
        message = interrupted
    except BrokenPipeError:
        # whoever read the output has seen enough; nothing is left to flush at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        where = f"{error.filename}: " if error.filename else ""
        message = f"{where}{os.strerror(error.errno)}; what was finished is kept"
    print(f"error: {message}", file=sys.stderr)
    return 2


@contextmanager
def importing(stopped: str) -> Iterator[None]:
    """Libraries are imported: Ctrl-C ends the process at once, with a sentence and status 2.

    Raised in the middle of an import, KeyboardInterrupt may be swallowed there and come out as
    another exception.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        print(f"error: {stopped}", file=sys.stderr, flush=True)
        os._exit(2)

    previous = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
