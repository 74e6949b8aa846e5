"""The demo: an embedded broker, a simulated Genesys, sample events, the real consumer, and a reckoning at the end.

The broker is librdkafka's mock cluster, which comes with the client library: it speaks the Kafka protocol on loopback
and needs no installation. It does not hide aborted transactions and keeps no group offsets across them, which a demo
can do without. Everything else is what `run` uses.
"""

import asyncio
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import orjson
from confluent_kafka import Producer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from consumer.adapters import logs
from consumer.adapters.kafka.bounded import BoundedReader, spans
from consumer.adapters.kafka.connection import Admin, Connection
from consumer.app import App
from consumer.demo.produce import produce
from consumer.demo.samples import ATTRIBUTE, Expectation, Kind
from consumer.errors import FatalError
from consumer.settings import Settings, load
from consumer.simulator.app import Simulator
from consumer.simulator.faults import Fault

LIST = "demo"
FAULTS = ("503:0.04", "500:0.02", "429=1:0.03", "reset:0.02", "lost_reply:0.03", "truncated:0.01", "slow=0.2:0.05")
"""What goes wrong with `--faults`: kinds and how often, of all requests."""

DEADLINE_S = 600.0
REFRESH_S = 0.25
LINE_EVERY_S = 2.0

_NEXT = (
    "Next: a real Kafka and your Genesys organisation. Set KAFKA_BOOTSTRAP_SERVERS, GENESYS_OAUTH_CLIENT_ID, "
    "GENESYS_OAUTH_CLIENT_SECRET and GENESYS_CONTACT_LIST, then: genesys-consumer "
    "check, and when all is well genesys-consumer run (README.md, docs/operations.md)"
)


class Row(NamedTuple):
    """One line of the reckoning."""

    what: str
    expected: int
    seen: int

    @property
    def matches(self) -> bool:
        """Whether the demo saw what it had to."""
        return self.expected == self.seen


class _Piped(Console):
    def on_broken_pipe(self) -> None:  # type: ignore[explicit-override]  # typing has it from 3.12
        """Leave it to the command line, which knows what it means that nobody reads."""
        raise  # noqa: PLE0704 -- called where the error is handled


