"""How Kafka clients are made, and what their log lines may not hold, may not repeat and may not break."""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import structlog
from confluent_kafka import KafkaError, KafkaException
from structlog.testing import LogCapture

from consumer.adapters.kafka import connection, poller
from consumer.adapters.kafka.connection import Admin, ClientLog, Connection
from consumer.adapters.kafka.failures import error_of
from consumer.errors import SettingsError, SourceUnavailable
from tests.kafka_clients import WITHIN_S, properties, settings

CLOSED = "127.0.0.1:1"
"""Nobody listens there."""

KINDS = ["Consumer", "Producer", "AdminClient"]

Lines = list[Any]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Lines:
    """What the module logs, however other tests left the configuration."""
    capture = LogCapture()
    own = structlog.wrap_logger(None, processors=[capture], wrapper_class=structlog.stdlib.BoundLogger)
    monkeypatch.setattr(connection, "_log", own)
    return capture.entries


class Clock:
    """Stands still until the test moves it."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def log(
    subject: ClientLog,
    text: str = "Connection refused",
    *,
    facility: str = "FAIL",
    client: str = "consumer-1",
    level: int = logging.WARNING,
) -> None:
    """Call it as librdkafka does."""
    subject.log(level, "%s [%s] %s", facility, client, text)


def unchanged(text: str) -> str:
    """Redact nothing."""
    return text


def details(said: Lines) -> list[str]:
    """What the lines say."""
    return [line["detail"] for line in said]


def connected(properties: Mapping[str, str]) -> Connection:
    """A connection to nobody, with these properties in its file."""
    return Connection(CLOSED, properties)


def made(monkeypatch: pytest.MonkeyPatch, kind: str, make: Callable[[], object]) -> dict[str, Any]:
    """The properties with which a client of this kind is made."""
    given: list[dict[str, Any]] = []
    monkeypatch.setattr(connection, kind, given.append)
    make()
    (only,) = given
    return only


def client(subject: Connection, kind: str) -> object:
    """A client of this kind."""
    if kind == "Consumer":
        return subject.consumer({}, {"group.id": "group"})
    return subject.producer({}, {}) if kind == "Producer" else subject.admin()


def test_partitions_that_are_added_are_noticed_within_half_a_minute_or_as_the_file_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Until then nobody reads them, and no lag tells. What brokers have told ages as slowly as ever."""
    interval, age = "topic.metadata.refresh.interval.ms", "metadata.max.age.ms"
    for file, expected in (({}, 30_000), ({interval: "5000"}, "5000")):
        given = made(monkeypatch, "Consumer", lambda file=file: connected(file).consumer(poller.DEFAULTS, {}))  # type: ignore[misc]
        assert (given[interval], given[age]) == (expected, 900_000)


# -- secrets


@pytest.mark.parametrize(
    "name",
    [
        "sasl.password",
        "ssl.key.password",
        "ssl.keystore.password",
        "ssl.key.pem",
        "ssl.keystore.pem",
        "sasl.jaas.config",
        "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.client.credentials.client.secret",
        "sasl.oauthbearer.assertion.private.key.pem",
        "sasl.oauthbearer.assertion.private.key.passphrase",
    ],
)
def test_every_secret_is_blotted_out(name: str) -> None:
    """Wherever and however often its value stands in a text, three stars are left of it."""
    subject = connected({name: "hunter2", "sasl.username": "jane"})
    assert subject.without_secrets("jane: hunter2, 'hunter2'") == "jane: ***, '***'"


def test_several_secrets_are_all_blotted_out() -> None:
    """One that is found does not hide the next."""
    subject = connected({"sasl.password": "hunter2", "ssl.key.password": "swordfish"})
    assert subject.without_secrets("swordfish, hunter2, swordfish") == "***, ***, ***"


