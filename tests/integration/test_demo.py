"""The demo as its user runs it, and the reckoning at its end."""

import json
import os
import re
import subprocess
import sys
from collections import Counter

import pytest

from consumer.demo.run import Demo, Row, _rows
from consumer.demo.samples import Expectation, Kind
from consumer.settings import rules
from consumer.simulator.app import Simulator
from tests.kafka_cluster import PROJECT

pytestmark = pytest.mark.timeout(150)


@pytest.mark.parametrize(
    "arguments", [("--records", "2000"), ("--records", "600", "--faults")], ids=["plain", "with faults"]
)
def test_every_number_of_the_demo_matches(arguments: tuple[str, ...]) -> None:
    """Exit code 0, and each row of the result is what the demo knows it produced."""
    command = [sys.executable, "-m", "consumer", "demo", "--output", "json", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 -- our own command
    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout)
    assert result["matches"] is True
    assert [row for row in result["rows"] if not row["matches"]] == []
    seen = {row["what"]: row["seen"] for row in result["rows"]}
    assert seen["records with one audit event"] == int(arguments[1])
    assert result["genesys"]["contacts"]["requeued"] == 0


def test_people_see_what_the_readme_shows_and_at_last_what_to_do_next() -> None:
    """Every setting that a real run needs, the command that checks them, the one that runs, and where more is told."""
    command = [sys.executable, "-m", "consumer", "demo", "--records", "100"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 -- our own command
    first, *_, last = ended.stdout.splitlines()
    assert first.startswith("100 sample events are on the topic; Genesys is simulated at http://127.0.0.1:")
    readme = (PROJECT / "README.md").read_text()
    shown = re.findall(r"^ +(\w[^\n]*?) +[\d,]+ +[\d,]+ +✓$", readme.partition("make test")[0], re.MULTILINE)
    assert len(shown) > 1
    assert [row for row in shown if f" {row} " not in ended.stdout] == []
    needed = [name for name, rule in rules().items() if rule.default is None]
    told = [last.index(text) for text in (*needed, "genesys-consumer check", "genesys-consumer run")]
    assert last.startswith("Next: ")
    assert told == sorted(told)
    assert [page for page in re.findall(r"[\w/]+\.md", last) if not (PROJECT / page).is_file()] == []


def test_numbers_that_do_not_match_lead_nowhere_next(capsys: pytest.CaptureFixture[str]) -> None:
    """The last line says what that is, and not how to go on."""
    Demo(1, faults=False, hold=False, output="text")._print(_seen(outcome="stale"), Simulator())
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "The numbers do not match: this is a bug, please report it."


def test_a_demo_that_nobody_reads_ends_without_a_trace() -> None:
    """As behind `head`, when it has what it wants: not as if the numbers did not match."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "consumer", "demo", "--records", "10"]
    ended = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)  # noqa: S603 -- ours
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, "")


def _seen(*, outcome: str = "delivered") -> list[Row]:
    """The reckoning of one created contact."""
    expected = Expectation(Counter({Kind.CREATE: 1}), {"c": ("+15550100", True)})
    event: dict[str, object] = {"eventId": "t/0/0", "outcome": outcome, "reasons": []}
    return _rows(expected, [event], {"c": ("+15550100", True)}, letters=0)


def test_a_right_reckoning_matches() -> None:
    """Nothing more and nothing less than was produced."""
    assert all(row.matches for row in _seen())


def test_a_wrong_outcome_does_not_match() -> None:
    """One record that ended as something else shows in two rows: where it lacks, and where it is too many."""
    wrong = [row.what for row in _seen(outcome="stale") if not row.matches]
    assert wrong == ["delivered, or superseded before", "stale"]