class Demo:
    """One run of the demo.

    Args:
        records: Sample events.
        faults: Let Genesys fail now and then.
        hold: Keep the status page up at the end.
        output: `text` or `json`.
    """

    def __init__(self, records: int, *, faults: bool, hold: bool, output: str) -> None:
        self._records = records
        self._faults = faults
        self._hold = hold
        self._json = output == "json"
        self._console = _Piped(stderr=self._json, highlight=False)
        self._stop = asyncio.Event()
        self._started = time.monotonic()

    async def run(self) -> bool:
        """Run it all; whether every number matches."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop.set)
        logging = logs.configure("error", "console", fd=2)
        broker = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "embedded", "log_level": 0})
        simulator = Simulator(faults=[Fault.parse(fault) for fault in FAULTS] if self._faults else ())
        try:
            async with simulator:
                with tempfile.TemporaryDirectory(prefix="genesys-consumer-demo-") as directory:
                    return await self._play(broker, simulator, Path(directory))
        finally:
            logging.close(deadline_s=2)

    async def _play(self, broker: Producer, simulator: Simulator, directory: Path) -> bool:
        settings = self._settings(_address(broker), simulator.url, directory)
        expected = await asyncio.to_thread(produce, broker, settings.kafka_source_topics[0], self._records, 0)
        self._say(f"{self._records:,} sample events are on the topic; Genesys is simulated at {simulator.url}")
        app = App(settings)
        running = asyncio.create_task(app.run(self._stop))
        await self._watch(app, running)
        if self._stop.is_set():
            await running
            raise FatalError("the demo was told to stop before its end")
        matches = await self._reckon(settings, simulator, expected) if not running.done() else False
        if self._hold and not running.done():
            self._say(f"The status page stays at http://127.0.0.1:{app.server.port}/ until Ctrl-C.")
            await self._stop.wait()
        self._stop.set()
        await running
        return matches

    def _settings(self, bootstrap: str, url: str, directory: Path) -> Settings:
        return load(
            {
                "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
                "GENESYS_OAUTH_CLIENT_ID": "demo",
                "GENESYS_OAUTH_CLIENT_SECRET": "demo",
                "GENESYS_CONTACT_LIST": LIST,
                "GENESYS_ATTRIBUTE_COLUMNS": ATTRIBUTE,
                "GENESYS_LOGIN_URL": url,
                "GENESYS_API_URL": url,
                "GENESYS_REQUESTS_PER_MINUTE": "3000",
                "GENESYS_REQUEST_TIMEOUT_S": "5",
                "BATCH_LINGER_MS": "100",
                "STATE_DIR": str(directory),
                "HTTP_ADDRESS": "127.0.0.1:0",
            }
        )

    # -- what can be seen meanwhile

    async def _watch(self, app: App, running: asyncio.Task[None]) -> None:
        """Show what happens until every record is settled, or the run ends."""
        with Live(console=self._console, refresh_per_second=4, transient=True) as live:
            next_line = 0.0
            while not running.done() and not self._stop.is_set() and _settled(app.status()) < self._records:
                if time.monotonic() - self._started > DEADLINE_S:
                    raise FatalError(f"the demo did not end within {DEADLINE_S:.0f} s: {app.status()}")
                if self._console.is_terminal:
                    live.update(self._table(app))
                elif time.monotonic() >= next_line:
                    next_line = time.monotonic() + LINE_EVERY_S
                    self._say(_line(app.status()))
                await asyncio.wait({running}, timeout=REFRESH_S)
        if running.done():
            await running

    def _table(self, app: App) -> Table:
        status = app.status()
        table = Table(
            title=f"genesys-consumer demo · status page http://127.0.0.1:{app.server.port}/", title_justify="left"
        )
        table.add_column("")
        table.add_column("now", justify="right")
        table.add_row("settled records", f"{_settled(status):,} of {self._records:,}")
        for outcome, count in _counts(status).items():
            table.add_row(f"  {outcome}", f"{count:,}")
        for name in ("state", "reason", "breaker", "requests_in_flight", "contacts_under_way", "records_held"):
            table.add_row(name.replace("_", " "), str(status.get(name) or "-"))
        return table

    def _say(self, line: str) -> None:
        self._console.print(line, soft_wrap=True)

    # -- the reckoning

    async def _reckon(self, settings: Settings, simulator: Simulator, expected: Expectation) -> bool:
        audit = await asyncio.to_thread(_read, settings.kafka_bootstrap_servers, settings.kafka_audit_topic)
        letters = await asyncio.to_thread(_read, settings.kafka_bootstrap_servers, settings.kafka_dead_letter_topic)
        events = [event for event in map(orjson.loads, audit) if event["type"] == "record"]
        listed = {
            contact["data"]["external_id"]: (contact["data"]["phone_number"], contact["callable"])
            for contact in simulator.contacts(LIST).values()
        }
        rows = _rows(expected, events, listed, len(letters))
        self._print(rows, simulator)
        return all(row.matches for row in rows)

    def _print(self, rows: list[Row], simulator: Simulator) -> None:
        seconds = time.monotonic() - self._started
        if self._json:
            result = {"matches": all(row.matches for row in rows), "seconds": round(seconds, 1)}
            lines = [{**row._asdict(), "matches": row.matches} for row in rows]
            sys.stdout.write(orjson.dumps({**result, "rows": lines, "genesys": simulator.stats()}).decode() + "\n")
            return
        table = Table(title=f"What became of them, after {seconds:.1f} s", title_justify="left")
        for name in ("", "expected", "seen", ""):
            table.add_column(name, justify="left" if not name else "right")
        for row in rows:
            mark = "[green]✓[/]" if row.matches else "[bold red]✗[/]"
            table.add_row(row.what, f"{row.expected:,}", f"{row.seen:,}", mark)
        self._console.print(table)
        self._say(
            _NEXT if all(row.matches for row in rows) else "The numbers do not match: this is a bug, please report it."
        )


def _rows(
    expected: Expectation,
    events: list[dict[str, object]],
    listed: Mapping[str, tuple[str, bool]],
    letters: int,
) -> list[Row]:
    """Everything that the demo knows it produced, against what it sees."""
    outcomes = Counter(str(event["outcome"]) for event in events)
    reasons = Counter(str(reason) for event in events for reason in event["reasons"])  # type: ignore[attr-defined]
    count = expected.count
    changes = count(Kind.CREATE, Kind.UPDATE, Kind.WITHDRAW, Kind.DELETE, Kind.TOMBSTONE)
    rejected = count(Kind.BAD_PHONE, Kind.BAD_EMAIL, Kind.CONFLICT, Kind.UNDECODABLE)
    right = sum(1 for name, contact in expected.contacts.items() if listed.get(name) == contact)
    may_be_called = sum(callable_ for _, callable_ in listed.values())
    return [
        Row("records with one audit event", expected.kinds.total(), len({event["eventId"] for event in events})),
        Row("audit events", expected.kinds.total(), len(events)),
        Row("delivered, or superseded before", changes, outcomes["delivered"] + outcomes["superseded"]),
        Row("duplicate", count(Kind.DUPLICATE), outcomes["duplicate"]),
        Row("stale", count(Kind.STALE), outcomes["stale"]),
        Row("rejected: phone_not_e164", count(Kind.BAD_PHONE), reasons["phone_not_e164"]),
        Row("rejected: email_invalid", count(Kind.BAD_EMAIL), reasons["email_invalid"]),
        Row(
            "rejected: consent_conflicts_with_do_not_call",
            count(Kind.CONFLICT),
            reasons["consent_conflicts_with_do_not_call"],
        ),
        Row("rejected: not_decodable", count(Kind.UNDECODABLE), reasons["not_decodable"]),
        Row("undeliverable: refused by Genesys", count(Kind.REFUSED), outcomes["undeliverable"]),
        Row("dead letters", rejected + count(Kind.REFUSED), letters),
        Row("contacts in Genesys", len(expected.contacts), len(listed)),
        Row("  with the right phone and callable", len(expected.contacts), right),
        Row("  that may be called", sum(ok for _, ok in expected.contacts.values()), may_be_called),
    ]


def _counts(status: Mapping[str, object]) -> dict[str, int]:
    outcomes = status.get("outcomes")
    return dict(outcomes) if isinstance(outcomes, dict) else {}


def _settled(status: Mapping[str, object]) -> int:
    return sum(_counts(status).values())


def _line(status: Mapping[str, object]) -> str:
    outcomes = ", ".join(f"{count:,} {outcome}" for outcome, count in _counts(status).items() if count)
    reason = f" ({status['reason']})" if status.get("reason") else ""
    return f"  {status['state']}{reason}: {outcomes or 'nothing settled yet'}"


def _address(broker: Producer) -> str:
    """Where the embedded broker listens."""
    brokers = broker.list_topics(timeout=10).brokers.values()
    return ",".join(f"{each.host}:{each.port}" for each in brokers)


def _read(bootstrap: str, topic: str) -> list[bytes]:
    """All values of a topic."""
    connection = Connection(bootstrap)
    with closing(BoundedReader(connection, "demo-reader", spans(Admin(connection), topic))) as reader:
        return [message.value() or b"" for message in reader]
