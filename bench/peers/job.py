"""What the job asks of a program, whichever library carries it: six rules, what is compared, what is sent and told.

Written as a user of those libraries would, with nothing of `consumer`. No network and no state; it reads the
environment and the schema.
"""

import hashlib
import hmac
import os
import re
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Self, cast

import fastavro
import orjson

AT_ONCE = 8
"""Requests that are under way together."""
BATCH = 100
"""Contacts in a request."""
AT_A_TIME = 40 * BATCH
"""Records that are taken together where a library takes as many as it is told: five times the requests under way."""
LINGER_MS = 5
"""How long the library's producer gathers records, as ours does."""
COMPRESSION = "lz4"
"""Of the library's producer, as of ours."""

_SCHEMA_FILE = Path(__file__).resolve().parents[2] / "schemas" / "crm_contact_change.avsc"
_SCHEMA = fastavro.parse_schema(orjson.loads(_SCHEMA_FILE.read_bytes()))
_FRAME_BYTES = 5

_PHONE = re.compile(r"\+[1-9][0-9]{1,14}")
_EMAIL = re.compile(r"[A-Za-z0-9._%+-]+@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,}")

_CONTACT_IDS = uuid.UUID("5a0f4d1c-6a0e-4bb7-9a5e-5a6d3f8f2c11")
_PSEUDONYM_KEY = b"bench" * 6
_FLAGS = {True: "true", False: "false"}

Change = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Task:
    """Where from and where to, as the environment says: the names are those of `genesys-consumer`.

    Attributes:
        linger_s: How long a batch may wait for more, in seconds.
    """

    bootstrap: str
    group: str
    source: str
    audit: str
    contacts_url: str
    list_id: str
    state: Path
    linger_s: float

    @classmethod
    def of_environ(cls) -> Self:
        """Read it; a variable that is missing is a KeyError."""
        list_id = os.environ["BENCH_CONTACT_LIST_ID"]
        return cls(
            bootstrap=os.environ["KAFKA_BOOTSTRAP_SERVERS"],
            group=os.environ["KAFKA_GROUP_ID"],
            source=os.environ["KAFKA_SOURCE_TOPICS"],
            audit=os.environ["KAFKA_AUDIT_TOPIC"],
            contacts_url=f"{os.environ['GENESYS_API_URL']}/api/v2/outbound/contactlists/{list_id}/contacts"
            "?doNotQueue=true",
            list_id=list_id,
            state=Path(os.environ["STATE_DIR"]),
            linger_s=int(os.environ["BATCH_LINGER_MS"]) / 1000,
        )


def decoded(framed: bytes) -> Change:
    """The change event in Confluent's wire format."""
    return cast("Change", fastavro.schemaless_reader(BytesIO(framed[_FRAME_BYTES:]), _SCHEMA, None))


def violations(change: Change) -> list[str]:
    """Every rule that it breaks, by the reason's name."""
    phone, email = change["phone"], change["email"]
    consent, do_not_call = change["consent"], change["doNotCall"]
    broken = (
        ("external_id_missing", not change["externalId"]),
        ("phone_not_e164", phone is not None and not _PHONE.fullmatch(phone)),
        ("email_invalid", email is not None and not _EMAIL.fullmatch(email)),
        ("consent_not_boolean", not isinstance(consent, bool)),
        ("do_not_call_not_boolean", not isinstance(do_not_call, bool)),
        ("consent_conflicts_with_do_not_call", consent is True and do_not_call is True),
    )
    return [reason for reason, breaks in broken if breaks]


def identity(change: Change) -> bytes:
    """What a contact is remembered by."""
    return hashlib.sha256(change["externalId"].encode()).digest()


def fingerprint(change: Change) -> bytes:
    """What two changes of the same content have in common."""
    content = [
        change["externalId"],
        change["phone"],
        change["email"],
        change["consent"],
        change["doNotCall"],
        change["attributes"],
    ]
    return hashlib.sha256(orjson.dumps(content)).digest()


def contact(change: Change, list_id: str) -> dict[str, Any]:
    """The contact as Genesys' API takes it."""
    return {
        "id": str(uuid.uuid5(_CONTACT_IDS, change["externalId"])),
        "contactListId": list_id,
        "callable": change["consent"] and not change["doNotCall"],
        "data": {
            "external_id": change["externalId"],
            "phone_number": change["phone"],
            "email": change["email"],
            "consent_flag": _FLAGS[change["consent"]],
            "do_not_call": _FLAGS[change["doNotCall"]],
            **change["attributes"],
        },
    }


def pseudonym(change: Change) -> str:
    """What audit events call a contact."""
    return hmac.digest(_PSEUDONYM_KEY, change["externalId"].encode(), "sha256").hex()


@dataclass(slots=True)
class Judged:
    """A record with its outcome.

    Attributes:
        reasons: The rules that it breaks.
        identity: Of its contact, 32 bytes.
        fingerprint: Of its content, 32 bytes.
    """

    partition: int
    offset: int
    change: Change
    reasons: list[str]
    outcome: str
    identity: bytes
    fingerprint: bytes


def judged(partition: int, offset: int, change: Change) -> Judged:
    """A record that either breaks the rules or is to be delivered, if it is no duplicate."""
    reasons = violations(change)
    outcome = "rejected" if reasons else "delivered"
    return Judged(partition, offset, change, reasons, outcome, identity(change), fingerprint(change))


def latest(records: Iterable[Judged]) -> list[Judged]:
    """The last change of each contact that is to be delivered: a request must not have two of one."""
    return list({each.identity: each for each in records if each.outcome == "delivered"}.values())


def audit_event(each: Judged, topic: str) -> dict[str, Any]:
    """What became of one record."""
    return {
        "type": "record",
        "eventId": f"{topic}/{each.partition}/{each.offset}",
        "timestamp": time.time(),
        "source": {"topic": topic, "partition": each.partition, "offset": each.offset},
        "contactRef": pseudonym(each.change),
        "outcome": each.outcome,
        "reasons": each.reasons,
    }


def batches(changed: Sequence[Judged]) -> list[Sequence[Judged]]:
    """As many changes as a request takes contacts."""
    return [changed[start : start + BATCH] for start in range(0, len(changed), BATCH)]


def check(answer: bytes, contacts: int) -> None:
    """An answer counts if it has as many contacts as were sent."""
    if len(orjson.loads(answer)) != contacts:
        raise RuntimeError("the answer does not have the contacts that were sent")
