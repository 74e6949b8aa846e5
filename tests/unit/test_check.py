"""What `check` makes of the brokers' answers about ACLs, which the brokers of the tests do not have."""

import pytest
from confluent_kafka.admin import AclOperation  # type: ignore[attr-defined]  # missing in the stubs' __all__

from consumer.adapters.kafka.connection import Connection
from consumer.adapters.kafka.inspection import CHANGELOG_RIGHTS, GROUP_RIGHTS, Inspection
from consumer.operate import check
from tests.lives import settings


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


def test_a_slip_in_the_environment_is_no_valid_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is set may be valid, and yet not be what was meant."""
    assert [line.holds for line in check._settings()] == [True]
    monkeypatch.setenv("SUPPRESS_UNDECODEABLE", "true")
    (line,) = check._settings()
    assert not line.holds
    assert "SUPPRESS_UNDECODEABLE" in line.detail
