"""The worker's thread: order, superseding, cancelling, closing."""

from __future__ import annotations

import threading
import time

import pytest
from SAMUSegmentLib.worker import Finished, InferenceWorker, Progress

PATIENCE_S = 20


@pytest.fixture
def worker():
    worker = InferenceWorker()
    yield worker
    assert worker.close(PATIENCE_S)


def wait_for(client, count=1):
    """Events of a client until `count` of them are Finished."""
    events, deadline = [], time.monotonic() + PATIENCE_S
    while sum(isinstance(event, Finished) for event in events) < count:
        assert time.monotonic() < deadline, "the worker did not finish in time"
        events += client.poll()
        time.sleep(0.001)
    return events


class Blocked:
    """A task that runs until it is released, or cancelled where it heeds that."""

    def __init__(self, heed=True):
        self.started, self.release, self.cancelled = threading.Event(), threading.Event(), False
        self.heed = heed

    def __call__(self, cancelled, progress):
        self.started.set()
        deadline = time.monotonic() + PATIENCE_S
        while not self.release.is_set() and time.monotonic() < deadline:
            self.cancelled = cancelled()
            if self.heed and self.cancelled:
                break
            time.sleep(0.001)
        self.cancelled = cancelled()
        return "blocked"


def test_a_task_runs_on_another_thread_and_its_result_waits_for_poll(worker):
    client = worker.client()

    def task(cancelled, progress):
        progress("encode")
        assert not cancelled()
        return threading.current_thread()

    ticket = client.submit(task)
    assert client.busy
    events = wait_for(client)
    assert events[0] == Progress(ticket, "encode")
    assert events[1].value is not threading.current_thread() and events[1].error is None
    assert not client.busy and client.poll() == []


def test_all_tasks_run_on_one_thread(worker):
    clients = [worker.client() for _ in range(3)]
    for client in clients:
        client.submit(lambda _cancelled, _progress: threading.get_ident())
    assert len({wait_for(client)[-1].value for client in clients}) == 1


def test_an_error_comes_back_and_the_thread_lives_on(worker):
    client = worker.client()
    client.submit(lambda _cancelled, _progress: 1 / 0)
    assert isinstance(wait_for(client)[-1].error, ZeroDivisionError)
    client.submit(lambda _cancelled, _progress: 5)
    assert wait_for(client)[-1].value == 5


def test_a_newer_task_supersedes_the_one_that_runs_and_the_one_that_waits(worker):
    client, first, second = worker.client(), Blocked(), Blocked()
    client.submit(first)
    assert first.started.wait(PATIENCE_S)
    client.submit(second)
    ticket = client.submit(lambda _cancelled, _progress: "newest")
    events = wait_for(client)
    assert [(event.ticket, event.value) for event in events] == [(ticket, "newest")]
    assert first.cancelled and not second.started.is_set()


def test_a_late_result_is_not_heard_even_if_the_task_ignores_its_cancellation(worker):
    client, stubborn = worker.client(), Blocked(heed=False)
    client.submit(stubborn)
    assert stubborn.started.wait(PATIENCE_S)
    client.cancel()
    assert not client.busy
    other = worker.client()
    other.submit(lambda _cancelled, _progress: "after")
    stubborn.release.set()
    assert wait_for(other)[-1].value == "after"
    assert stubborn.cancelled and client.poll() == []


def test_cancelling_a_task_that_waits_keeps_it_from_starting(worker):
    blocker, client, task = worker.client(), worker.client(), Blocked()
    blocking = Blocked()
    blocker.submit(blocking)
    client.submit(task)
    client.cancel()
    blocking.release.set()
    wait_for(blocker)
    last = worker.client()
    last.submit(lambda _cancelled, _progress: None)
    wait_for(last)
    assert not task.started.is_set()


def test_clients_do_not_replace_each_other(worker):
    first, second, blocked = worker.client(), worker.client(), Blocked()
    first.submit(blocked)
    second.submit(lambda _cancelled, _progress: "second")
    time.sleep(0.02)
    assert second.poll() == [] and second.busy
    blocked.release.set()
    assert wait_for(first)[-1].value == "blocked"
    assert wait_for(second)[-1].value == "second"


def test_closing_stops_what_runs_and_refuses_more():
    worker = InferenceWorker()
    client, blocked = worker.client(), Blocked()
    client.submit(blocked)
    assert blocked.started.wait(PATIENCE_S)
    assert worker.close(PATIENCE_S)
    assert blocked.cancelled
    with pytest.raises(RuntimeError):
        client.submit(blocked)


def test_closing_does_not_wait_for_ever():
    worker = InferenceWorker()
    client, stubborn = worker.client(), Blocked(heed=False)
    client.submit(stubborn)
    assert stubborn.started.wait(PATIENCE_S)
    assert not worker.close(0.05)
    stubborn.release.set()
    assert worker.close(PATIENCE_S)


def test_no_thread_before_the_first_task():
    before = threading.active_count()
    worker = InferenceWorker()
    worker.client()
    assert threading.active_count() == before
    assert worker.close(0.1)
