"""One thread for calls that block, so that the event loop never does.

Answers for: running calls one after the other, in order, in a thread that cannot keep the program from ending. Touches
no outside system itself.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Worker:
    """A daemon thread with a queue of calls.

    Not an executor: the interpreter waits for an executor's threads at its end, and a call to librdkafka can block for
    as long as the brokers are gone, one to RocksDB for as long as its volume hangs.
    """

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def submit(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Queue a call; its result or exception comes with the future."""
        future: Future[T] = Future()

        self._jobs.put(lambda: carry_out(future, lambda: call(*args, **kwargs)))
        return future

    def stop(self) -> None:
        """End the thread once the calls queued so far are done."""
        self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


async def in_a_thread(name: str, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Wait for one call, in a thread of its own. Whoever is cancelled leaves it behind."""
    worker = Worker(name)
    try:
        return await asyncio.wrap_future(worker.submit(call, *args, **kwargs))
    finally:
        worker.stop()


def carry_out(future: Future[T], call: Callable[[], T]) -> None:
    """Give the call's result or exception to the future, unless that was cancelled before."""
    if future.set_running_or_notify_cancel():
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 -- whoever awaits the future decides
            future.set_exception(error)
