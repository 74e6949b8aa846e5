"""The documents tell the truth of the code: names, commands, links, examples."""

import ast
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from consumer import cli
from consumer.adapters.kafka.topics import wanted
from consumer.adapters.telemetry.adapter import Telemetry
from consumer.adapters.telemetry.metrics import Levels
from consumer.model import Outcome, Reason, TopicPartition
from consumer.properties import REGISTRY_PROPERTIES, contradictions
from consumer.setting_values import OWN_PROPERTIES, REGIONS
from consumer.settings import Settings, load, rules
from consumer.simulator.faults import Fault, FaultKind
from consumer.simulator.operations import Operation

PROJECT = Path(__file__).resolve().parents[2]
DOCS = PROJECT / "docs"
OPERATIONS = (DOCS / "operations.md").read_text(encoding="utf-8")
FORMATS = (DOCS / "formats.md").read_text(encoding="utf-8")
GENESYS = (DOCS / "genesys.md").read_text(encoding="utf-8")
PROCEDURES = (DOCS / "procedures.md").read_text(encoding="utf-8")
README = (PROJECT / "README.md").read_text(encoding="utf-8")
PAGES = [
    *(PROJECT / page for page in ("README.md", "CHANGELOG.md", "helm/README.md", "bench/README.md")),
    *sorted(DOCS.glob("*.md")),
]
README_LINES = 150

REQUIRED = {
    "KAFKA_BOOTSTRAP_SERVERS": "kafka:9092",
    "GENESYS_OAUTH_CLIENT_ID": "id",
    "GENESYS_OAUTH_CLIENT_SECRET": "secret",
    "GENESYS_CONTACT_LIST": "CRM contacts",
}
NOT_SETTINGS = {"GENESYS_CONTRACT_REGION", "GENESYS_CONTRACT_CLIENT_ID", "GENESYS_CONTRACT_CLIENT_SECRET"}
"""Variables of the contract tests, which the documents name too."""

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))


@pytest.fixture(autouse=True)
def _no_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", raising=False)


def _settings() -> Settings:
    return load(REQUIRED)


def _code(text: str) -> str:
    """What is set as code in a document, one piece a line: blocks, indented blocks, spans."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    rest = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return "\n".join([*blocks, *re.findall(r"^ {4}.*$", rest, re.MULTILINE), *re.findall(r"`([^`\n]+)`", rest)])


def _blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def _table(text: str, heading: str) -> list[str]:
    """First cells of the rows of the first table below a heading with this first cell."""
    table = text.split(f"\n| {heading} |", 1)[1].split("\n\n", 1)[0]
    return [row.split(" | ")[0].removeprefix("| ") for row in table.splitlines()[2:]]


def _spans(cells: list[str]) -> list[str]:
    return [span for cell in cells for span in re.findall(r"`([^`]+)`", cell)]


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_settings_page_is_what_the_script_prints() -> None:
    """docs/settings.md is generated: it must be what `python docs/settings_table.py` prints now."""
    done = subprocess.run(  # noqa: S603  our own script
        [sys.executable, str(DOCS / "settings_table.py")], capture_output=True, text=True, check=True, timeout=30
    )
    assert (DOCS / "settings.md").read_text(encoding="utf-8") == done.stdout


def test_numbers_are_told_with_their_bounds() -> None:
    """Who sets a number need not try out which ones are taken: docs/settings.md says so of each that has bounds."""
    text = (DOCS / "settings.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| `(\w+)` \|.*; from (-?\d+) to (-?\d+) \|$", text, re.MULTILINE)
    assert {"FUSE_DELETES", "GENESYS_MAX_IN_FLIGHT", "BATCH_MAX_BYTES"} <= {name for name, *_ in told}
    for name, low, high in told:
        parse = rules()[name].parse
        assert [parse(low), parse(high)] == [int(low), int(high)]
        for outside in (int(low) - 1, int(high) + 1):
            with pytest.raises(ValueError, match="must be a whole number"):
                parse(str(outside))


def test_readme_is_short() -> None:
    """A reader must get through the README: it has fewer lines than its limit."""
    assert len(README.splitlines()) < README_LINES


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file that exists, and an anchor in it that exists."""
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in link:
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), link
            assert not anchor or anchor in _anchors(target), link


