"""Turns records into change events: framing, writer's schema, body.

Answers for the order of these, and for every record having a result or naming the schema that it still needs, also one
on which a reader fails in a way that nobody foresaw: that would come again at every start. How
bytes are split is told in `framing`, how they are read in `avro`, `connect_json` and `keys`; how the fields of a
writer's schema become a change event is not decided here: a `Reader` is put together outside, from one of these and
an envelope's mapping. Touches nothing else.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from consumer.core import framing
from consumer.core.framing import Form, KeySchema
from consumer.core.results import Result
from consumer.errors import DecodeError, ReaderFailed
from consumer.formats import SchemaReference
from consumer.model import ChangeEvent, Events, Reason, Record

Reader = Callable[[bytes, Record], Events]
"""Makes the change events of the body of a record; raises nothing but `DecodeError`."""


class ByKey(Struct, frozen=True):
    """A reader of values that may be about whom the key names: it gets the external id of that in the key's place.

    A key that names nobody for sure stays as it is, for whoever needs it to refuse.

    Attributes:
        read: Reads values.
    """

    read: Reader

    def __call__(self, body: bytes, record: Record) -> Events:
        return self.read(body, record)


ReaderName = SchemaReference | KeySchema
"""Names a reader: by the schema of values, or of keys."""


class Decoded(NamedTuple):
    """How far `decode` came.

    Attributes:
        results: One for each record, from the first on.
        missing: What the first record without a result has to be read with, for which there is no reader; None when
            all have one.
    """

    results: list[Result]
    missing: ReaderName | None


def decode(records: Iterable[Record], readers: Mapping[ReaderName, Reader | DecodeError], form: Form) -> Decoded:
    """Decode records up to the first that has no reader.

    Args:
        records: In the order in which they were polled.
        readers: By what they read; an error is the result of every record that would be read so.
        form: How the records are split.
    """
    results: list[Result] = []
    for record in records:
        try:
            name, body = form(record)
            reader = readers.get(name)
            if reader is None:
                return Decoded(results, name)
            if type(reader) is ByKey:
                named = decode([key_alone(record)], readers, form)
                if named.missing is not None:
                    return Decoded(results, named.missing)
                record = _with_named(record, named.results[0])  # noqa: PLW2901
            results.append(_refused(reader, name, record) if isinstance(reader, DecodeError) else reader(body, record))
        except DecodeError as error:
            results.append(error.with_traceback(None))  # its frames would keep the record's bytes alive
        except MemoryError:
            raise  # says nothing of the record
        except Exception as error:  # noqa: BLE001  # whoever writes a record must not be able to stop the program
            results.append(ReaderFailed(error))
    return Decoded(results, None)


def _refused(error: DecodeError, name: ReaderName, record: Record) -> DecodeError:
    return framing.unknown(error, name, record) if Reason.SCHEMA_UNKNOWN in error.reasons else error


def reader_names(records: Iterable[Record], form: Form) -> set[ReaderName]:
    """Everything that these records, and their keys, have to be read with."""
    found: set[ReaderName] = set()
    for record in records:
        for each in (record, key_alone(record)):
            with suppress(DecodeError):
                found.add(form(each)[0])
    return found


def named_by_key(record: Record, readers: Mapping[ReaderName, Reader | DecodeError], form: Form) -> str | None:
    """The external id that the key of a record names, whatever its value is; None when it names nobody for sure."""
    for event in decode([key_alone(record)], readers, form).results:
        if isinstance(event, ChangeEvent) and event.named is not None:
            return event.named
    return None


def missing_for_key(
    record: Record, readers: Mapping[ReaderName, Reader | DecodeError], form: Form
) -> ReaderName | None:
    """What the key of a record has to be read with before `named_by_key` can tell; None when there is a reader."""
    return decode([key_alone(record)], readers, form).missing


def key_alone(record: Record) -> Record:
    """The tombstone with the key of a record. A CloudEvent could be none."""
    headers = [header for header in record.headers if header[0] != framing.CLOUD_EVENT]
    return replace(record, value=None, headers=headers)


def _with_named(record: Record, named: Result) -> Record:
    """A record with the external id that its key names as its key, if that names somebody."""
    if isinstance(named, ChangeEvent) and named.named is not None:
        return replace(record, key=named.named.encode())
    return record
