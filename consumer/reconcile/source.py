"""Reads the source topics again, for what they say of contacts that differ.

Answers for which contacts have changes on their way, and for the content that was delivered: the record from which it
came, where that is still there and says the same. Touches the source topics and schemas through their ports.
"""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence

from consumer.command_ports import History
from consumer.core import changes, decode, fingerprints
from consumer.core.decode import ReaderName
from consumer.core.envelopes.choice import Envelopes
from consumer.core.framing import Form
from consumer.core.results import events_of
from consumer.core.validate import validate
from consumer.errors import ValidationError
from consumer.model import Amendment, Change, ChangeEvent, Record, TopicPartition
from consumer.pipeline.readers import Known, decoded, fetched, without_registry
from consumer.ports import Schemas

Changes = list[tuple[Record, Change]]


class SourceTopics:
    """The source topics, as changes.

    Args:
        history: Of the topics.
        schemas: Where writer schemas come from.
        form: How records are split.
        framed_keys: Topics whose keys are not the external id as text.
        envelopes: What stands around a contact in a record.
        contact_list_id: Part of each fingerprint.
        columns: Attribute source names with their columns.
    """

    def __init__(
        self,
        history: History,
        schemas: Schemas,
        *,
        form: Form,
        framed_keys: Collection[str],
        envelopes: Envelopes,
        contact_list_id: str,
        columns: Sequence[tuple[str, str]],
    ) -> None:
        self._history = history
        self._schemas = schemas
        self._form = form
        self._framed_keys = framed_keys
        self._envelopes = envelopes
        self._contact_list_id = contact_list_id
        self._columns = columns
        self._readers: dict[str, Known] = {}

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
        named = set(await self.keyed(records))
        named.update(
            fingerprints.identity(event.external_id)
            for _, event in await self._events(records)
            if isinstance(event.external_id, str)
        )
        return named

    async def keyed(self, records: Sequence[Record]) -> list[bytes]:
        """For each record the identity that its key gives, whatever its value is."""
        if not records or records[0].topic not in self._framed_keys:
            return [fingerprints.identity_of_key(record.key) for record in records]
        known = self._known(records)
        for name in decode.reader_names(records, self._form) - known.keys():
            await self._learn(name, records)
        named = [decode.named_by_key(record, known, self._form) for record in records]
        return [
            fingerprints.identity_of_key(record.key) if external_id is None else fingerprints.identity(external_id)
            for record, external_id in zip(records, named, strict=True)
        ]

    async def changes(self, records: Sequence[Record]) -> Changes:
        """The whole contacts that these records ask for.

        Those that cannot be read, break the rules, or tell only what changed, ask for none.
        """
        pairs = await self._events(records)
        contacts = validate([event for _, event in pairs], self._columns)
        return [
            (record, changes.to_change(event, contact, record.offset, self._contact_list_id))
            for (record, event), contact in zip(pairs, contacts, strict=True)
            if not isinstance(contact, ValidationError | Amendment)
        ]

    async def _events(self, records: Sequence[Record]) -> list[tuple[Record, ChangeEvent]]:
        """What records of one partition tell."""
        if not records:
            return []
        envelope = self._envelopes.of_topic(records[0].topic)
        results = await decoded(records, self._known(records), self._form, envelope, self._schemas)
        pairs = zip(records, results, strict=True)
        return [(record, event) for record, result in pairs for event in events_of(result)]

    def _known(self, records: Sequence[Record]) -> Known:
        """The readers of the topic that these records are of."""
        topic = records[0].topic
        return self._readers.setdefault(topic, without_registry(self._envelopes.of_topic(topic)))

    async def _learn(self, name: ReaderName, records: Sequence[Record]) -> None:
        envelope = self._envelopes.of_topic(records[0].topic)
        self._known(records)[name] = await fetched(name, envelope, self._schemas)