@each_page
def test_make_targets_exist(page: Path) -> None:
    """Every `make TARGET` in a document is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z]+):", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)", _code(page.read_text(encoding="utf-8")))) <= targets


def _parses(arguments: list[str], errors: pytest.CaptureFixture[str]) -> bool:
    """Whether the program takes a command line; one that only names a command may lack what that requires."""
    try:
        cli._parser().parse_args(arguments)
    except SystemExit as end:
        lacks = "the following arguments are required" in errors.readouterr().err
        return end.code == 0 or (len(arguments) == 1 and lacks)
    return True


@each_page
def test_commands_parse(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every `genesys-consumer COMMAND` in a document exists, with the flags that the document gives it."""
    code = _code(page.read_text(encoding="utf-8")).replace("\\\n", " ")
    lines = re.findall(r"^\s*(?:[A-Z_]+=\S+ )*genesys-consumer (.+)$", code, re.MULTILINE)
    assert [line for line in lines if not _parses(shlex.split(line, comments=True), capsys)] == []


@each_page
def test_settings_exist(page: Path) -> None:
    """Every variable in a document that looks like a setting is one, or the file of a secret."""
    names = {*rules(), *(f"{name}_FILE" for name, rule in rules().items() if rule.secret)}
    families = "|".join(sorted({name.split("_")[0] for name in names}))
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(rf"(?<![\w/])(?:{families})_[A-Z0-9_]+\b", text)) <= names | NOT_SETTINGS


def test_toml_example_loads(tmp_path: Path) -> None:
    """The configuration file of docs/settings.md is one that the program takes as it stands."""
    (example,) = _blocks((DOCS / "settings.md").read_text(encoding="utf-8"), "toml")
    for path in set(re.findall(r'"/etc/genesys-consumer/secrets/([\w.-]+)"', example)):
        (tmp_path / path).write_text("ssl.ca.location=ca.crt" if path.endswith(".properties") else path)
    config = tmp_path / "config.toml"
    config.write_text(example.replace("/etc/genesys-consumer/secrets", str(tmp_path)))
    loaded = load({}, config)
    assert (loaded.kafka_source_topics, loaded.genesys_oauth_client_id) == (("crm.contacts.changes",), "client-id")


def test_metrics_are_those_of_the_program() -> None:
    """docs/operations.md has a row for each metric of the program, and none for one that is gone."""
    telemetry = Telemetry(["changes"], "group")
    telemetry.bind(
        Levels(
            breaker_state=lambda: 0,
            rate_limit_remaining=lambda: 1.0,
            in_flight=lambda: 0,
            lag=lambda: {TopicPartition("changes", 0): 0},
            stalled=lambda: {TopicPartition("changes", 0): 0.0},
            store_size=lambda: (0, 0),
            fuse_tripped=lambda: {"changes": 1, "others": 0},
        )
    )
    exposed = set(re.findall(r"^# TYPE (genesys_consumer_\w+)", telemetry.render()[0].decode(), re.MULTILINE))
    assert set(_spans(_table(OPERATIONS, "metric"))) == exposed
    assert set(re.findall(r"genesys_consumer_\w+", "".join(page.read_text("utf-8") for page in PAGES))) == exposed


def _logged() -> Iterator[str]:
    """Names of log events in the code: constants that are logged, or handed to the settler's `_wait`."""
    for path in (PROJECT / "consumer").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                logger = isinstance(node.func.value, ast.Name) and node.func.value.id in {"log", "_log"}
                if logger or node.func.attr == "_wait":
                    strings = (each.value for each in node.args if isinstance(each, ast.Constant))
                    yield from (string for string in strings if isinstance(string, str))


def test_log_events_are_explained() -> None:
    """Whoever meets a log event finds it in docs/operations.md, and no event there is one that nothing logs."""
    assert set(_spans(_table(OPERATIONS, "event"))) == {*_logged(), "log_lines_dropped"}


def test_outcomes_and_reasons_are_explained() -> None:
    """The tables of outcomes and reasons are those of audit events."""
    assert _spans(_table(OPERATIONS, "outcome")) == [*Outcome]
    assert _spans(_table(OPERATIONS, "reason")) == [*Reason, "genesys:<code>"]


def test_topics_are_made_as_the_program_makes_them() -> None:
    """The commands for output topics are those that the program itself tells when it may not create them."""
    for topic in wanted(_settings(), {"crm.contacts.changes": 4}):
        assert f"\n{topic.create_command('kafka:9092')}\n" in OPERATIONS


