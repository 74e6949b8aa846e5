"""Reads the source topics again, for what they say of contacts that differ.

Answers for which contacts have changes on their way, and for the content that was delivered: the record from which it
came, where that is still there and says the same. Touches the source topics and schemas through their ports.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence

from consumer.core import decode, dedupe
from consumer.core.decode import Reader
from consumer.core.envelopes.choice import Envelopes
from consumer.core.validate import validate
from consumer.errors import DecodeError, ValidationError
from consumer.model import Amendment, Change, ChangeEvent, Events, Reason, Record, TopicPartition
from consumer.pipeline.intake import make_reader
from consumer.ports import History, Schemas

Changes = list[tuple[Record, Change]]


class SourceTopics:
    """The source topics, as changes.

    Args:
        history: Of the topics.
        schemas: Where writer schemas come from.
        envelopes: What stands around a contact in a record.
        contact_list_id: Part of each fingerprint.
        columns: Attribute source names with their columns.
    """

    def __init__(
        self,
        history: History,
        schemas: Schemas,
        envelopes: Envelopes,
        contact_list_id: str,
        columns: Sequence[tuple[str, str]],
    ) -> None:
        self._history = history
        self._schemas = schemas
        self._envelopes = envelopes
        self._contact_list_id = contact_list_id
        self._columns = columns
        self._readers: defaultdict[str, dict[int, Reader | DecodeError]] = defaultdict(dict)

    async def records(
        self, sources: Sequence[TopicPartition], starts: Mapping[int, int], ends: Mapping[TopicPartition, int]
    ) -> AsyncIterator[tuple[int, Sequence[Record]]]:
        """Records of partitions, with the number of the partition.

        Args:
            sources: All partitions, in the order of their numbers.
            starts: First offset, by number; partitions that have none are not read.
            ends: Where to stop.
        """
        for source, start in starts.items():
            partition = sources[source]
            async for records in self._history.read(partition, start, ends[partition]):
                yield source, records

    async def named(self, records: Sequence[Record]) -> set[bytes]:
        """The identities of all contacts that these records may be about, by what they say or by their keys."""
        named = {dedupe.identity_of_key(record.key) for record in records}
        named.update(
            dedupe.identity(event.external_id)
            for _, event in await self._events(records)
            if isinstance(event.external_id, str)
        )
        return named

    async def changes(self, records: Sequence[Record]) -> Changes:
        """The whole contacts that these records ask for.

        Those that cannot be read, break the rules, or tell only what changed, ask for none.
        """
        pairs = await self._events(records)
        contacts = validate([event for _, event in pairs], self._columns)
        return [
            (record, dedupe.to_change(event, contact, record.offset, self._contact_list_id))
            for (record, event), contact in zip(pairs, contacts, strict=True)
            if not isinstance(contact, ValidationError | Amendment)
        ]

    async def _events(self, records: Sequence[Record]) -> list[tuple[Record, ChangeEvent]]:
        """What records of one partition tell."""
        topic = records[0].topic if records else ""
        readers = self._readers[topic]
        results, missing = decode.decode(records, readers)
        while missing is not None:
            readers[missing] = await self._reader(topic, missing)
            results, missing = decode.decode(records, readers)
        return list(_readable(zip(records, results, strict=True)))

    async def _reader(self, topic: str, schema_id: int) -> Reader | DecodeError:
        try:
            text = await self._schemas.fetch(schema_id)
        except DecodeError as error:
            return error
        if text is None:
            return DecodeError((Reason.SCHEMA_UNKNOWN,))
        return make_reader(text, self._envelopes, topic)


def _readable(pairs: Iterable[tuple[Record, Events | DecodeError]]) -> Iterator[tuple[Record, ChangeEvent]]:
    """Every change event with its record, which may have none or several."""
    for record, result in pairs:
        if isinstance(result, ChangeEvent):
            yield record, result
        elif not isinstance(result, DecodeError):
            yield from ((record, event) for event in result)
