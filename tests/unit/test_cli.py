"""The command line: help, usage errors and exit codes, without anything outside."""

import argparse
import asyncio
import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from consumer import cli
from consumer.cli import options, output as printed
from consumer.errors import FatalError, RefusedByGenesys, SettingsError, SourceUnavailable
from consumer.model import Reason
from consumer.operate.line import Line
from consumer.simulator.serve import serve
from tests.waiting import eventually

QUERY = ["--reason", "--topic", "--since", "--until", "--limit", "--config", "--output"]
OPTIONS = {
    "run": ["--until-caught-up", "--config"],
    "demo": ["--records", "--faults", "--hold", "--output"],
    "simulate-genesys": ["--port", "--rate-limit", "--fault", "--client"],
    "sample-events": ["--records", "--seed", "--config", "--output"],
    "dead-letters list": ["--records", *QUERY],
    "dead-letters replay": ["--dry-run", "--max-attempts", *QUERY],
    "check": ["--explain", "--topic", "--key", "--config", "--output"],
    "audit verify": ["--from", "--to", "--config", "--output"],
    "reconcile": ["--apply", "--delete-extra", "--config", "--output"],
    "load": ["FILE", "--partitioner", "--config", "--output"],
}


def python(*arguments: str, stdout: int = subprocess.PIPE, **environ: str) -> "subprocess.CompletedProcess[str]":
    """A new interpreter, with no settings but these."""
    return run(sys.executable, *arguments, stdout=stdout, **environ)


def run(*command: str, stdout: int = subprocess.PIPE, **environ: str) -> "subprocess.CompletedProcess[str]":
    """A process, with no settings but these."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KAFKA_", "GENESYS_", "OTEL_"))}
    return subprocess.run(  # noqa: S603 -- ours
        command, env=kept | environ, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False
    )


@pytest.mark.parametrize("command", OPTIONS)
def test_help_names_the_options_of_a_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each option is named, and the exit code is 0."""
    assert cli.main([*command.split(), "--help"]) == 0
    told = capsys.readouterr().out
    assert all(option in told for option in OPTIONS[command])


