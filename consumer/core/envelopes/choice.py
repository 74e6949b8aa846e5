"""Which envelope the records of a topic have, and which mapping their schemas get.

Answers for finding both: once per topic and schema. Touches nothing else.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import takewhile
from typing import cast

from msgspec import Struct

from consumer.core.connect_json import is_made_up
from consumer.core.envelopes.debezium import debezium
from consumer.core.envelopes.dms import dms
from consumer.core.envelopes.fitness import granted, lacking, native_unsuited, refused, unsuited
from consumer.core.envelopes.flattened import flattened
from consumer.core.envelopes.native import native
from consumer.core.envelopes.outbox import outbox
from consumer.core.envelopes.salesforce import salesforce
from consumer.core.envelopes.schema import Mapper
from consumer.core.keys import ANY_FIELD, NO_FIELD, KeyFields
from consumer.core.mapping import unknown
from consumer.core.mapping_tables import BY_KEY, ContactMapping, Path, parse
from consumer.errors import DecodeError, SettingsError
from consumer.formats import EnvelopeName, PerTopic

Envelope = Callable[[Mapping[str, object]], Mapper]
"""Makes the mapper for records of a writer's schema; raises nothing but `DecodeError`."""


class TopicEnvelope(Struct, frozen=True):
    """The envelope of one topic.

    Attributes:
        mapper: Makes the mapper for records of a writer's schema.
        key_fields: Where keys hold the external id.
        by_key: Whether a record may be about whom its key names, whatever its value is.
        has_positions: Whether versions are positions in a database's log, which begins anew after a failover.
        keyed: Whether keys are meant to be the external ids of contacts.
    """

    mapper: Envelope
    key_fields: KeyFields
    by_key: bool = False
    has_positions: bool = False
    keyed: bool = False

    def __call__(self, definition: Mapping[str, object]) -> Mapper:
        return self.mapper(definition)


DEFAULT = "default"
"""The table of topics and schemas that have none of their own."""

_MAPPED: Mapping[EnvelopeName, Callable[[Mapping[str, object], ContactMapping], Mapper]] = {
    EnvelopeName.DEBEZIUM: debezium,
    EnvelopeName.FLATTENED: flattened,
    EnvelopeName.SALESFORCE: salesforce,
    EnvelopeName.OUTBOX: outbox,
    EnvelopeName.DMS: dms,
}
"""Those that a mapping is bound to: the native one is its own."""

_READ_BY: Mapping[str, EnvelopeName] = {"change_type": EnvelopeName.OUTBOX, "prefix": EnvelopeName.FLATTENED}
"""Keys of a table that one envelope alone reads."""

_READ_BY_ALL = frozenset({"change_type"})
"""Those that each envelope of a table must read: with another one deletes that `change_type` tells would be updates."""


class Fitness(Struct, frozen=True):
    """What stands between a schema and the mapping for it.

    Attributes:
        problems: What gets every change rejected; a sentence each.
        doubts: What gets those rejected that have a value there.
        lacking: Optional fields, with their paths, that the schema does not have, and so does not tell.
        granted: Flags whose null may come as a default that grants; a sentence each.
        meant: Whether the mapping was written for this topic or schema, and not for many.
    """

    problems: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()
    granted: tuple[str, ...] = ()
    meant: bool = False