def test_what_two_groups_share_is_named() -> None:
    """Topics whose names do not follow the group would be shared by two lists, and must be named with the group."""
    one, other = _settings(), load(REQUIRED | {"KAFKA_GROUP_ID": "other"})
    topics = [name for name in rules() if name.startswith("KAFKA_") and name.endswith("_TOPIC")]
    shared = {name for name in topics if getattr(one, name.lower()) == getattr(other, name.lower())}
    assert shared == {"KAFKA_AUDIT_TOPIC", "KAFKA_DEAD_LETTER_TOPIC"}
    assert {"KAFKA_GROUP_ID", *shared} <= set(_spans(_table(OPERATIONS, "setting")))


def test_refused_properties_are_named() -> None:
    """The properties that the program keeps to itself are named, but for older names of the same."""
    named = set(re.findall(r"`([a-z.]+)`", OPERATIONS))
    assert OWN_PROPERTIES.keys() - named == {"metadata.broker.list", "request.required.acks"}


def test_properties_of_the_registry_are_told() -> None:
    """Each is named, those of the examples are some, and the example of a client is one that the program takes."""
    section = FORMATS.split("\n## Security of the registry connection\n", 1)[1].split("\n## ", 1)[0]
    examples = _blocks(section, "properties")
    shown = {line.partition("=")[0] for example in examples for line in example.splitlines()}
    assert shown <= set(REGISTRY_PROPERTIES)
    assert set(REGISTRY_PROPERTIES) <= shown | set(re.findall(r"`([a-z.]+)=", section))
    (client,) = [example for example in examples if "OAUTHBEARER" in example]
    assert contradictions(dict(line.split("=", 1) for line in client.splitlines())) == []


def test_audit_examples_hold() -> None:
    """The example events have the fields and the hashes of real ones, by the check that the document gives."""
    chain, batch = _blocks(OPERATIONS, "json")
    (check,) = _blocks(PROCEDURES, "python")
    values = [line.encode() for line in chain.splitlines()]
    found: dict[str, Any] = {}
    exec(check, found)  # noqa: S102  the document's own code is what is tested
    broken_at = found["broken_at"]
    assert broken_at(values) is None
    assert broken_at(values[1:]) is None
    assert broken_at([values[0], values[1].replace(b"rejected", b"delivered")]) == 1
    assert broken_at([values[1], values[1]]) == 1
    assert broken_at([values[0], values[1][:-1] + b',"outcome":"delivered"}']) == 1
    record, of_batch = json.loads((PROJECT / "schemas" / "audit_event.avsc").read_text(encoding="utf-8"))
    for schema, event in ((record, values[0]), (record, values[1]), (of_batch, batch)):
        assert [*json.loads(event)] == [field["name"] for field in schema["fields"] if "default" not in field]


def test_regions_are_those_of_the_settings() -> None:
    """docs/genesys.md has every region that the program takes, with its domain."""
    assert dict(re.findall(r"^\| `([a-z0-9-]+)` \| `([a-z0-9.-]+)` \|$", GENESYS, re.MULTILINE)) == REGIONS


def test_permissions_are_those_of_the_requests() -> None:
    """docs/genesys.md names each permission that a request of the program needs, and no other."""
    code = "".join(path.read_text(encoding="utf-8") for path in (PROJECT / "consumer/adapters/genesys").glob("*.py"))
    pattern = r"outbound:[A-Za-z]+:[a-z]+"
    assert set(re.findall(pattern, GENESYS)) == set(re.findall(pattern, code))


def test_faults_are_those_of_the_simulator() -> None:
    """The table of faults has every kind, each as it can be given, and the operations are those that faults know."""
    spelled = [Fault.parse(cell.replace("=S", "=1")) for cell in _spans(_table(GENESYS, "kind"))]
    assert {fault.kind for fault in spelled} == {*FaultKind}
    (line,) = re.findall(r"^Operations: (.*?)\.$", GENESYS, re.MULTILINE | re.DOTALL)
    assert re.findall(r"`(\w+)`", line) == [*Operation]


def _signposted() -> Iterator[tuple[Path, str]]:
    """Packages whose docstring lists their modules, with it."""
    for file in sorted((PROJECT / "consumer").rglob("__init__.py")):
        docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        if "\n- `" in docstring:
            yield file.parent, docstring


@pytest.mark.parametrize(("package", "docstring"), [pytest.param(*each, id=each[0].name) for each in _signposted()])
def test_a_package_that_lists_its_modules_lists_all_of_them(package: Path, docstring: str) -> None:
    """Who looks for something reads these first."""
    modules = {file.stem for file in package.glob("*.py")} - {"__init__"}
    assert modules - set(re.findall(r"`(\w+)`", docstring)) == set()
