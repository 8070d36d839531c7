"""The exceptions that a user is meant to see."""

from __future__ import annotations


class UserError(Exception):
    """Bad input or a missing tool. The message is one sentence: what, where, what to do.

    Entry points print it without a traceback and exit with status 2.
    """


class EngineTooSmall(UserError):
    """A layer or a memory of a model that an engine does not hold, and another one may."""


class StoreFull(EngineTooSmall):
    """More tensors that are alive at once than the activation store holds: some of them may lie
    in DDR.
    """
