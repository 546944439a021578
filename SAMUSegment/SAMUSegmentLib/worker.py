"""Inference away from the main thread: one thread, and what it finds waits until the main thread asks.

    worker = InferenceWorker()
    client = worker.client()
    client.submit(lambda cancelled, progress: predictor.predict(..., cancelled=cancelled, progress=progress))
    for event in client.poll():  # main thread, e.g. every 20 ms from a timer
        ...

One thread for all clients, because cuDNN's plans and the network's warm-up belong to a thread. For each
client the newest task wins: the one before is told to stop, and whatever it still says is not heard.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Task = Callable[[Callable[[], bool], Callable[[str], None]], Any]


@dataclass(frozen=True)
class Progress:
    """A stage of the task began."""

    ticket: int
    stage: str


@dataclass(frozen=True, eq=False)
class Finished:
    """The task is done: `value` is what it returned, or `error` what it raised."""

    ticket: int
    value: Any = None
    error: BaseException | None = None


class _Job:
    """A task with its owner; `cancelled` is set by the main thread and read by the worker's."""

    def __init__(self, client: WorkerClient, ticket: int, task: Task):
        self.client = client
        self.ticket = ticket
        self.task = task
        self.cancelled = threading.Event()


class WorkerClient:
    """One user of the worker: a panel, an effect. Main thread only; made by InferenceWorker.client."""

    def __init__(self, worker: InferenceWorker):
        self._worker = worker
        self._events: queue.Queue = queue.Queue()
        self._ticket = 0
        self._job: _Job | None = None

    @property
    def busy(self) -> bool:
        """True from submit() until poll() handed out the end of the task, or cancel()."""
        return self._job is not None

    def submit(self, task: Task) -> int:
        """Run ``task(cancelled, progress)`` on the worker's thread; what this client asked before is dropped.

        Args:
            task: `cancelled()` says whether the result is still wanted, `progress(stage)` reports.

        Returns:
            The ticket that the events of this task carry.
        """
        self.cancel()
        self._ticket += 1
        self._job = _Job(self, self._ticket, task)
        self._worker.enqueue(self._job)
        return self._ticket

    def cancel(self) -> None:
        """Forget the present task; it is told to stop and nothing more is heard of it."""
        if self._job is not None:
            self._job.cancelled.set()
            self._worker.discard(self._job)
            self._job = None

    def poll(self) -> list:
        """Progress and Finished events of the present task since the last call, oldest first."""
        events = []
        while True:
            try:
                event = self._events.get_nowait()
            except queue.Empty:
                return events
            if self._job is None or event.ticket != self._job.ticket:
                continue
            if isinstance(event, Finished):
                self._job = None
            events.append(event)

    def deliver(self, event: Progress | Finished) -> None:
        """Called by the worker's thread."""
        self._events.put(event)


class InferenceWorker:
    """Runs tasks one after the other on a thread of its own, which starts with the first task."""

    def __init__(self, name: str = "SAMUSegment inference"):
        self._name = name
        self._waiting: list[_Job] = []
        self._running: _Job | None = None
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False

    def client(self) -> WorkerClient:
        """A new user; tasks of different users wait for each other but do not replace each other."""
        return WorkerClient(self)

    def enqueue(self, job: _Job) -> None:
        """Put a job behind those that wait."""
        with self._condition:
            if self._closing:
                raise RuntimeError("The worker is closed.")
            self._waiting.append(job)
            if self._thread is None:
                # A daemon: an inference that hangs must not keep Slicer from closing.
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._condition.notify()

    def discard(self, job: _Job) -> None:
        """Take a job back that has not begun."""
        with self._condition:
            if job in self._waiting:
                self._waiting.remove(job)

    def close(self, timeoutSeconds: float = 5.0) -> bool:
        """Stop everything; True when the thread has ended within the time."""
        with self._condition:
            self._closing = True
            for job in self._waiting:
                job.cancelled.set()
            self._waiting.clear()
            if self._running is not None:
                self._running.cancelled.set()
            self._condition.notify_all()
        if self._thread is not None:
            self._thread.join(timeoutSeconds)
        return self._thread is None or not self._thread.is_alive()

    def _next(self) -> _Job | None:
        with self._condition:
            self._running = None
            while not self._waiting and not self._closing:
                self._condition.wait()
            if self._closing:
                return None
            self._running = self._waiting.pop(0)
            return self._running

    def _run(self) -> None:
        while True:
            job = self._next()
            if job is None:
                return
            self._carryOut(job)
            # The result may be large, and the next task may not come for hours.
            del job

    @staticmethod
    def _carryOut(job: _Job) -> None:
        def progress(stage: str) -> None:
            job.client.deliver(Progress(job.ticket, stage))

        try:
            value = job.task(job.cancelled.is_set, progress)
        except BaseException as error:
            # The main thread decides what to do about it; this thread must live on.
            job.client.deliver(Finished(job.ticket, error=error))
        else:
            job.client.deliver(Finished(job.ticket, value=value))
