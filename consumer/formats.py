"""Names of what records come in: framings, envelopes, keys, and of the schemas that they were written with.

Settings choose among them, and the stages are put together by them. This module imports nothing of the project.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, NamedTuple, TypeVar


class Framing(StrEnum):
    """How the bytes of a record say which schema they were written with."""

    CONFLUENT = "confluent"
    CONFLUENT_HEADER = "confluent-header"
    APICURIO = "apicurio"
    APICURIO_8_BYTE = "apicurio-8-byte"
    GLUE = "glue"
    SINGLE_OBJECT = "single-object"
    AZURE = "azure"
    CLOUDEVENTS = "cloudevents"
    BARE = "bare"
    JSON = "json"
    AUTO = "auto"


class EnvelopeName(StrEnum):
    """What stands around a contact in the records of a source topic."""

    NATIVE = "native"
    DEBEZIUM = "debezium"
    FLATTENED = "flattened"
    SALESFORCE = "salesforce"
    OUTBOX = "outbox"
    DMS = "dms"


class KeyFormat(StrEnum):
    """How a tombstone's key holds the external id."""

    STRING = "string"
    AVRO = "avro"
    JSON = "json"
    AUTO = "auto"


Choice = TypeVar("Choice", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class PerTopic(Generic[Choice]):
    """A choice among these for each source topic.

    Attributes:
        default: For topics that are not named.
        named: By topic.
    """

    default: Choice
    named: Mapping[str, Choice]

    def of(self, topic: str) -> Choice:
        """The choice for a topic."""
        return self.named.get(topic, self.default)


class SchemaKind(StrEnum):
    """What a schema may be named by, besides an id of Confluent's registry."""

    GUID = "guid"
    GLOBAL_ID = "globalId"
    CONTENT_ID = "contentId"
    CONTENT_HASH = "contentHash"
    FINGERPRINT = "fingerprint"
    GLUE = "glue"
    AZURE = "azure"
    TOPIC = "topic"
    NONE = "none"


class SchemaName(NamedTuple):
    """A name of a schema. Its text is what `ids.json` of a schemas directory has for it.

    Attributes:
        kind: Who gave the name.
        value: Lower-case text: a decimal number, a UUID, hexadecimal digits; for `TOPIC` the topic as it is.
    """

    kind: SchemaKind
    value: str

    def __str__(self) -> str:  # type: ignore[explicit-override]  # typing has it from 3.12 on
        return f"{self.kind}:{self.value}"


SchemaReference = int | SchemaName
"""Names a writer's schema; an int is an id of a registry with Confluent's API."""