def test_a_secret_that_is_part_of_another_leaves_nothing_of_it() -> None:
    """The longer one is blotted out whole, whichever comes first in the file."""
    for names in (("sasl.password", "ssl.key.password"), ("ssl.key.password", "sasl.password")):
        subject = connected(dict(zip(names, ("hunter", "hunter2"), strict=True)))
        assert subject.without_secrets("hunter2, hunter") == "***, ***"


def test_text_without_secrets_stays_as_it_is() -> None:
    """Neither an empty secret nor the value of another property is looked for."""
    subject = connected({"sasl.password": "", "sasl.mechanism": "PLAIN"})
    assert subject.without_secrets("PLAIN is refused") == "PLAIN is refused"


def test_a_connection_shows_no_properties() -> None:
    """Its text can be logged."""
    assert repr(connected({"sasl.password": "hunter2"})) == f"Connection(bootstrap='{CLOSED}')"


# -- log lines


def test_a_line_is_passed_on_without_secrets(said: Lines) -> None:
    """It keeps its level, says which client speaks of what, and its text goes through the redaction."""
    subject = ClientLog(connected({"sasl.password": "hunter2"}).without_secrets)
    log(subject, "hunter2 is wrong", level=logging.ERROR)
    assert said == [
        {
            "event": "kafka_client",
            "facility": "FAIL",
            "client": "consumer-1",
            "detail": "*** is wrong",
            "log_level": "error",
        }
    ]


def test_the_same_is_not_said_again_within_half_a_minute(said: Lines) -> None:
    """After that it is said once more, however often it was left out meanwhile."""
    clock = Clock()
    subject = ClientLog(unchanged, clock)
    for text, moment in [("first", 0.0), ("at once", 0.0), ("late", 29.9), ("later", 30.0), ("again", 59.9)]:
        clock.now = 1000.0 + moment
        log(subject, text)
    assert details(said) == ["first", "later"]


def test_what_another_client_or_another_part_says_is_not_the_same(said: Lines) -> None:
    """Half a minute of silence is for one kind of line of one client."""
    subject = ClientLog(unchanged, Clock())
    log(subject, "1")
    log(subject, "2", client="producer-1")
    log(subject, "3", facility="AUTH")
    log(subject, "4", client="producer-1")
    assert details(said) == ["1", "2", "3"]


def test_a_property_of_the_other_kind_of_client_is_no_news(said: Lines) -> None:
    """The one properties file serves all clients; what is left out for that does not silence what follows."""
    subject = ClientLog(unchanged, Clock())
    text = "Configuration property linger.ms is a producer property and will be ignored by this consumer instance"
    log(subject, text, facility="CONFWARN")
    log(subject, "something else", facility="CONFWARN")
    assert details(said) == ["something else"]


def test_a_line_that_cannot_be_redacted_is_dropped(said: Lines) -> None:
    """It neither raises nor says what may be a secret."""

    def fails(_: str) -> str:
        raise RuntimeError("no redaction")

    log(ClientLog(fails))
    assert said == []


@pytest.mark.parametrize("level", [logging.WARNING, 12345])
def test_a_log_that_fails_does_not_break_the_client(monkeypatch: pytest.MonkeyPatch, level: int) -> None:
    """The call that logs would lose its records; the next line is tried again."""
    tried: list[str] = []

    def fails(_: object, name: str, __: Any) -> Any:
        tried.append(name)
        raise OSError("disk full")

    own = structlog.wrap_logger(None, processors=[fails], wrapper_class=structlog.stdlib.BoundLogger)
    monkeypatch.setattr(connection, "_log", own)
    subject = ClientLog(unchanged, Clock())
    log(subject, level=level)
    log(subject, facility="AUTH")
    assert tried[-1] == "warning"


