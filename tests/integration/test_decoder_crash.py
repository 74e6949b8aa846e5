"""A crash of the decoder takes down real processes, and at the third start nothing any more."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from consumer.adapters.breadcrumbs import FileBreadcrumbs
from consumer.errors import FatalError
from consumer.ports import Breadcrumb
from tests.crashing_decoder import RECORDS

PROJECT = Path(__file__).resolve().parents[2]
CHUNK = Breadcrumb("crm.contacts.changes", 0, 200, 399, 1_700_000_000_000, alone=False)
SUSPECT = Breadcrumb("crm.contacts.changes", 0, 250, 250, 1_700_000_000_250, alone=True)


def start(state_dir, planted):
    """Start the process whose decoder crashes, and wait for its end."""
    command = [sys.executable, "-m", "tests.crashing_decoder", str(state_dir), planted]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)  # noqa: S603  # our own


@pytest.mark.parametrize("number", [0, 250, RECORDS - 1], ids=["first", "in the middle", "last"])
def test_a_record_on_which_the_decoder_crashes_is_a_dead_letter_at_the_third_start(tmp_path, number):
    """Two processes die of it. The third rejects it undecoded, and delivers all others."""
    planted = f"contact-{number}"
    for _ in range(2):
        assert start(tmp_path, planted).returncode == -signal.SIGSEGV
    done = start(tmp_path, planted)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    expected = [["delivered", []]] * RECORDS
    expected[number] = ["rejected", ["not_decodable"]]
    assert told["outcomes"] == expected
    assert told["letters"] == [[number, "not_decodable"]]


def test_what_is_laid_is_found_when_it_was_not_lifted(tmp_path):
    """The last note counts: a shorter one leaves nothing of a longer one."""
    crumbs = FileBreadcrumbs(tmp_path / "state")
    assert crumbs.found == []
    crumbs.lay(msgspec.structs.replace(CHUNK, topic="a" * 249))
    crumbs.lay(CHUNK)
    crumbs.close()
    assert FileBreadcrumbs(tmp_path / "state").found == [CHUNK]


def test_what_was_lifted_is_not_found(tmp_path):
    """An orderly end leaves no suspicion."""
    crumbs = FileBreadcrumbs(tmp_path)
    crumbs.lay(CHUNK)
    crumbs.lift()
    assert FileBreadcrumbs(tmp_path).found == []


def test_what_was_found_once_stays_known(tmp_path):
    """A record that was named is named after any number of starts; the last hundred are kept."""
    FileBreadcrumbs(tmp_path).lay(SUSPECT)
    for offset in range(99):
        FileBreadcrumbs(tmp_path).lay(msgspec.structs.replace(CHUNK, first=offset))
    found = FileBreadcrumbs(tmp_path).found
    assert (found[0], found[-1].first, len(found)) == (SUSPECT, 98, 100)
    FileBreadcrumbs(tmp_path).lay(CHUNK)
    assert SUSPECT not in FileBreadcrumbs(tmp_path).found


def test_a_damaged_note_says_nothing(tmp_path):
    """As after a loss of power; the next start finds nothing of it."""
    (tmp_path / "decoding").write_bytes(b'{"topic": "crm\n')
    (tmp_path / "crashes.jsonl").write_bytes(b"\0\0\0\n" + msgspec.json.encode(SUSPECT) + b"\n{}")
    assert FileBreadcrumbs(tmp_path).found == [SUSPECT]


def test_a_disk_that_refuses_is_no_reason_to_stop(tmp_path, monkeypatch):
    """Without a note the record is only harder to find."""

    def full(*_):
        raise OSError(28, "No space left on device")

    FileBreadcrumbs(tmp_path).lay(CHUNK)
    monkeypatch.setattr("os.pwrite", full)
    monkeypatch.setattr(Path, "write_bytes", full)
    crumbs = FileBreadcrumbs(tmp_path)
    crumbs.lay(SUSPECT)
    crumbs.lift()
    assert crumbs.found == [CHUNK]


def test_a_state_directory_that_cannot_be_used_is_told(tmp_path):
    """Clearly, as by the store: without one there is nothing to run on."""
    (tmp_path / "file").write_text("")
    with pytest.raises(FatalError, match=r"STATE_DIR cannot be used: .*file"):
        FileBreadcrumbs(tmp_path / "file" / "state")