def test_help_lists_the_commands_and_says_where_to_begin(capsys: pytest.CaptureFixture[str]) -> None:
    """A newcomer is sent to the demo."""
    assert cli.main(["--help"]) == 0
    told = capsys.readouterr().out
    assert all(command.split()[0] in told for command in OPTIONS)
    assert "genesys-consumer demo" in told


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["run", "--quickly"],
        ["demo", "--records", "0"],
        ["demo", "--records", "many"],
        ["sample-events"],
        ["simulate-genesys", "--rate-limit", "-1"],
        ["dead-letters"],
        ["dead-letters", "replay", "--max-attempts", "0"],
        ["dead-letters", "list", "--since", "yesterday"],
        ["dead-letters", "replay", "--reason", "nonsense"],
        ["audit", "verify", "--from", "08:00"],
        ["simulate-genesys", "--port", "99999"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The usage is shown on standard error."""
    assert cli.main(arguments) == 2
    assert "usage: genesys-consumer" in capsys.readouterr().err


@pytest.mark.parametrize("fault", ["no-such-fault", "503:2", "slow"])
def test_a_fault_that_is_none_is_exit_code_2(fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It is named, without a trace."""
    assert cli.main(["simulate-genesys", "--port", "0", "--fault", fault]) == 2
    assert fault.partition(":")[0] in capsys.readouterr().err


def test_the_demo_has_ten_thousand_records_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """And no faults, no page that stays, and words for people."""
    made: list[dict[str, object]] = []

    class Noted:
        def __init__(self, records: int, **options: object) -> None:
            made.append({"records": records, **options})

        async def run(self) -> bool:
            return True

    monkeypatch.setattr("consumer.demo.run.Demo", Noted)
    assert [cli.main(["demo"]), cli.main(["demo", "--records", "7"])] == [0, 0]
    assert made == [{"records": records, "faults": False, "hold": False, "output": "text"} for records in (10_000, 7)]


def test_the_simulator_is_at_its_usual_port_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """There it lets any client in, without a limit and without faults."""
    served: list[tuple[object, ...]] = []

    async def noted(*options: object) -> None:
        served.append(options)

    monkeypatch.setattr("consumer.simulator.serve.serve", noted)
    told = ["--port", "8091", "--rate-limit", "7", "--client", "a:b", "--client", "c:d", "--fault", "slow=1"]
    assert [cli.main(["simulate-genesys"]), cli.main(["simulate-genesys", *told])] == [0, 0]
    assert served == [(8090, None, [], []), (8091, 7, ["slow=1"], ["a:b", "c:d"])]


async def test_the_simulator_serves_loopback_with_the_limit_and_for_the_clients_it_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whoever else asks gets no token, and the limit is of a minute."""
    serving = asyncio.create_task(serve(0, 2, [], ["suite:right"]))
    told = ""

    def tells() -> bool:
        nonlocal told
        told += capsys.readouterr().out
        return told.endswith("/\n")

    await eventually(tells, 10.0)
    try:
        match = re.search(r" at (http://127\.0\.0\.1:\d+)\n", told)
        assert match is not None
        async with aiohttp.ClientSession(match[1]) as http:
            assert [await _token(http, secret) for secret in ("wrong", "")] == ["", ""]
            token = await _token(http, "right")
            assert [await _lists(http, token) for _ in range(3)] == [200, 200, 429]
    finally:
        signal.raise_signal(signal.SIGTERM)
        await serving


async def _token(http: aiohttp.ClientSession, secret: str) -> str:
    """What the client `suite` gets for this secret."""
    form, headers = {"grant_type": "client_credentials"}, {"Authorization": aiohttp.encode_basic_auth("suite", secret)}
    async with http.post("/oauth/token", data=form, headers=headers) as answer:
        return str((await answer.json()).get("access_token", ""))


async def _lists(http: aiohttp.ClientSession, token: str) -> int:
    """The status of a request with this token."""
    async with http.get("/api/v2/outbound/contactlists", headers={"Authorization": f"Bearer {token}"}) as answer:
        return answer.status


@pytest.mark.parametrize(
    ("command", "since", "until"),
    [("audit verify", "--from", "--to"), ("dead-letters list", "--since", "--until")],
)
def test_a_time_that_ends_before_it_begins_is_exit_code_2(command: str, since: str, until: str) -> None:
    """Nothing is in it, which must not pass for nothing wrong."""
    arguments = [*command.split(), since, "2026-02-01", until, "2026-01-01"]
    ended = python("-m", "consumer", *arguments, KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    assert (ended.returncode, f"{until} must be after {since}" in ended.stderr) == (2, True)


@pytest.mark.parametrize("code", [*Reason, "genesys:contact.not.found"])
def test_a_reason_is_one_for_which_records_are_given_up(code: str) -> None:
    """By any other no letter is found, which must not pass for none being left."""
    assert options.reason(code) == code
    with pytest.raises(argparse.ArgumentTypeError, match=r"not_decodable, .* or genesys:<error code>"):
        options.reason(code[1:])


def test_a_replay_of_a_topic_that_is_no_source_topic_is_refused() -> None:
    """None of its letters would be put back."""
    ended = python(
        "-m", "consumer", "dead-letters", "replay", "--topic", "misspelt", KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1"
    )
    told = "--topic: misspelt is not in KAFKA_SOURCE_TOPICS (crm.contacts.changes)"
    assert (ended.returncode, told in ended.stderr) == (2, True)


def test_what_tells_of_a_file_is_refused_without_one() -> None:
    """It would be passed over, and all that is printed would be of other topics."""
    for option in ("--topic", "--key"):
        ended = python("-m", "consumer", "check", option, "misspelt", KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
        assert (ended.returncode, ended.stdout, "name it with --explain" in ended.stderr) == (2, "", True)


def test_a_slip_in_the_environment_is_told() -> None:
    """It does nothing else, so that nobody would notice."""
    ended = python(
        "-m", "consumer", "dead-letters", "list", "--since", "2026-02-01", "--until", "2026-01-01",
        KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1", GENESYS_DNC_LISTS="x", LOG_FORMAT="json",
    )  # fmt: skip
    assert '"event":"setting_misspelt"' in ended.stderr.replace('": "', '":"')


def test_help_answers_without_the_client_libraries() -> None:
    """What takes long to import is imported by the command that needs it."""
    heavy = "{'aiohttp', 'confluent_kafka', 'fastavro', 'rocksdict', 'opentelemetry.sdk', 'rich'}"
    code = f"import sys; from consumer import cli; cli._parser(); print(sorted({heavy} & set(sys.modules)))"
    assert python("-c", code).stdout.strip() == "[]"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize("output", ["text", "json"])
def test_results_are_printed_in_any_encoding(encoding: str, output: str) -> None:
    """Containers often have none set, and a check that cannot print its marks would say nothing at all."""
    ended = python("-m", "consumer", "check", "--output", output, PYTHONIOENCODING=encoding, KAFKA_START="\u65e5")
    assert (ended.returncode, ended.stderr) == (1, "")
    if output == "text":
        mark = "\u2717" if encoding == "utf-8" else "!!"
        assert all(line.startswith(f"{mark} settings: ") for line in ended.stdout.splitlines())
    assert "KAFKA_START: must be one of earliest, latest" in ended.stdout


def test_every_mark_is_spelt_out_where_an_encoding_lacks_it() -> None:
    """A question mark would say neither that a thing is well nor that it is not."""
    well = Line("a", holds=True, detail="")
    marks = "".join(line.mark for line in (well, well._replace(holds=False), well._replace(sure=False)))
    lacking = UnicodeEncodeError("ascii", marks, 0, 3, "ordinal not in range")
    assert printed._spelt(lacking) == ("ok!!--", 3)


def test_bad_settings_are_all_told_without_a_trace() -> None:
    """Every problem has a line of its own on standard error; the exit code is 2."""
    ended = python("-m", "consumer", "run", KAFKA_START="middle", BATCH_MAX_RECORDS="many")
    assert ended.returncode == 2
    first, *lines = ended.stderr.splitlines()
    assert first == "genesys-consumer: bad settings:"
    assert sorted(line.split(":")[0].strip() for line in lines) == [
        "BATCH_MAX_RECORDS",
        "GENESYS_CONTACT_LIST",
        "GENESYS_OAUTH_CLIENT_ID",
        "GENESYS_OAUTH_CLIENT_SECRET",
        "KAFKA_BOOTSTRAP_SERVERS",
        "KAFKA_START",
    ]
    assert ended.stdout == ""


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (FatalError("the list is gone"), 1, "genesys-consumer: stopped: the list is gone\n"),
        (SourceUnavailable("no broker"), 1, "genesys-consumer: stopped: no broker\n"),
        (SettingsError(["A: bad", "B: worse"]), 2, "genesys-consumer: bad settings:\n  A: bad\n  B: worse\n"),
        (
            ExceptionGroup("tasks", [ExceptionGroup("inner", [FatalError("deep inside")])]),
            1,
            "genesys-consumer: stopped: deep inside\n",
        ),
        (
            BaseExceptionGroup("tasks", [KeyboardInterrupt(), FatalError("the reason")]),
            1,
            "genesys-consumer: stopped: the reason\n",
        ),
    ],
    ids=["fatal", "outage", "settings", "in groups", "beside others"],
)
def test_an_error_ends_with_its_code_and_a_last_line(
    error: BaseException, code: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The project's own errors are told in a sentence, wherever in a group they are."""

    def fail(_: object) -> int:
        raise error

    monkeypatch.setattr("consumer.cli.demo._demo", fail)
    assert cli.main(["demo"]) == code
    assert capsys.readouterr().err == line


def test_whoever_stops_reading_gets_no_trace() -> None:
    """As `head` does, when it has what it wants."""
    reader, writer = os.pipe()
    os.close(reader)
    ended = python("-m", "consumer", "check", stdout=writer)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, "")


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize(
    "arguments",
    ["check", "check --output json", "--help", "dead-letters replay --help", "--version"],
)
def test_an_output_file_on_a_full_disk_is_no_bug(arguments: str, unbuffered: str) -> None:
    """Whoever redirected it can mend that: one line says so, and nothing more fails at the end of the interpreter."""
    with Path("/dev/full").open("wb") as full:
        ended = python("-m", "consumer", *arguments.split(), stdout=full.fileno(), PYTHONUNBUFFERED=unbuffered)
    told = "genesys-consumer: stopped: standard output takes nothing more: No space left on device\n"
    assert (ended.returncode, ended.stderr) == (1, told)