class Envelopes(Struct, frozen=True):
    """The envelope of each topic, with the mappings.

    Attributes:
        names: Of the envelope of each topic.
        mappings: Those of the settings.
        ready_made: Those that come with the program, by envelope.
        topics: Source topics: a table of that name is for no schema of another topic.
    """

    names: PerTopic[EnvelopeName]
    mappings: Mapping[str, ContactMapping]
    ready_made: Mapping[str, Mapping[str, ContactMapping]]
    topics: Collection[str] = ()

    @classmethod
    def of(
        cls,
        names: PerTopic[EnvelopeName],
        tables: Mapping[str, object],
        ready_made: Mapping[str, Mapping[str, object]],
        topics: Collection[str] = (),
    ) -> "Envelopes":
        """Check mappings.

        Args:
            names: As above.
            tables: Of the settings' file: by topic, by name of a writer's schema (in full or not), or `default`.
            ready_made: The tables of each envelope.
            topics: As above.

        Raises:
            SettingsError: With one sentence for each thing that is wrong.
        """
        mappings = parse(tables)
        problems = [
            f"SOURCE_MAPPING: [{table}] external_id: {rule}"
            for table, mapping in mappings.items()
            if (rule := _ids_rule(names.of(table), mapping))
        ]
        problems += _unread(
            names, cast("Mapping[str, Mapping[str, object]]", tables), topics or {DEFAULT, *names.named}
        )
        if problems:
            raise SettingsError(problems)
        return cls(names, mappings, {name: parse(each) for name, each in ready_made.items()}, topics)

    def of_topic(self, topic: str) -> TopicEnvelope:
        """The envelope of a topic."""
        name = self.names.of(topic)
        return TopicEnvelope(
            partial(self.mapper, topic),
            self._key_fields(topic),
            by_key=self._may_be_by_key(topic),
            has_positions=name in {EnvelopeName.DEBEZIUM, EnvelopeName.FLATTENED},
            keyed=name is EnvelopeName.NATIVE,
        )

    def mapper(self, topic: str, definition: Mapping[str, object]) -> Mapper:
        """What makes change events of records of a topic that were written with a schema.

        Raises:
            DecodeError: The schema is not one of this envelope, or no mapping is for it.
        """
        name = self.names.of(topic)
        if name is EnvelopeName.NATIVE:
            return native(definition)
        _, mapping = self._mapping(name, topic, definition)
        return _MAPPED[name](definition, mapping)

    def fitness(self, topic: str, definition: Mapping[str, object]) -> Fitness:
        """What becomes of records of a topic and schema, as far as the schema tells."""
        name = self.names.of(topic)
        try:
            self.mapper(topic, definition)
        except DecodeError as error:
            return Fitness((error.detail,))
        if name is EnvelopeName.NATIVE:
            return Fitness(tuple(each.told for each in native_unsuited(definition)))
        table, mapping = self._mapping(name, topic, definition)
        if detail := refused(name, definition, mapping):
            return Fitness((detail,))
        found = unsuited(name, definition, mapping)
        return Fitness(
            tuple(f"{table} {each.told}" for each in found if each.always),
            tuple(f"{table} {each.told}" for each in found if not each.always),
            lacking(name, definition, mapping),
            tuple(f"{table} {each}" for each in granted(name, definition, mapping)),
            meant=table in {f"[{each}]" for each in (topic, *_names(definition))},
        )

    def may_mix(self, topic: str) -> bool:
        """Whether a topic may hold records of schemas that have mappings of their own by name."""
        name = self.names.of(topic)
        tables = self.mappings.keys() | self.ready_made.get(name, {}).keys()
        return name is not EnvelopeName.NATIVE and topic not in self.mappings and bool(tables - {DEFAULT, *self.topics})

    def attributes(self) -> frozenset[str] | None:
        """Names of all attributes that mappings of the topics may tell; None where native change events tell any."""
        names = {self.names.of(topic) for topic in self.topics}
        if EnvelopeName.NATIVE in names:
            return None
        on_their_own = DEFAULT in self.mappings or self.mappings.keys() >= set(self.topics)
        ready_made = [] if on_their_own else [self.ready_made.get(name, {}) for name in names]
        return frozenset(
            attribute
            for tables in (self.mappings, *ready_made)
            for mapping in tables.values()
            for attribute in mapping.attributes
        )

    def chosen(self, topic: str, definition: Mapping[str, object]) -> str:
        """The envelope and the table of its mapping, as people call them.

        Raises:
            DecodeError: No mapping is for it.
        """
        name = self.names.of(topic)
        return name if name is EnvelopeName.NATIVE else f"{name}, mapping {self._mapping(name, topic, definition)[0]}"

    def _may_be_by_key(self, topic: str) -> bool:
        """Whether the mapping of some record of a topic may take the external id from its key."""
        name, chosen = self.names.of(topic), self._mappings(topic)
        others = {} if topic in chosen else self.ready_made.get(name, {})
        return name is not EnvelopeName.NATIVE and any(BY_KEY in paths for paths in _id_paths({**others, **chosen}))

    def _key_fields(self, topic: str) -> KeyFields:
        """Where keys hold the external id of a topic. No tombstone tells the schema of the row that it deletes.

        Nor may it depend on which rows somebody has seen. So the tables alone decide, and have to be of one mind.
        """
        name = self.names.of(topic)
        found = {_key_fields(paths) for paths in _id_paths(self._mappings(topic) or self.ready_made.get(name, {}))}
        if name is EnvelopeName.NATIVE or not found or ANY_FIELD in found:
            return ANY_FIELD
        return found.pop() if len(found) == 1 else NO_FIELD

    def _mappings(self, topic: str) -> Mapping[str, ContactMapping]:
        """Those of the settings that may be for records of a topic."""
        if topic in self.mappings:
            return {topic: self.mappings[topic]}
        return {name: mapping for name, mapping in self.mappings.items() if name not in self.topics}

    def _mapping(
        self, envelope: EnvelopeName, topic: str, definition: Mapping[str, object]
    ) -> tuple[str, ContactMapping]:
        """The mapping for records of a topic and schema, with what its table is called."""
        names = (topic, *_names(definition), DEFAULT)
        for kind, mappings in (("", self.mappings), (" (ready-made)", self.ready_made.get(envelope, {}))):
            for name in names:
                if name in mappings:
                    return f"[{name}]{kind}", mappings[name]
        raise unknown(self._no_table(topic, names[1]))

    def _no_table(self, topic: str, name: str) -> str:
        """Why no mapping is for records of a topic and schema, which may tell no name."""
        there = f"it has {', '.join(sorted(self.mappings))}" if self.mappings else "it is not set"
        if is_made_up(name):
            return (
                f"the record tells no schema's name: SOURCE_MAPPING needs a table for {topic}, or the default; {there}"
            )
        return f"no table of SOURCE_MAPPING is for the topic, for {name}, or the default; {there}"


