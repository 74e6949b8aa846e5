"""What `check` makes of answers of the brokers about ACLs, and of the state directory, without any brokers."""

import asyncio
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from confluent_kafka.admin import AclOperation  # type: ignore[attr-defined]  # missing in the stubs' __all__
from structlog.testing import capture_logs

from consumer.adapters.kafka.connection import Connection
from consumer.adapters.kafka.inspection import CHANGELOG_RIGHTS, GROUP_RIGHTS, Inspection
from consumer.adapters.schema_registry.login import is_readable
from consumer.app import App
from consumer.operate import check
from consumer.operate.line import Line
from tests.lives import NATIVE, settings


def _inspection() -> Inspection:
    return Inspection(Connection("kafka:9092"), settings())


def test_what_an_acl_does_not_allow_is_told_as_a_command() -> None:
    """Only what is missing."""
    told = _inspection()._lacking("topic", "log", [AclOperation.DESCRIBE], CHANGELOG_RIGHTS)
    assert told == (
        "the ACL does not allow Read, Write; run: kafka-acls.sh --bootstrap-server kafka:9092 --add "
        "--allow-principal User:… --operation Read --operation Write --topic log"
    )


@pytest.mark.parametrize("allowed", [None, [], [AclOperation.READ, AclOperation.DESCRIBE]])
def test_brokers_without_acls_allow_everything(allowed: list[AclOperation] | None) -> None:
    """They tell nothing, or every operation."""
    assert _inspection()._lacking("group", "consumers", allowed, GROUP_RIGHTS) == ""


def test_tables_of_no_source_topic_are_told() -> None:
    """They may be those of schemas, or a slip: then another mapping reads the topic, perhaps a ready-made one."""
    told = [
        (line.holds, line.detail)
        for line in check._tables({"default", "crm.contcats", "Row", "b"}, ["crm.contacts", "b"])
    ]
    of_a_schema = "is no source topic: it counts for records whose schema has that name"
    assert told == [(True, f"[Row] {of_a_schema}"), (True, f"[crm.contcats] {of_a_schema}; or is it crm.contacts?")]


def test_the_state_directory_may_be_there_or_be_made(tmp_path: Path) -> None:
    """A start makes it, with its parents; the check makes nothing."""
    assert check._state_directory(tmp_path) == Line(
        "state directory", holds=True, detail=f"{tmp_path} can be written to"
    )
    missing = tmp_path / "a" / "b"
    assert check._state_directory(missing) == Line(
        "state directory", holds=True, detail=f"{missing} is missing, is made at start"
    )
    assert not any(tmp_path.iterdir())


def test_a_state_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """With what is wrong of it: something else is there, or it is not for this user."""
    (tmp_path / "file").touch(0o755)
    line = check._state_directory(tmp_path / "file" / "state")
    assert not line.holds
    assert line.detail == f"{tmp_path / 'file'} is no directory: set STATE_DIR to where the stores may be"


def test_what_only_looks_like_a_directory_takes_no_stores() -> None:
    """Root may write there, and cannot make anything."""
    line = check._state_directory(Path("/proc/consumer/state"))
    assert (line.holds, line.detail.split(":")[0]) == (False, "/proc may not be written to by this user")


def test_a_state_directory_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may write everywhere, so that the kernel's answer is given here."""
    monkeypatch.setattr(os, "access", lambda _, mode: mode == os.F_OK)
    line = check._state_directory(tmp_path)
    assert not line.holds
    assert line.detail.startswith(f"{tmp_path} may not be written to by this user: set STATE_DIR")


def test_a_volume_that_is_full_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes an empty directory, and then no store: a start would wait for room, and settle nothing."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=check.ROOM_BYTES))
    assert check._state_directory(tmp_path).holds
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=check.ROOM_BYTES - 1))
    line = check._state_directory(tmp_path)
    assert not line.holds
    assert line.detail.startswith(f"{tmp_path}: its volume has 15,999,999 bytes left of 16,000,000 needed: make room")


def test_a_slip_in_the_environment_is_no_valid_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is set may be valid, and yet not be what was meant."""
    assert [line.holds for line in check._settings()] == [True]
    monkeypatch.setenv("SUPPRESS_UNDECODEABLE", "true")
    (line,) = check._settings()
    assert not line.holds
    assert "SUPPRESS_UNDECODEABLE" in line.detail


READABLE = {"schema_registry_url": "http://registry.invalid:8081", "schema_registry_username": "ann"}


async def test_a_password_that_anyone_can_read_may_be_meant(tmp_path: Path) -> None:
    """As within a cluster: it is told, and by itself keeps nobody from starting."""
    chosen = settings(**READABLE, state_dir=tmp_path)
    schemas, login = [await anext(lines) for lines in [check._schemas(chosen, NATIVE)] for _ in range(2)]
    assert (schemas.what, schemas.holds) == ("schemas", True)
    assert (login.what, login.holds, login.mark) == ("registry login", True, "\u2013")
    assert "name SCHEMA_REGISTRY_URL by https://" in login.detail


async def test_a_password_that_anyone_can_read_is_told_at_start(tmp_path: Path) -> None:
    """Whoever starts it may never have run `check`."""
    stop = asyncio.Event()
    stop.set()
    with capture_logs() as lines:
        await App(settings(**READABLE, state_dir=tmp_path, http_address="127.0.0.1:0")).run(stop)
    (line,) = [line for line in lines if line["event"] == "registry_login_readable"]
    assert line["log_level"] == "warning"


@pytest.mark.parametrize(
    ("url", "more", "readable"),
    [
        ("http://registry:8081", {}, False),
        ("http://registry:8081", {"schema_registry_username": "ann"}, True),
        ("http://ann:geheim@registry:8081", {}, True),
        ("https://ann:geheim@registry:8081", {}, False),
        ("http://ann:geheim@127.0.0.1:8081", {}, False),
        ("http://ann:geheim@[::1]:8081", {}, False),
    ],
)
def test_who_can_read_a_password(url: str, more: dict[str, str], *, readable: bool) -> None:
    """Nobody on the way, where there is none, or no way."""
    assert is_readable(settings(schema_registry_url=url, **more)) is readable
