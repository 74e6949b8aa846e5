"""The job in Quix Streams: its own state, a sink of its own kind, and its exactly-once checkpoints.

Reads and writes Kafka and the state through the library; sends contacts with `requests` from eight threads.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import orjson
import requests
from quixstreams import Application, State, message_context
from quixstreams.models import Deserializer
from quixstreams.sinks import BaseSink
from requests.adapters import HTTPAdapter

from bench.peers import job

_HEADERS = {"Content-Type": "application/json"}


class _Avro(Deserializer):
    """Confluent's wire format; the library's own deserializer wants a schema registry for it."""

    def __call__(self, value: bytes, ctx: object) -> job.Change:
        return job.decoded(value)


class _ContactList(BaseSink):
    """The contact list, which a checkpoint flushes before it commits anything.

    No `BatchingSink`: that one writes a partition after the other, so that most of the eight requests would wait.
    """

    def __init__(self, task: job.Task) -> None:
        super().__init__()
        self._task = task
        self._waiting: list[job.Judged] = []
        self._session = requests.Session()
        self._session.trust_env = False  # it would look for proxies and a password file with every request
        self._session.mount("http://", HTTPAdapter(pool_maxsize=job.AT_ONCE))
        self._threads = ThreadPoolExecutor(job.AT_ONCE)

    def add(self, value: job.Judged, *_: object, **__: object) -> None:
        self._waiting.append(value)

    def flush(self) -> None:
        changed, self._waiting = job.latest(self._waiting), []
        for _ in self._threads.map(self._post, job.batches(changed)):
            pass

    def _post(self, changed: Sequence[job.Judged]) -> None:
        body = orjson.dumps([job.contact(each.change, self._task.list_id) for each in changed])
        answer = self._session.post(self._task.contacts_url, body, headers=_HEADERS, timeout=30)
        answer.raise_for_status()
        job.check(answer.content, len(changed))


def _judge(change: job.Change, state: State) -> job.Judged:
    """The state is that of the record's key, which is the contact; it is kept if the checkpoint commits."""
    record = message_context()
    each = job.judged(record.partition, record.offset, change)
    if each.outcome == "delivered":
        if state.get_bytes("fingerprint") == each.fingerprint:
            each.outcome = "duplicate"
        else:
            state.set_bytes("fingerprint", each.fingerprint)
    return each


def main() -> None:
    """Run until SIGTERM."""
    task = job.Task.of_environ()
    app = Application(
        broker_address=task.bootstrap,
        consumer_group=task.group,
        auto_offset_reset="earliest",
        commit_interval=task.linger_s,
        state_dir=task.state,
        processing_guarantee="exactly-once",
        producer_extra_config={"linger.ms": job.LINGER_MS, "compression.type": job.COMPRESSION},
        loglevel="WARNING",
    )
    source = app.topic(task.source, value_deserializer=_Avro())
    audit = app.topic(task.audit, value_serializer="json", key_serializer="str")
    judged = app.dataframe(source).apply(_judge, stateful=True)
    judged.apply(lambda each: job.audit_event(each, task.source)).to_topic(audit, key=lambda event: event["contactRef"])
    judged.filter(lambda each: each.outcome == "delivered").sink(_ContactList(task))
    app.run()


if __name__ == "__main__":
    main()