def _id_paths(mappings: Mapping[str, ContactMapping]) -> Sequence[Sequence[Path]]:
    """What each of the mappings takes the external id from, where that is a place."""
    sources = [mapping.sources["external_id"] for mapping in mappings.values() if "external_id" in mapping.sources]
    return [source.paths for source in sources if source.paths]


def _key_fields(paths: Sequence[Path]) -> KeyFields:
    """Where keys hold what rows have at the first of these paths that their schema has.

    A key is made of columns of its row. Where it has the first path, so has the row, and nothing goes before that. A
    later one may be the primary key of a table that has an earlier one too, by which its rows are named.
    """
    first = paths[0]
    if first == BY_KEY:
        return ANY_FIELD
    if "_id" in first:  # of MongoDB, whose connector has the whole of it as `id` in keys
        names = {path[-1] for path in takewhile(lambda path: "_id" in path, paths)}
        return KeyFields(frozenset(names | {"id"}), documents=True)
    return NO_FIELD if first[0].startswith("@") else KeyFields(frozenset({first[-1]}))


def _names(definition: Mapping[str, object]) -> tuple[str, str]:
    """The names of a schema: in full, and its own alone. Either may be how one version spells it, and another not."""
    name, namespace = str(definition.get("name")), definition.get("namespace")
    return name if "." in name or not namespace else f"{namespace}.{name}", name.rpartition(".")[2]


def _unread(
    names: PerTopic[EnvelopeName], tables: Mapping[str, Mapping[str, object]], topics: Collection[str]
) -> list[str]:
    """Keys of tables that do nothing with an envelope of theirs; a sentence each.

    A topic with a table of its own needs no other one. Any other table may be for any other topic.
    """
    of_topics = {topic: names.of(topic) for topic in topics}
    others = {name for topic, name in of_topics.items() if topic == DEFAULT or topic not in tables} - {
        EnvelopeName.NATIVE
    }
    chosen = {table: {of_topics[table]} if table in topics and table != DEFAULT else others for table in tables}
    return [
        f"SOURCE_MAPPING: [{table}] {key}: is read with SOURCE_ENVELOPE={reader} alone, not with {', '.join(wrong)}"
        for table, keys in tables.items()
        for key, reader in _READ_BY.items()
        if key in keys and (wrong := sorted(chosen[table] - {reader}))
        if key in _READ_BY_ALL or reader not in chosen[table]
    ]


def _ids_rule(envelope: EnvelopeName, mapping: ContactMapping) -> str | None:
    """What is wrong with whom a mapping names; None when nothing is."""
    names = "external_id" in mapping.sources
    if envelope is EnvelopeName.SALESFORCE:
        return "is the id of the Salesforce record" if names else None
    return None if names else "must be there"