def test_a_full_disk_of_something_else_is_a_bug(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Standard output takes all that comes: the error is not about it."""

    def fail(_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("consumer.cli.check._check", fail)
    assert cli.main(["check"]) == 1
    assert "stopped by a bug" in capfd.readouterr().err


CLOSED = ("sh", "-c", """exec "$@" <&- >&- 2>"$TOLD" """, "sh", sys.executable)
"""How a Python begins that has no standard input and output."""


@pytest.mark.parametrize(
    ("command", "code", "first"),
    [
        ("check", 1, ""),
        ("check --output json", 1, ""),
        ("--help", 0, ""),
        ("run", 2, "genesys-consumer: bad settings:"),
    ],
)
def test_a_closed_standard_output_changes_nothing_else(command: str, code: int, first: str, tmp_path: Path) -> None:
    """The exit code is as ever, and what would be printed is told nowhere else."""
    told = tmp_path / "told"
    ended = run(*CLOSED, "-m", "consumer", *command.split(), TOLD=str(told))
    assert (ended.returncode, told.read_text().partition("\n")[0]) == (code, first)


def test_a_closed_standard_error_changes_nothing_else() -> None:
    """What would be said there is lost."""
    ended = run("sh", "-c", """exec "$@" 2>&-""", "sh", sys.executable, "-m", "consumer", "run")
    assert (ended.returncode, ended.stdout) == (2, "")


def test_no_file_gets_the_number_of_a_closed_standard_stream(tmp_path: Path) -> None:
    """The log would be written into it, be it the store's."""
    code = (
        "import os, sys; from consumer.cli import output; output.stand_in_for_closed(); "
        "sys.stderr.write(str({os.readlink(f'/proc/self/fd/{fd}') for fd in (0, 1)}))"
    )
    told = tmp_path / "told"
    run(*CLOSED, "-c", code, TOLD=str(told))
    assert told.read_text() == str({os.devnull})


def test_a_broken_pipe_of_something_else_is_a_bug(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Standard output is read: the error is not about it."""

    def fail(_: object) -> int:
        raise BrokenPipeError

    monkeypatch.setattr("consumer.cli.check._check", fail)
    assert cli.main(["check"]) == 1
    assert "\nBrokenPipeError\n" in capfd.readouterr().err


def test_deleting_without_mending_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody deletes by an option that was meant for another one."""
    assert cli.main(["reconcile", "--delete-extra"]) == 2
    assert "--apply" in capsys.readouterr().err


def test_a_bug_shows_its_trace(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What is not the project's own error is not dressed up as one, and its messages may quote a contact."""

    def fail(_: object) -> int:
        try:
            int("anna@example.com")
        except ValueError as error:
            raise ExceptionGroup("tasks", [KeyError("anna@example.com")]) from error
        return 0

    monkeypatch.setattr("consumer.cli.demo._demo", fail)
    assert cli.main(["demo"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("genesys-consumer: stopped by a bug, please report it:\nExceptionGroup\n")
    assert re.search(r"\n  tests/unit/test_cli\.py:\d+ \S+fail\n", told)
    assert {"KeyError", "ValueError"} < {*told.splitlines()}
    assert "anna" not in told


def test_an_error_of_the_project_that_should_not_come_so_far_is_a_bug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It shows its trace too, with its words: they are the project's own."""

    def fail(_: object) -> int:
        raise RefusedByGenesys("some.code")

    monkeypatch.setattr("consumer.cli.demo._demo", fail)
    assert cli.main(["demo"]) == 1
    assert "\nRefusedByGenesys: Genesys refused the request: some.code\n  " in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["2026-01-31", "2026-01-31T00:00", "2026-01-31T01:00:00+01:00", "2026-01-31T00:00:00Z"]
)
def test_times_are_utc_unless_they_say_otherwise(text: str) -> None:
    """The ways in which people write one and the same moment."""
    arguments = cli._parser().parse_args(["audit", "verify", "--from", text])
    assert arguments.since == 1_769_817_600_000


TOLD_EARLY = """
import os, signal, sys
import consumer.app, consumer.settings
from consumer import cli
from consumer.cli import output as printed

read = consumer.settings.load
def load(*, config):
    os.kill(os.getpid(), signal.SIGTERM)
    return read(config=config)

async def run(app, stop, *, until_caught_up):
    await stop.wait()
    if sys.argv[1] == "twice":
        os.kill(os.getpid(), signal.SIGTERM)

consumer.settings.load, consumer.app.App.run = load, run
sys.exit(cli.main(["run"]))
"""


@pytest.mark.parametrize(("times", "code"), [("once", 0), ("twice", 128 + signal.SIGTERM)])
def test_a_signal_is_heard_from_the_start_and_the_second_one_ends(times: str, code: int, tmp_path: Path) -> None:
    """By its own handlers: the kernel keeps a signal's usual action from process 1."""
    ended = python(
        "-c", TOLD_EARLY, times,
        KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1", GENESYS_OAUTH_CLIENT_ID="id", GENESYS_OAUTH_CLIENT_SECRET=str(tmp_path),
        GENESYS_CONTACT_LIST="list", STATE_DIR=str(tmp_path),
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (code, "")


def test_signals_pass_again_when_it_could_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever calls it from Python can still be interrupted."""
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    assert cli.main(["run"]) == 2
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & {signal.SIGINT, signal.SIGTERM}
