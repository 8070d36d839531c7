"""One process per card: work is handed out, a card that fails is reset or given up.

The binding holds Python's global lock while it waits for a card, and a driver may kill a process
or never return, so cards are driven by processes of their own and watched by one that touches none.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from gen.errors import UserError
from host.faults import CardFault
from host.pictures import Job

# resets of a card without a step in between, before it is given up
RESETS = 2
# seconds without a word after which a process is taken for hung
SILENCE_S = 900.0

Device = int | str
# runs in the worker: (device, next job, say)
Serve = Callable[["Link", Device, Any], None]


class Link:
    """The worker's end: what it is asked to do and what it tells."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def jobs(self) -> Any:
        """Jobs until there are no more."""
        while (job := self._connection.recv()) is not None:
            yield job

    def tell(self, kind: str, *values: object) -> None:
        """Send a message: ``ready`` (address, clock), ``step`` (drawn, computed) or ``done``."""
        self._connection.send((kind, *values))


def _worker(serve: Serve, connection: Connection, device: Device, options: Any) -> None:
    """Main function of a worker process; it ends without a word if nobody listens any more."""
    with contextlib.suppress(EOFError, ConnectionError):
        _serve(serve, Link(connection), device, options)


def _serve(serve: Serve, link: Link, device: Device, options: Any) -> None:
    try:
        serve(link, device, options)
    except ConnectionError:
        raise
    except CardFault as error:
        link.tell("fault", str(error), error.final)
    except UserError as error:
        link.tell("error", str(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        link.tell("error", f"{where}{error.strerror or error}; what was finished is kept")


@dataclass
class Worker:
    """A process and the card that it drives."""

    device: Device
    process: Any
    connection: Connection
    heard: float
    address: str = ""
    ready: bool = False
    job: Job | None = None
    failures: int = 0


@dataclass
class Events:
    """What the pool reports.

    ``ready(address, clock)``, ``progress(job, drawn)``, ``done(job)``; ``trouble(sentence)`` when a
    card is reset or given up; ``reset(address)`` resets a card for which a new process was not
    enough.
    """

    ready: Callable[[str, float], None]
    progress: Callable[[Job, int], None]
    done: Callable[[Job], None]
    trouble: Callable[[str], None]
    reset: Callable[[str], None]


class Pool:
    """Workers for some cards.

    Args:
        serve: what a worker process runs.
        options: handed to it.
        devices: one worker for each.
        events: reports.
        silence_s: after that many seconds without a word a process is replaced.
    """

    def __init__(
        self,
        serve: Serve,
        options: Any,
        devices: Sequence[Device],
        events: Events,
        silence_s: float = SILENCE_S,
    ) -> None:
        self._serve, self._options, self._devices = serve, options, list(devices)
        self._events, self._silence = events, silence_s
        self._workers: list[Worker] = []
        self._queue: deque[Job] = deque()
        self._reasons: list[str] = []

    def run(self, jobs: Sequence[Job]) -> None:
        """Have all jobs done.

        Raises:
            UserError: bad input, or no card is left.
        """
        self._queue = deque(jobs)
        left = len(jobs)
        try:
            self._workers = [self._start(device) for device in self._devices[: max(1, left)]]
            while left:
                left -= self._turn()
        finally:
            for worker in self._workers:
                self._end(worker)

    def _turn(self) -> int:
        """Hear what workers say, give them work; returns how many jobs were finished."""
        if not self._workers:
            raise UserError(f"no card is left ({'; '.join(dict.fromkeys(self._reasons))})")
        for worker in self._workers:
            if worker.ready and worker.job is None and self._queue:
                worker.job = self._queue.popleft()
                self._send(worker, worker.job)
        finished = 0
        by_connection = {worker.connection: worker for worker in self._workers}
        for connection in wait(list(by_connection), timeout=min(1.0, self._silence / 4)):
            worker = by_connection[connection]  # type: ignore[index]
            worker.heard = time.monotonic()
            try:
                message = worker.connection.recv()
            except (EOFError, OSError):
                worker.process.join(5)
                self._failed(worker, _ending(worker), final=False)
                continue
            finished += self._hear(worker, *message)
        for worker in list(self._workers):
            busy = worker.job is not None or not worker.ready
            if busy and time.monotonic() - worker.heard > self._silence:
                self._failed(
                    worker,
                    f"card {worker.device}: its process has not moved for {self._silence:g} s",
                    final=False,
                )
        return finished

    def _hear(self, worker: Worker, kind: str, *values: Any) -> int:
        events = self._events
        if kind == "ready":
            worker.ready, (worker.address, clock) = True, values
            events.ready(worker.address, clock)
        elif kind == "step" and worker.job is not None:
            drawn, computed = values
            if computed:
                worker.failures = 0
            events.progress(worker.job, drawn)
        elif kind == "done" and worker.job is not None:
            job, worker.job = worker.job, None
            events.done(job)
            return 1
        elif kind == "fault":
            self._failed(worker, *values)
        elif kind == "error":
            raise UserError(values[0])
        return 0

    def _failed(self, worker: Worker, why: str, final: bool) -> None:
        """Take a worker's job back; replace the process, or give its card up."""
        self._workers.remove(worker)
        self._end(worker)
        if worker.job is not None:
            self._queue.appendleft(worker.job)
        failures = worker.failures + 1
        if final or failures > RESETS:
            self._reasons.append(why)
            self._events.trouble(f"card {worker.device} is given up: {why}")
            return
        self._events.trouble(f"card {worker.device} is opened again: {why}")
        if failures == RESETS and worker.address:
            self._events.reset(worker.address)
        again = self._start(worker.device)
        again.failures, again.address = failures, worker.address
        self._workers.append(again)

    def _send(self, worker: Worker, job: Job) -> None:
        try:
            worker.connection.send(job)
        except OSError:
            return  # it has ended, which is heard next

    def _start(self, device: Device) -> Worker:
        ours, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        process = context.Process(
            target=_worker, args=(self._serve, theirs, device, self._options), daemon=True
        )
        # Ctrl-C is for this process, which ends the others: they inherit that it is ignored
        interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            process.start()
        finally:
            signal.signal(signal.SIGINT, interrupt)
        theirs.close()
        return Worker(device, process, ours, time.monotonic())

    def _end(self, worker: Worker) -> None:
        if worker.ready and worker.job is None:
            with contextlib.suppress(OSError):
                worker.connection.send(None)
            worker.process.join(5)
        worker.process.kill()
        worker.process.join()
        worker.connection.close()


def _ending(worker: Worker) -> str:
    """How a process ended that said nothing."""
    code = worker.process.exitcode
    if code is not None and code < 0:
        return f"card {worker.device}: its process was ended by {signal.Signals(-code).name}"
    return f"card {worker.device}: its process ended with status {code}"


def prepare_processes(workers: int) -> None:
    """Settings for the processes that are started from now on: processors are divided among the
    workers; a killed one leaves semaphores of a library to the system, which is not worth a word.
    """
    threads = max(1, (os.cpu_count() or 1) // workers)
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, str(threads))
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")
