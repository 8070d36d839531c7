"""Errors as one sentence with exit status 2: what all commands share."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable

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
