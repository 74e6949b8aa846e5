"""The bare calls that the job needs, and nothing else: what no program on these libraries can go much below.

The libraries and the order of effects are ours: poll, decode, hash, look up, send, one Kafka transaction, write.
There are no rules but the one that these events break, no queues, no patience, and no answer to any error.
"""

import asyncio
import hashlib
import os
import signal
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, cast

import aiohttp
import fastavro
import orjson
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from rocksdict import Options, Rdict, WriteBatch

from consumer.settings import packaged_schemas

BATCH = 100
AT_ONCE = 8
WAIT_S = 0.1
_FRAME_BYTES = 5
_SCHEMA = fastavro.parse_schema(orjson.loads((packaged_schemas() / "crm_contact_change.avsc").read_bytes()))
_JSON = {"Content-Type": "application/json"}


class _Known(NamedTuple):
    """A record, with what it is compared by."""

    partition: int
    offset: int
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
        self._db = Rdict(str(Path(environ["STATE_DIR"], "seen")), Options(raw_mode=True))
        servers = {"bootstrap.servers": environ["KAFKA_BOOTSTRAP_SERVERS"]}
        self._producer = Producer({**servers, "transactional.id": environ["KAFKA_GROUP_ID"]})
        self._producer.init_transactions()
        own = {"group.id": environ["KAFKA_GROUP_ID"], "auto.offset.reset": "earliest", "enable.auto.commit": False}
        self._consumer = Consumer({**servers, **own})
        self._topic = environ["KAFKA_SOURCE_TOPICS"]
        self._consumer.subscribe([self._topic])

    async def round(self) -> None:
        """A poll, to its end."""
        records = list(map(_known, self._consumer.consume(AT_ONCE * BATCH, WAIT_S)))
        if not records:
            return
        outcomes, changed = self._judged(records)
        await asyncio.gather(*(self._post(changed[start : start + BATCH]) for start in range(0, len(changed), BATCH)))
        self._commit(records, outcomes)
        batch = WriteBatch(raw_mode=True)
        for each in changed:
            batch.put(each.identity, each.fingerprint)
        self._db.write(batch)

    def _judged(self, records: Sequence[_Known]) -> tuple[list[str], list[_Known]]:
        identities: list[Any] = [each.identity for each in records]
        seen: dict[bytes, Any] = dict(zip(identities, self._db.get(identities) or (), strict=True))
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

    def _commit(self, records: Sequence[_Known], outcomes: Sequence[str]) -> None:
        self._producer.begin_transaction()
        for each, outcome in zip(records, outcomes, strict=True):
            source = {"partition": each.partition, "offset": each.offset}
            event = {"type": "record", "source": source, "outcome": outcome}
            self._producer.produce(self._audit, orjson.dumps(event), each.identity)
        ends = {each.partition: each.offset + 1 for each in records}
        offsets = [TopicPartition(self._topic, partition, end) for partition, end in ends.items()]
        self._producer.send_offsets_to_transaction(offsets, self._consumer.consumer_group_metadata())
        self._producer.commit_transaction()


def _known(record: Message) -> _Known:
    body = (record.value() or b"")[_FRAME_BYTES:]
    change = cast("Mapping[str, Any]", fastavro.schemaless_reader(BytesIO(body), _SCHEMA, None))
    identity, fingerprint = hashlib.sha256(record.key() or b"").digest(), hashlib.sha256(body).digest()
    return _Known(cast("int", record.partition()), cast("int", record.offset()), change, identity, fingerprint)


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
