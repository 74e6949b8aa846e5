"""Positions in a database's log as versions: they order what follows each other, and fit into 63 bits."""

import pytest
from hypothesis import given, strategies as st

from consumer.core.envelopes.position import log

IN_ORDER = {
    "postgresql": [{"lsn": 23911624}, {"lsn": 23911952}, {"lsn": 2**62}],
    "mysql": [
        {"file": "mysql-bin.000003", "pos": 4_000_000_000},
        {"file": "mysql-bin.000004", "pos": 4},
        {"file": "mysql-bin.1000000", "pos": 4},
    ],
    "sql server": [
        {"commit_lsn": "00000027:00000ac0:0007", "change_lsn": "00000027:00000abc:0002"},
        {"commit_lsn": "00000027:00000ac0:0008", "change_lsn": None},
        {"commit_lsn": "00000027:00000ad0:0001", "change_lsn": None},
        {"commit_lsn": "00000028:00000001:0001", "change_lsn": None},
    ],
    "oracle": [
        {"commit_scn": None, "scn": "2868550"},
        {"commit_scn": "2868557", "scn": "2868500"},
        {"commit_scn": "28685570", "scn": "2868501"},
    ],
    "mongodb": [
        {"ts_ms": 1_700_000_000_000, "ord": 9},
        {"ts_ms": 1_700_000_001_000, "ord": 1},
        {"ts_ms": 1_700_000_001_000, "ord": 2},
    ],
}


def reader(names, prefix=""):
    """Reads the version where a source tells so much."""
    found = log(names, prefix)
    assert found is not None
    return found.version


@pytest.mark.parametrize("sources", IN_ORDER.values(), ids=IN_ORDER)
def test_versions_grow_with_the_log(sources):
    """Each position has a version above that of the one before, of at most 63 bits."""
    read = reader(sources[0])
    versions = [read(source) for source in sources]
    assert None not in versions
    assert versions == sorted(set(versions))
    assert all(0 <= version < 2**63 for version in versions)


UNFIT = {
    "no number": {"lsn": "0/16B3748"},
    "null": {"lsn": None},
    "a boolean": {"lsn": True},
    "negative": {"lsn": -1},
    "more than 63 bits": {"lsn": 2**63},
    "a file without a number": {"file": "binlog", "pos": 4},
    "a file with a name at its end": {"file": "mysql-bin.index", "pos": 4},
    "a position of more than 32 bits": {"file": "mysql-bin.000003", "pos": 2**32},
    "two parts": {"commit_lsn": "00000027:00000ac0"},
    "no hex": {"commit_lsn": "00000027:0000xyz0:0007"},
    "a sign": {"commit_lsn": "00000027:-0000ac0:0007"},
    "a log of more than 23 bits": {"commit_lsn": "ff000027:00000ac0:0007"},
    "no second": {"ts_ms": None, "ord": 1},
}


@pytest.mark.parametrize("source", UNFIT.values(), ids=UNFIT)
def test_what_does_not_fit_has_no_version(source):
    """Then the order of the partition counts, never a wrong number."""
    assert reader(source)(source) is None


PLACES = {
    "postgresql": ({"lsn": 90, "sequence": '["100","90"]'}, (100, 7, "", False)),
    "postgresql, first transaction since a snapshot": ({"lsn": 90, "sequence": '[null,"90"]'}, (90, 7, "", False)),
    "postgresql without a commit": ({"lsn": 90, "sequence": None}, None),
    "postgresql, no JSON": ({"lsn": 90, "sequence": "100"}, None),
    "postgresql, broken JSON": ({"lsn": 90, "sequence": "["}, None),
    "postgresql before it told commits": ({"lsn": 90}, None),
    "mysql": ({"file": "binlog.000001", "pos": 9, "sequence": None}, (1 << 32 | 9, 7, "", True)),
    "sql server": ({"commit_lsn": "00000000:00000001:0001", "change_lsn": None}, (1 << 12 | 1, 7, "", True)),
    "oracle": ({"commit_scn": "100", "scn": "90"}, (100, 7, "", True)),
    "oracle without a commit": ({"commit_scn": None, "scn": "90"}, None),
    "mongodb": ({"ts_ms": 1000, "ord": 1}, None),
}


