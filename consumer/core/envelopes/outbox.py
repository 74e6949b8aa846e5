"""Events that an application writes into an outbox, as Debezium's router publishes them: the payload is the value.

Answers for nothing but where things stand: whom an event is about, what happened and in which order is for the mapping
to say, mostly by `@key`, by `@header.NAME` and by the version of the aggregate. Touches nothing else.
"""

from collections.abc import Mapping

from consumer.core.envelopes.schema import Fields, Mapper
from consumer.core.mapping import BoundMapping, deletion
from consumer.core.mapping_places import Row
from consumer.core.mapping_tables import ContactMapping
from consumer.core.moments import kafka_time
from consumer.errors import DecodeError
from consumer.model import ChangeType, Events, Record


def outbox(definition: Mapping[str, object], mapping: ContactMapping) -> Mapper:
    """The mapping for records of a writer's schema.

    Raises:
        DecodeError: It lacks a field that the mapping names.
    """
    bound = BoundMapping(mapping, Fields.of(definition).getter)

    def events(fields: Row, record: Record) -> Events:
        row = bound.row(fields, record)
        if not (bound.counts(row) or bound.is_told_gone(row)):
            return ()
        external_id, when = bound.external_id(row), bound.when(row, kafka_time(record), None)
        try:
            change_type = bound.change_type(row)
        except DecodeError as error:
            return bound.withdrawal(ChangeType.UPDATE, external_id, row, when, error)
        if change_type is ChangeType.DELETE:
            return deletion(external_id, when)
        return bound.event(change_type, external_id, row, when) or ()

    return events
