"""The delete that a tombstone right behind it repeats."""

import pytest
from msgspec.structs import replace

from consumer.core import deleted
from consumer.core.deleted import Deleted
from consumer.model import ChangeEvent, ChangeType, Record

RECORD = Record("t", 0, 7, 1000, b"key", b"value")
TOMBSTONE = replace(RECORD, offset=8, value=None)
EVENT = ChangeEvent(ChangeType.DELETE, "a", 1000, 5, None, None, None, None, {}, log=(5, 1000, "server", True))


@pytest.mark.parametrize(
    ("record", "external_id", "is_it"),
    [
        (TOMBSTONE, "a", True),
        (replace(TOMBSTONE, offset=9), "a", False),
        (replace(TOMBSTONE, key=b"other"), "a", False),
        (replace(TOMBSTONE, key=None), "a", False),
        (TOMBSTONE, "b", False),
    ],
    ids=["right behind", "later", "of another key", "without a key", "of another contact"],
)
def test_a_tombstone_right_behind_a_delete_is_known_by_key_and_contact(
    record: Record, external_id: str, *, is_it: bool
) -> None:
    """Also by another process, which read what the first one settled."""
    kept = deleted.decode(deleted.encode(Deleted.of(RECORD, EVENT)))
    assert kept is not None
    assert kept.is_right_before(record, replace(EVENT, external_id=external_id)) is is_it


def test_what_is_kept_of_a_delete_tells_no_contact() -> None:
    """Version, time and place of the log come back; key and id do not."""
    kept = Deleted.of(RECORD, replace(EVENT, external_id="somebody"))
    raw = deleted.encode(kept)
    assert raw is not None
    assert (deleted.decode(raw), deleted.decode(deleted.encode(None))) == (kept, None)
    assert (kept.version, kept.occurred_at, kept.log) == (5, 1000, EVENT.log)
    assert b"somebody" not in raw
    assert RECORD.key is not None
    assert RECORD.key not in raw
