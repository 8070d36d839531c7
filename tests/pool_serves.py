"""What workers of the pool's tests do. ``options`` is a folder for notes between processes."""

from __future__ import annotations

import os
import signal
import time

from gen.errors import UserError
from host.faults import CardFault, CardUnusable


def starts(folder, device) -> int:
    """How often a card's process was started before, counting this start."""
    note = folder / f"starts.{device}"
    count = len(note.read_text()) if note.exists() else 0
    note.write_text("x" * (count + 1))
    return count


def draw(link, device, folder, before=lambda job: None):
    link.tell("ready", f"address {device}", 222.0)
    for job in link.jobs():
        for step in range(1, 4):
            before((job, step))
            link.tell("step", step, step)
        (folder / f"done.{job.number}").write_text(str(device))
        link.tell("done")


def good(link, device, folder):
    draw(link, device, folder)


def flaky(link, device, folder):
    """The first process of a card fails in the second step of its first picture."""
    first = starts(folder, device) == 0

    def before(at):
        if first and at[1] == 2:
            raise CardFault(f"card {device}: kernel store did not finish")

    draw(link, device, folder, before)


def dying(link, device, folder):
    """The first process of a card is killed by the driver."""
    first = starts(folder, device) == 0

    def before(at):
        if first and at[1] == 2:
            os.kill(os.getpid(), signal.SIGBUS)

    draw(link, device, folder, before)


def hanging(link, device, folder):
    """The first process of a card stops saying anything."""
    first = starts(folder, device) == 0

    def before(at):
        if first and at[1] == 2:
            time.sleep(60)

    draw(link, device, folder, before)


def first_card_is_missing(link, device, folder):
    """The other one begins when the pool has ended the process of the first."""
    missing = folder / "missing"
    if device == 0:
        (folder / "writing").write_text(str(os.getpid()))
        (folder / "writing").rename(missing)
        raise CardUnusable("there is no card 0")
    while not missing.exists() or _runs(int(missing.read_text())):
        time.sleep(0.01)
    draw(link, device, folder)


def _runs(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def first_card_is_lost(link, device, folder):
    """Card 0 is lost in the middle of a picture and cannot be opened again; the other is slow."""
    lost = folder / "lost"
    if device == 0 and lost.exists():
        raise CardUnusable("there is no card 0")
    while device != 0 and not lost.exists():
        time.sleep(0.01)

    def before(at):
        if device == 0 and at[1] == 2:
            lost.touch()
            raise CardFault("card 0: No such device")

    draw(link, device, folder, before)


def broken(link, device, folder):
    """Never passes its self-test."""
    starts(folder, device)
    raise CardFault(f"card {device} computes wrongly")


def mistaken(link, device, folder):
    raise UserError("model.json: not a model; name another")