def test_a_client_says_its_lines_there(said: Lines) -> None:
    """Those of librdkafka itself come redacted, and none about properties of the other kind of client."""
    subject = connected({"sasl.password": "refused", "session.timeout.ms": "6000"})
    producer = subject.producer({}, {})
    deadline = time.monotonic() + WITHIN_S
    while not any("Connect" in text for text in details(said)) and time.monotonic() < deadline:
        producer.poll(0.05)
    assert any("failed: Connection ***" in text for text in details(said)), said
    assert not any("refused" in text or "session.timeout.ms" in text for text in details(said))
    assert all(line["client"].startswith("genesys-consumer#producer") for line in said)


# -- properties


@pytest.mark.parametrize("kind", ["Consumer", "Producer"])
def test_the_file_overrides_defaults_and_never_what_is_own(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """A default gives way to the file, what the program relies on does not, and the rest is as it was."""
    subject = connected({"linger.ms": "7", "acks": "0", "compression.type": "lz4"})
    make = subject.consumer if kind == "Consumer" else subject.producer
    given = made(monkeypatch, kind, lambda: make({"linger.ms": 5, "retries": 3}, {"acks": "all"}))
    chosen = {"linger.ms": "7", "retries": 3, "acks": "all", "compression.type": "lz4"}
    assert {name: given[name] for name in chosen} == chosen


@pytest.mark.parametrize("kind", KINDS)
def test_addresses_and_logger_are_never_overridden(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """All clients reach the brokers of the settings, and speak through the redacting log."""
    subject = connected({"bootstrap.servers": "elsewhere:1", "logger": "none", "sasl.password": "hunter2"})
    given = made(monkeypatch, kind, lambda: client(subject, kind))
    assert given["bootstrap.servers"] == CLOSED
    assert isinstance(given["logger"], ClientLog)
    assert given["logger"]._redact("hunter2") == "***"


@pytest.mark.parametrize("kind", KINDS)
def test_what_all_clients_have_may_be_overridden(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """They have a name and push no metrics, unless the file says otherwise."""
    given = made(monkeypatch, kind, lambda: client(connected({}), kind))
    assert (given["client.id"], given["enable.metrics.push"]) == ("genesys-consumer", False)
    changed = connected({"client.id": "blue", "enable.metrics.push": "true"})
    given = made(monkeypatch, kind, lambda: client(changed, kind))
    assert (given["client.id"], given["enable.metrics.push"]) == ("blue", "true")


def test_no_consumer_commits_by_itself_or_reads_what_is_not_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever makes it, and whatever the file says."""
    names = ("enable.auto.commit", "enable.auto.offset.store", "isolation.level")
    subject = connected(dict.fromkeys(names, "as in the file"))
    told = made(monkeypatch, "Consumer", lambda: client(subject, "Consumer"))
    assert [told[name] for name in names] == [False, False, "read_committed"]


def test_a_connection_is_what_the_settings_describe(tmp_path: Path) -> None:
    """Addresses and the lines of the properties file are taken over."""
    path = properties(tmp_path, **{"security.protocol": "PLAINTEXT", "sasl.password": "hunter2"})
    subject = Connection.of(settings("b:1,c:2", "topic", KAFKA_PROPERTIES_FILE=path))
    assert subject == Connection("b:1,c:2", {"security.protocol": "PLAINTEXT", "sasl.password": "hunter2"})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("no.such", "swordfish", 'No such configuration property: "no.such"'),
        ("no.hunter2", "swordfish", 'No such configuration property: "no.***"'),
        ("compression.type", "hunter2", 'Invalid value "***" for configuration property "compression.codec"'),
    ],
)
def test_a_property_that_is_not_taken_is_a_wrong_setting(kind: str, name: str, value: str, told: str) -> None:
    """The one problem names the property, and neither its text nor its traceback has a secret."""
    subject = connected({"sasl.password": "hunter2", name: value})
    with pytest.raises(SettingsError) as refused:
        client(subject, kind)
    assert refused.value.problems == (f"KAFKA_PROPERTIES_FILE: {told}",)
    assert refused.value.__context__ is None
    assert "swordfish" not in str(refused.value)


@pytest.mark.parametrize("name", ["error_cb", "stats_cb", "throttle_cb", "default.topic.config"])
def test_a_property_that_takes_no_text_is_a_wrong_setting(name: str) -> None:
    """It ends the start with a sentence, as any other bad property."""
    with pytest.raises(SettingsError, match=r"^KAFKA_PROPERTIES_FILE: ") as refused:
        client(connected({name: "hunter2", "sasl.password": "hunter2"}), "Producer")
    assert "hunter2" not in str(refused.value)


def test_a_client_that_cannot_be_made_is_a_wrong_setting() -> None:
    """What librdkafka finds only when properties come together is told in the same way."""
    subject = connected({"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN"})
    with pytest.raises(SettingsError, match=r"^KAFKA_PROPERTIES_FILE: .*sasl\.username and sasl\.password must be set"):
        client(subject, "Producer")


def test_an_admin_client_is_kept_until_it_fails() -> None:
    """The one after a failure knows nothing of brokers that the old one knew wrongly."""
    admin = Admin(Connection(CLOSED))
    with admin.client() as first:
        pass
    with pytest.raises(KafkaException), admin.client() as again:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
    with admin.client() as fresh:
        pass
    assert again is first
    assert fresh is not first


# -- why nobody answers


def test_a_question_without_an_answer_is_told_why() -> None:
    """Nobody listens there: that takes the place of the time limit, which says nothing."""
    admin = Admin(Connection(CLOSED))
    with pytest.raises(SourceUnavailable, match=r"cannot ask: _TRANSPORT: .*Connection refused"):  # noqa: SIM117
        with admin.asking("cannot ask") as client:
            client.list_topics(timeout=1)


class Telling:
    """Makes clients whose library tells something beside their answers; they hold no brokers."""

    def __init__(self, *told: int) -> None:
        self._told = list(told)
        self._hear: Callable[[KafkaError], None] | None = None

    def admin(self, hear: Callable[[KafkaError], None]) -> "Telling":
        self._hear = hear
        return self

    def poll(self, _: float) -> None:
        assert self._hear is not None
        while self._told:
            self._hear(KafkaError(self._told.pop(0)))

    def fail(self, code: int, *told: int) -> int:
        """The code of what a caller is told when a question fails with this one, and the library tells these."""
        with pytest.raises(KafkaException) as failed, Admin(self).client():  # type: ignore[arg-type]
            self._fail(code, *told)
        return error_of(failed.value).code()

    def _fail(self, code: int, *told: int) -> None:
        self._told += told
        raise KafkaException(KafkaError(code))


@pytest.mark.parametrize(
    ("failed", "told", "expected"),
    [
        (KafkaError._TIMED_OUT, [KafkaError._AUTHENTICATION, KafkaError._ALL_BROKERS_DOWN], KafkaError._AUTHENTICATION),
        (KafkaError._TRANSPORT, [KafkaError._RESOLVE, KafkaError._SSL], KafkaError._SSL),
        (KafkaError._TIMED_OUT, [KafkaError._SSL, KafkaError._TRANSPORT], KafkaError._SSL),
        (KafkaError._TIMED_OUT, [KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN], KafkaError._TRANSPORT),
        (KafkaError._TIMED_OUT, [KafkaError._ALL_BROKERS_DOWN], KafkaError._TIMED_OUT),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, [KafkaError._TRANSPORT], KafkaError.TOPIC_AUTHORIZATION_FAILED),
    ],
)
def test_the_last_reason_takes_the_place_of_what_says_none(failed: int, told: list[int], expected: int) -> None:
    """That all brokers are down is none, and an answer stays what it is."""
    assert Telling().fail(failed, *told) == expected


def test_what_was_told_before_the_question_is_no_reason() -> None:
    """A client that is kept may have lost its connection an hour ago."""
    assert Telling(KafkaError._AUTHENTICATION).fail(KafkaError._TIMED_OUT) == KafkaError._TIMED_OUT
