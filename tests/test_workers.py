"""Handing out work to one process per card, whatever becomes of the cards."""

from __future__ import annotations

from collections import Counter

import pool_serves
import pytest

from gen.errors import UserError
from host.pictures import Job
from host.workers import RESETS, Events, Pool

JOBS = [Job(number, f"prompt {number}", number) for number in range(1, 6)]


class Watch:
    def __init__(self):
        self.done, self.troubles, self.resets, self.ready = [], [], [], []
        self.progress = Counter()

    def events(self):
        return Events(
            lambda address, clock: self.ready.append((address, clock)),
            lambda job, drawn: self.progress.update([(job.number, drawn)]),
            lambda job: self.done.append(job.number),
            self.troubles.append,
            self.resets.append,
        )


@pytest.fixture
def watch():
    return Watch()


def run(serve, folder, watch, devices=(0,), jobs=JOBS, **options):
    Pool(getattr(pool_serves, serve), folder, devices, watch.events(), **options).run(jobs)
    assert sorted(watch.done) == sorted(job.number for job in jobs)
    return Counter((folder / f"done.{job.number}").read_text() for job in jobs)


def test_every_picture_once_on_some_card(tmp_path, watch):
    cards = run("good", tmp_path, watch, devices=(0, 3))
    assert set(cards) <= {"0", "3"} and sum(cards.values()) == 5
    assert not watch.troubles
    assert set(watch.progress.values()) == {1}
    assert watch.ready and all(clock == 222 for _, clock in watch.ready)


def test_no_more_processes_than_pictures(tmp_path, watch):
    run("good", tmp_path, watch, devices=range(9), jobs=JOBS[:1])
    assert len(watch.ready) == 1


@pytest.mark.parametrize(
    ("serve", "why"),
    [
        ("flaky", "kernel store did not finish"),
        ("dying", "its process was ended by SIGBUS"),
        ("hanging", "its process has not moved for 4 s"),
    ],
)
def test_card_is_opened_again_and_goes_on(tmp_path, watch, serve, why):
    run(serve, tmp_path, watch, jobs=JOBS[:2], silence_s=4.0)
    (trouble,) = watch.troubles
    assert trouble.startswith("card 0 is opened again: ") and why in trouble
    assert watch.progress[1, 1] == 2  # the interrupted picture was begun twice
    assert not watch.resets


def test_missing_card_is_given_up(tmp_path, watch):
    assert run("first_card_is_missing", tmp_path, watch, devices=(0, 1)) == {"1": 5}
    assert watch.troubles == ["card 0 is given up: there is no card 0"]


def test_picture_of_a_lost_card_is_drawn_on_another(tmp_path, watch):
    assert run("first_card_is_lost", tmp_path, watch, devices=(0, 1))["1"] == 5
    # the other card may have drawn everything before the lost one was tried again
    assert watch.troubles[0] == "card 0 is opened again: card 0: No such device"
    assert watch.troubles[1:] in ([], ["card 0 is given up: there is no card 0"])


def test_card_that_never_works_is_given_up(tmp_path, watch):
    with pytest.raises(UserError, match=r"no card is left \(card 0 computes wrongly\)"):
        run("broken", tmp_path, watch)
    assert len((tmp_path / "starts.0").read_text()) == RESETS + 1
    assert len(watch.troubles) == RESETS + 1


def test_card_is_reset_when_a_new_process_was_not_enough(tmp_path, watch, monkeypatch):
    monkeypatch.setattr(pool_serves, "starts", lambda *_: 0)
    pool = Pool(pool_serves.flaky, tmp_path, (0,), watch.events())
    worker = pool._start(0)
    worker.address, worker.failures = "0000:65:00.1", RESETS - 1
    pool._workers = [worker]
    try:
        pool._failed(worker, "card 0: it hangs", final=False)
        assert watch.resets == ["0000:65:00.1"]
    finally:
        for each in pool._workers:
            pool._end(each)


def test_bad_input_ends_the_run(tmp_path, watch):
    with pytest.raises(UserError, match="not a model"):
        run("mistaken", tmp_path, watch, devices=(0, 1))
    assert not watch.troubles


def test_worker_ends_quietly_when_its_pool_is_gone(tmp_path, watch, capfd):
    pool = Pool(pool_serves.good, tmp_path, (0,), watch.events())
    worker = pool._start(0)
    worker.connection.close()
    worker.process.join(60)
    assert worker.process.exitcode == 0
    assert not capfd.readouterr().err
