"""Makes the change event of a tombstone: its key tells whom it deletes. Other records may be about whom theirs tells.

Answers for which keys name a contact: text, a number, or a record or JSON object that holds one of these and nothing
else. A key that names nobody for sure is a `DecodeError`: taken for an external id, the deletion would be lost.
Touches nothing else.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, cast

import orjson

from consumer.core.avro import WriterSchema
from consumer.core.moments import kafka_time
from consumer.errors import DecodeError, OtherColumns, undecodable
from consumer.model import ChangeEvent, ChangeType, Reason, Record


class KeyFields(NamedTuple):
    """Where keys that are records hold the external id.

    Attributes:
        names: Of the fields, one of which it is; None: any. A key that is no record is it in any case.
        documents: Whether its text is extended JSON, as MongoDB's connector writes the `_id` of a document.
    """

    names: frozenset[str] | None = None
    documents: bool = False


ANY_FIELD = KeyFields()
NO_FIELD = KeyFields(frozenset())

_NO_ID = "is neither text nor a number, nor a record with one field that is"
_UNSURE = (
    "is not for sure the external id: its field is not the first path of external_id in SOURCE_MAPPING, "
    "in each table that may be for the topic"
)

KeyReader = Callable[[bytes, Record], ChangeEvent]
"""Makes the change event of a key's body; raises nothing but `DecodeError`."""


def read_text(key: bytes, record: Record) -> ChangeEvent:
    """The deletion of whom the text names; an empty key names nobody, which is for validation to say."""
    return _deletion(record, as_text(key) or None)


def as_text(key: bytes) -> str:
    """The external id that a key is.

    Raises:
        DecodeError: It is something else: a record, JSON, or no UTF-8.
    """
    if not key.startswith(b"\0") and not _is_json(key) and not _is_of_java(key):
        with suppress(UnicodeDecodeError):
            return key.decode()
    raise _refused("is not the external id in UTF-8; see SOURCE_KEY")


def _is_json(key: bytes) -> bool:
    """Whether a key is an object, a list or a text in JSON: as plain text it would name nobody."""
    if key[:1] not in {b"{", b"[", b'"'}:
        return False
    with suppress(orjson.JSONDecodeError):
        orjson.loads(key)
        return True
    return False


def _is_of_java(key: bytes) -> bool:
    """Whether a key is how Java writes a record or a map as text, as `Struct{id=42}`: it would name nobody."""
    return key.startswith((b"{", b"Struct{")) and key.endswith(b"}") and b"=" in key


def read_json(key: bytes, record: Record, fields: KeyFields = ANY_FIELD) -> ChangeEvent:
    """The deletion of whom the JSON names, which may be in an envelope of Kafka Connect."""
    with suppress(orjson.JSONDecodeError):
        value = orjson.loads(key)
        if isinstance(value, dict) and value.keys() == {"schema", "payload"}:
            schema, value = value["schema"], value["payload"]
            if _may_be_bytes(schema) and isinstance(_field(value, fields), str):
                raise _refused("is bytes or a decimal, which JSON writes in letters of its own")
        return _deletion(record, _external_id(value, fields))
    raise _refused("is not JSON")


def _may_be_bytes(schema: object) -> bool:
    """Whether Kafka Connect's schema of a key, or of a field in it, is one of bytes: decimals are too."""
    if not isinstance(schema, dict):
        return False
    listed = schema.get("fields")
    inner = listed if isinstance(listed, list) else []
    return any(isinstance(each, dict) and each.get("type") == "bytes" for each in (schema, *inner))


def avro_reader(text: str, fields: KeyFields = ANY_FIELD) -> KeyReader:
    """What reads keys that were written with this schema, of a record or of any other type.

    Args:
        text: The schema as JSON.
        fields: Where the external id is in a record.

    Raises:
        DecodeError: Reading with the schema could hurt, or it is none.
    """
    wrapped = {"type": "record", "name": "Tombstone", "fields": [{"name": "key", "type": _loaded(text)}]}
    schema = WriterSchema(json.dumps(wrapped))
    return lambda key, record: _deletion(record, _external_id(schema.read(key)["key"], fields))


def _loaded(text: str) -> object:
    with suppress(ValueError, RecursionError):
        return cast("object", json.loads(text))
    raise _refused("was written with a schema that is not JSON")


def _external_id(value: object, fields: KeyFields) -> str:
    if isinstance(value, dict) and fields.names and fields.names.isdisjoint(value):
        raise OtherColumns((Reason.NOT_DECODABLE,), f"the key {_UNSURE if len(value) == 1 else _NO_ID}")
    value = _field(value, fields)
    if fields.documents and isinstance(value, str):
        value = _field(_of_document(value), fields)
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise _refused(_NO_ID)


def _field(value: object, fields: KeyFields) -> object:
    """What a record of one field holds; anything else is itself."""
    if not isinstance(value, dict) or len(value) != 1:
        return value
    ((name, held),) = value.items()
    if fields.names is not None and name not in fields.names:
        raise _refused(_UNSURE)
    return held


def _of_document(text: str) -> object:
    """What extended JSON says, `{"$oid": ...}` for example; what is no JSON is the id itself."""
    with suppress(orjson.JSONDecodeError):
        return orjson.loads(text)
    return text


def _deletion(record: Record, external_id: str | None) -> ChangeEvent:
    gone = ChangeType.DELETE, external_id, kafka_time(record)
    return ChangeEvent(*gone, None, None, None, None, None, {}, tombstone=True)


def _refused(what: str) -> DecodeError:
    return undecodable(f"the key {what}")
