"""The one kind of exception that a user is meant to see."""

from __future__ import annotations


class UserError(Exception):
    """Bad input or a missing tool. The message is one sentence: what, where, what to do.

    Entry points print it without a traceback and exit with status 2.
    """