@pytest.mark.parametrize(("source", "place"), PLACES.values(), ids=PLACES)
def test_the_place_in_the_log_is_that_of_the_commit(source, place):
    """A position within a transaction is lower than that of a shorter one that was committed meanwhile."""
    found = log(source)
    assert found is not None
    assert found.when(source, 7, snapshot=False, flaw="") == (7, found.version(source), place, "")


def test_the_place_tells_whose_log_it_is():
    """Shards may share a topic: each has a log of its own."""
    source = {"file": "binlog.1", "pos": 9, "name": "shard-1"}
    found = log(source)
    assert found is not None
    places = [found.when(source, 7, snapshot=snapshot, flaw="")[2] for snapshot in (False, True)]
    assert places == [(1 << 32 | 9, 7, "shard-1", True), (None, 7, "shard-1", True)]
    assert [
        found.when(source | name, 7, snapshot=False, flaw="")[2] for name in ({"name": None}, {"name": "x" * 999})
    ] == [
        (1 << 32 | 9, 7, "", True),
        (1 << 32 | 9, 7, "x" * 100, True),
    ]
    without: dict[str, object] = {"file": "binlog.1", "pos": 9}
    assert found.when(without, 7, snapshot=False, flaw="")[2] == (1 << 32 | 9, 7, "", True)


@pytest.mark.parametrize("source", [{"file": "binlog.1", "pos": 9}, {"file": None, "pos": None}])
def test_what_a_snapshot_reads_has_a_time_and_no_place(source):
    """It begins no epoch."""
    found = log(source)
    assert found is not None
    assert found.when(source, 7, snapshot=True, flaw="")[2] == (None, 7, "", True)


@pytest.mark.parametrize("snapshot", [False, True])
def test_a_change_of_postgresql_stands_where_it_was_made(snapshot):
    """It may be committed after what stands behind it."""
    source = {"lsn": 1000, "sequence": '["900","1000"]'}
    found = log(source)
    assert found is not None
    assert found.when(source, 7, snapshot=snapshot, flaw="")[2] == (None if snapshot else 900, 7, "", False)


def test_without_a_time_there_is_no_place():
    """By Kafka's time nothing of the log can be told."""
    found = log(["file", "pos"])
    assert found is not None
    source: dict[str, object] = {"file": "binlog.1", "pos": 9}
    assert found.when(source, 7, snapshot=False, flaw="no time") == (7, 1 << 32 | 9, None, "no time")
    assert found.when(source, 7, snapshot=True, flaw="no time") == (7, (1 << 32 | 9) - 1, None, "no time")


@pytest.mark.parametrize("names", [[], ["ts_ms"], ["pos"], ["version", "connector"]])
def test_what_does_not_order_is_no_position(names):
    """A source that tells only times."""
    assert log(names) is None


def test_a_prefix_stands_before_the_names():
    """As in flattened rows."""
    read = reader(["__file", "__pos"], "__")
    assert read({"__file": "binlog.7", "__pos": 9}) == 7 << 32 | 9


files = st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 2**32 - 1))


@given(files, files)
def test_the_order_of_files_and_positions_is_that_of_their_versions(one, other):
    """Any two positions of MySQL compare as their versions do."""
    read = reader(["file", "pos"])
    versions = [read({"file": f"binlog.{number:06d}", "pos": place}) for number, place in (one, other)]
    assert (versions[0] < versions[1]) == (one < other)


def test_a_number_of_thousands_of_digits_is_none():
    """Python refuses to read so many."""
    assert reader(("scn",))({"scn": "9" * 5000}) is None
