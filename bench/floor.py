"""The bare calls that the job needs, and nothing else: what no program on these libraries can go much below.

The libraries and the order of effects are ours: poll, decode, hash, look up, send, one Kafka transaction every 200 ms
with audit events, dead letters, changelog and offsets, write. There are no rules but the one that these events break,
no queues, no patience, and no answer to any error. It decodes every record, also one that our program knows before.
"""

import asyncio
import hashlib
import os
import signal
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import wait
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, cast

import aiohttp
import fastavro
import orjson
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from rocksdict import Options, Rdict, WriteBatch

from consumer.settings import packaged_schemas

BATCH = 100
AT_ONCE = 8
WAIT_S = 0.1
SETTLE_S = 0.2
_FRAME_BYTES = 5
_SCHEMA = fastavro.parse_schema(orjson.loads((packaged_schemas() / "crm_contact_change.avsc").read_bytes()))
_JSON = {"Content-Type": "application/json"}


class _Known(NamedTuple):
    """A record, with what it is compared by."""

    record: Message
    change: Mapping[str, Any]
    identity: bytes
    fingerprint: bytes


class _Floor:
    """One round after the other."""

    def __init__(self, environ: Mapping[str, str], session: aiohttp.ClientSession) -> None:
        self._session = session
        self._list_id = environ["BENCH_CONTACT_LIST_ID"]
        self._url = f"{environ['GENESYS_API_URL']}/api/v2/outbound/contactlists/{self._list_id}/contacts"
        self._audit = environ["KAFKA_AUDIT_TOPIC"]
        self._dead_letters = environ["KAFKA_DEAD_LETTER_TOPIC"]
        self._changelog = f"{environ['KAFKA_GROUP_ID']}-floor-changelog"
        self._unsettled: list[tuple[_Known, str]] = []
        self._unwritten: dict[bytes, bytes] = {}
        self._settled_at = time.monotonic()
        self._db = Rdict(str(Path(environ["STATE_DIR"], "seen")), Options(raw_mode=True))
        servers = {"bootstrap.servers": environ["KAFKA_BOOTSTRAP_SERVERS"]}
        admin = AdminClient(dict(servers))
        wait(
            admin.create_topics([NewTopic(self._changelog), NewTopic(self._dead_letters)]).values()
        )  # or there they are
        self._producer = Producer({**servers, "transactional.id": environ["KAFKA_GROUP_ID"]})
        self._producer.init_transactions()
        own = {"group.id": environ["KAFKA_GROUP_ID"], "auto.offset.reset": "earliest", "enable.auto.commit": False}
        self._consumer = Consumer({**servers, **own})
        self._topic = environ["KAFKA_SOURCE_TOPICS"]
        self._consumer.subscribe([self._topic])

    async def round(self) -> None:
        """A poll, to its answers; settled when it is time."""
        if records := list(map(_known, self._consumer.consume(AT_ONCE * BATCH, WAIT_S))):
            outcomes, changed = self._judged(records)
            posts = (self._post(changed[start : start + BATCH]) for start in range(0, len(changed), BATCH))
            await asyncio.gather(*posts)
            self._unsettled += zip(records, outcomes, strict=True)
            self._unwritten |= {each.identity: each.fingerprint for each in changed}
        if self._unsettled and time.monotonic() - self._settled_at >= SETTLE_S:
            self._settle()

    def _settle(self) -> None:
        self._commit()
        batch = WriteBatch(raw_mode=True)
        for identity, fingerprint in self._unwritten.items():
            batch.put(identity, fingerprint)
        self._db.write(batch)
        self._unsettled, self._unwritten, self._settled_at = [], {}, time.monotonic()

    def _judged(self, records: Sequence[_Known]) -> tuple[list[str], list[_Known]]:
        identities: list[Any] = [each.identity for each in records]
        seen: dict[bytes, Any] = dict(zip(identities, self._db.get(identities) or (), strict=True)) | self._unwritten
        outcomes, changed = list[str](), dict[bytes, _Known]()
        for each in records:
            if not each.change["phone"].startswith("+"):
                outcomes.append("rejected")
            elif seen[each.identity] == each.fingerprint:
                outcomes.append("duplicate")
            else:
                outcomes.append("delivered")
                seen[each.identity], changed[each.identity] = each.fingerprint, each
        return outcomes, list(changed.values())

    async def _post(self, changed: Sequence[_Known]) -> None:
        body = orjson.dumps([self._contact(each.change) for each in changed])
        async with self._session.post(self._url, data=body, headers=_JSON) as answer:
            await answer.read()

    def _contact(self, change: Mapping[str, Any]) -> dict[str, Any]:
        data = {
            "external_id": change["externalId"],
            "phone_number": change["phone"],
            "email": change["email"],
            "consent_flag": "true" if change["consent"] else "false",
            "do_not_call": "true" if change["doNotCall"] else "false",
            **change["attributes"],
        }
        return {"id": change["externalId"], "contactListId": self._list_id, "callable": True, "data": data}

    def _commit(self) -> None:
        self._producer.begin_transaction()
        ends = dict[int, int]()
        for each, outcome in self._unsettled:
            partition, offset = cast("int", each.record.partition()), cast("int", each.record.offset())
            event = {"type": "record", "source": {"partition": partition, "offset": offset}, "outcome": outcome}
            self._producer.produce(self._audit, orjson.dumps(event), each.identity)
            if outcome == "rejected":
                self._producer.produce(self._dead_letters, each.record.value(), each.record.key())
            ends[partition] = offset + 1
        for identity, fingerprint in self._unwritten.items():
            self._producer.produce(self._changelog, fingerprint, identity)
        offsets = [TopicPartition(self._topic, partition, end) for partition, end in ends.items()]
        self._producer.send_offsets_to_transaction(offsets, self._consumer.consumer_group_metadata())
        self._producer.commit_transaction()


def _known(record: Message) -> _Known:
    body = (record.value() or b"")[_FRAME_BYTES:]
    change = cast("Mapping[str, Any]", fastavro.schemaless_reader(BytesIO(body), _SCHEMA, None))
    return _Known(record, change, hashlib.sha256(record.key() or b"").digest(), hashlib.sha256(body).digest())


async def _main() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with aiohttp.ClientSession() as session:
        floor = _Floor(os.environ, session)
        while not stop.is_set():
            await floor.round()
            await asyncio.sleep(0)


if __name__ == "__main__":
    asyncio.run(_main())
