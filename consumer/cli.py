"""The commands. Each loads what it needs when it is called, so that `--help` answers at once.

Exit codes: 0 done, 1 a fatal error, 2 bad settings or usage; never a stack trace for what a user can mend.
"""

import argparse
import asyncio
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from consumer.errors import ConsumerError, FatalError, SettingsError, TransientError

if TYPE_CHECKING:
    from consumer.operate.dead_letters import Query
    from consumer.settings import Settings

_DESCRIPTION = """\
Keeps a Genesys Cloud outbound contact list equal to what a CRM says.

CRM change events come from Kafka (Avro), are validated, deduplicated and applied to the contact list in batches;
every record ends in one audit event. Try `genesys-consumer demo` first: it needs no server and no account.
"""

_SETTINGS = """\
Settings come from environment variables, then from --config FILE (TOML); docs/settings.md lists them all. Needed:
KAFKA_BOOTSTRAP_SERVERS, GENESYS_OAUTH_CLIENT_ID, GENESYS_OAUTH_CLIENT_SECRET, GENESYS_CONTACT_LIST.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    arguments = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        return command(arguments)
    except KeyboardInterrupt:
        return 130
    except BaseExceptionGroup as group:
        return _failed(_cause(group))
    except ConsumerError as error:
        return _failed(error)


def _cause(error: BaseException) -> BaseException:
    """The first error of the project in a group; a group without one is a bug, and shows its trace."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    own = error.subgroup(ConsumerError)
    if own is None:
        raise error
    return _cause(own.exceptions[0])


def _failed(error: BaseException) -> int:
    """Say what went wrong, on one line for each thing; the exit code."""
    if isinstance(error, SettingsError):
        _complain("bad settings:", *(f"  {problem}" for problem in error.problems))
        return 2
    if isinstance(error, FatalError | TransientError):
        _complain(f"stopped: {error}")
        return 1
    raise error


def _complain(*lines: str) -> None:
    sys.stderr.write("".join(f"genesys-consumer: {line}\n" if n == 0 else f"{line}\n" for n, line in enumerate(lines)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="genesys-consumer", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('genesys-consumer')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_run(commands)
    _add_load(commands)
    _add_demo(commands)
    _add_simulator(commands)
    _add_samples(commands)
    _add_dead_letters(commands)
    _add_audit(commands)
    _add_check(commands)
    _add_reconcile(commands)
    return parser


def _add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    help_: str,
    description: str,
    command: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name, help=help_, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(command=command)
    return parser


def _add_run(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add(
        commands,
        "run",
        "consume change events until told to stop",
        "Consumes until SIGTERM or SIGINT, then finishes what is in flight and leaves the group.\n\n" + _SETTINGS,
        _run,
    )
    parser.add_argument(
        "--until-caught-up",
        action="store_true",
        help="end once every assigned partition is settled up to the end that it had at start",
    )
    _add_config(parser)


def _add_load(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add(
        commands,
        "load",
        "first fill: a file of contacts into the list",
        "Takes a file of contacts (CSV, JSON objects one a line, or an Avro container) through the same rules as the\n"
        "stream, uploads what is new, and remembers it, so that the stream does not send it again. The consumers of\n"
        "the group must be stopped. Loading the same file again goes on where it stopped.\n\n" + _SETTINGS,
        _load,
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="its names and rules: docs/operations.md")
    parser.add_argument(
        "--partitioner",
        choices=("murmur2", "crc32", "fnv1a"),
        help="how keys come to the partitions of the source topic; needed where its records do not tell",
    )
    _add_config(parser)
    _add_output(parser)


def _add_demo(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add(
        commands,
        "demo",
        "the whole program on an embedded broker and a simulated Genesys",
        "Produces sample change events of every kind, consumes them, and compares what became of them with what must\n"
        "have. Needs no server, no account and no settings. Exit code 0 only when every number matches.",
        _demo,
    )
    parser.add_argument("--records", type=_positive, default=10_000, metavar="N", help="sample events (default 10000)")
    parser.add_argument("--faults", action="store_true", help="Genesys fails: 5xx, lost replies, resets, throttling")
    parser.add_argument("--hold", action="store_true", help="keep the status page up at the end, until Ctrl-C")
    _add_output(parser)


def _add_simulator(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add(
        commands,
        "simulate-genesys",
        "a Genesys Cloud on loopback",
        "Serves login and API of a simulated Genesys Cloud organisation on 127.0.0.1. Point the consumer at it with\n"
        "GENESYS_LOGIN_URL and GENESYS_API_URL. Its lists are shown at /simulator/lists.",
        _simulate,
    )
    parser.add_argument("--port", type=int, default=8090, metavar="P", help="port (default 8090)")
    parser.add_argument(
        "--rate-limit", type=_positive, metavar="N", help="requests per token and minute (default: none)"
    )
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="FAULT",
        help="KIND[=SECONDS][@OPERATION][:RATE], for example 503:0.05, lost_reply:0.03 or slow=0.2; may be repeated",
    )
    parser.add_argument(
        "--client", action="append", default=[], metavar="ID:SECRET", help="only these clients get a token; repeatable"
    )


def _add_samples(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add(
        commands,
        "sample-events",
        "produce sample change events to the source topic",
        "Produces sample change events of every kind to the first topic of KAFKA_SOURCE_TOPICS, framed with schema\n"
        "id 1 of the packaged schemas. Needs KAFKA_BOOTSTRAP_SERVERS.",
        _sample_events,
    )
    parser.add_argument("--records", type=_positive, required=True, metavar="N", help="how many")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="another seed, other contacts (default 0)")
    _add_config(parser)
    _add_output(parser)


def _add_dead_letters(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add_family(
        commands,
        "dead-letters",
        "records that were given up: list them, replay them",
        "Records that can never succeed as they are stand on KAFKA_DEAD_LETTER_TOPIC, unchanged and with the reason.",
    )
    _add_letters_list(parser)
    _add_letters_replay(parser)


def _add_letters_list(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add(
        commands,
        "list",
        "how many there are, by reason and topic",
        "Prints how many dead letters there are by reason and source topic, how many of them were replayed, and the\n"
        "times of the oldest and the newest. Nothing of what they hold is shown.",
        _list_letters,
    )
    parser.add_argument("--records", action="store_true", help="a line for each as well")
    _add_query(parser)


def _add_letters_replay(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add(
        commands,
        "replay",
        "put them back on their source topics",
        "Puts dead letters back on the source topic and partition from which they came, once each: what was replayed\n"
        "is remembered, so that an interrupted replay goes on where it stopped when it is run again. A replayed\n"
        "record counts where it stood first: what was delivered of its contact since is not undone.",
        _replay_letters,
    )
    parser.add_argument("--dry-run", action="store_true", help="only tell what would be done")
    parser.add_argument(
        "--max-attempts",
        type=_positive,
        default=3,
        metavar="N",
        help="leave out what was replayed N times (default 3)",
    )
    _add_query(parser)


def _add_audit(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    family = _add_family(commands, "audit", "the audit trail: check it", "What the audit topic says.")
    parser = _add(
        family,
        "verify",
        "every offset has one event, and the chains are whole",
        "Reads the audit topic and checks that every record of the source topics up to the group's offsets has\n"
        "exactly one event, and that the chain of each source partition is whole. Exit code 0 only then.",
        _verify_audit,
    )
    parser.add_argument("--from", dest="since", type=_moment, metavar="TIME", help="events from then on (ISO 8601)")
    parser.add_argument("--to", dest="until", type=_moment, metavar="TIME", help="events before then (ISO 8601)")
    _add_config(parser)
    _add_output(parser)


def _add_check(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add(
        commands,
        "check",
        "whether settings, Kafka and Genesys are as the program needs them",
        "Checks settings, brokers, topics and what ACLs allow, schemas, mappings, the OAuth client, the contact list\n"
        "and the permissions for it: one line each, with the remedy where something is wrong. Changes nothing. Exit\n"
        "code 0 when all is well, 1 otherwise.\n\n"
        "With --explain: takes a record through all stages up to Genesys, where nothing is done, and tells what each\n"
        "sees. RECORD is a file that holds the value as it came, or topic/partition/offset, which is read from Kafka.\n"
        "That prints contact data, to your terminal alone. Exit code 1 when the record is rejected.\n\n" + _SETTINGS,
        _check,
    )
    parser.add_argument("--explain", metavar="RECORD", help="show what a record becomes, step by step, instead")
    parser.add_argument("--topic", metavar="T", help="of which topic a file is (default: the first of the settings)")
    parser.add_argument("--key", metavar="K", help="what key a file's record has (default: none)")
    _add_config(parser)
    _add_output(parser)


def _add_reconcile(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add(
        commands,
        "reconcile",
        "compare the contact list with what was delivered",
        "Exports the contact list and compares it with what was delivered: which contacts are missing, too many,\n"
        "different in a managed column, or callable although the CRM withdrew them. Prints counts, no contact data.\n"
        "Consumers may go on meanwhile, save with --apply. Exit code 0: in step; 3: drift was found, mended or not;\n"
        "1: it could not be done.\n\n" + _SETTINGS,
        _reconcile,
    )
    parser.add_argument(
        "--apply",
        action="store_true",
        help="send again what is missing or different, and have nobody called who must not be; stop consumers first",
    )
    parser.add_argument(
        "--delete-extra",
        action="store_true",
        help="with --apply: delete contacts that were never delivered, or deleted",
    )
    _add_config(parser)
    _add_output(parser)


def _add_query(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", metavar="R", help="only those with this reason, such as phone_not_e164")
    parser.add_argument("--topic", metavar="T", help="only those from this source topic")
    parser.add_argument("--since", type=_moment, metavar="TIME", help="only those given up then or later (ISO 8601)")
    parser.add_argument("--until", type=_moment, metavar="TIME", help="only those given up before then (ISO 8601)")
    parser.add_argument("--limit", type=_positive, metavar="N", help="at most so many, the oldest first")
    _add_config(parser)
    _add_output(parser)


def _add_family(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, help_: str, description: str
) -> "argparse._SubParsersAction[argparse.ArgumentParser]":
    parser = commands.add_parser(name, help=help_, description=description)
    return parser.add_subparsers(title="commands", metavar="COMMAND", required=True)


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings in TOML, below the environment")


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", choices=("text", "json"), default="text", help="how the result is printed")


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _moment(text: str) -> int:
    """Milliseconds since the epoch of a time as people write it; UTC unless it says otherwise."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time in ISO 8601, such as 2026-01-31T08:00 (UTC) or 2026-01-31T08:00:00+01:00"
        ) from None
    return int(time.replace(tzinfo=time.tzinfo or UTC).timestamp() * 1000)


def _run(arguments: argparse.Namespace) -> int:
    from consumer.adapters import logs  # noqa: PLC0415 -- see the module's docstring, here and below
    from consumer.app import App  # noqa: PLC0415
    from consumer.settings import load  # noqa: PLC0415

    settings = load(config=arguments.config)
    logging = logs.configure(settings.log_level, settings.log_format)
    try:
        asyncio.run(App(settings).run_until_signal(until_caught_up=arguments.until_caught_up))
    finally:
        logging.close(deadline_s=2)
    return 0


def _load(arguments: argparse.Namespace) -> int:
    from consumer.adapters import logs  # noqa: PLC0415
    from consumer.adapters.progress_bar import ProgressBar  # noqa: PLC0415
    from consumer.operate.load import Loading, print_summary  # noqa: PLC0415
    from consumer.settings import load  # noqa: PLC0415

    settings = load(config=arguments.config)
    logging = logs.configure("warning", settings.log_format, fd=2)
    try:
        with ProgressBar() as bar:
            loading = Loading(settings, arguments.file, arguments.partitioner, bar.tell)
            summary = asyncio.run(loading.run_until_signal())
    finally:
        logging.close(deadline_s=2)
    print_summary(summary, arguments.output)
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from consumer.demo.run import Demo  # noqa: PLC0415

    demo = Demo(arguments.records, faults=arguments.faults, hold=arguments.hold, output=arguments.output)
    return 0 if asyncio.run(demo.run()) else 1


def _simulate(arguments: argparse.Namespace) -> int:
    from consumer.simulator.serve import serve  # noqa: PLC0415

    try:
        asyncio.run(serve(arguments.port, arguments.rate_limit, arguments.fault, arguments.client))
    except ValueError as error:
        _complain(str(error))
        return 2
    return 0


def _sample_events(arguments: argparse.Namespace) -> int:
    from consumer.demo.produce import produce_samples  # noqa: PLC0415
    from consumer.settings import load  # noqa: PLC0415

    settings = load(config=arguments.config, unneeded=("GENESYS_",))
    produce_samples(settings, arguments.records, arguments.seed, arguments.output)
    return 0


def _reconcile(arguments: argparse.Namespace) -> int:
    from consumer.adapters import logs  # noqa: PLC0415
    from consumer.reconcile_app import reconcile  # noqa: PLC0415
    from consumer.settings import load  # noqa: PLC0415

    if arguments.delete_extra and not arguments.apply:
        _complain("--delete-extra changes the list: give it together with --apply")
        return 2
    settings = load(config=arguments.config)
    logging = logs.configure(settings.log_level, settings.log_format, fd=sys.stderr.fileno())
    try:
        report = asyncio.run(reconcile(settings, apply=arguments.apply, delete_extra=arguments.delete_extra))
    finally:
        logging.close(deadline_s=2)
    sys.stdout.write((report.as_json() if arguments.output == "json" else report.as_text()) + "\n")
    return 3 if report.drift else 0


def _list_letters(arguments: argparse.Namespace) -> int:
    from consumer.operate.dead_letters import list_letters  # noqa: PLC0415

    with _beside(arguments) as settings:
        list_letters(settings, _query(arguments), records=arguments.records, output=arguments.output)
    return 0


def _replay_letters(arguments: argparse.Namespace) -> int:
    from consumer.operate.dead_letters import Replay  # noqa: PLC0415

    with _beside(arguments) as settings:
        replay = Replay(settings, _query(arguments), max_attempts=arguments.max_attempts, dry_run=arguments.dry_run)
        replay.run()
        replay.print_result(arguments.output)
    return 0


def _verify_audit(arguments: argparse.Namespace) -> int:
    from consumer.operate.audit import Verification  # noqa: PLC0415

    with _beside(arguments) as settings:
        verification = Verification(settings, arguments.since, arguments.until)
        verification.begin()
        whole = verification.run()
        verification.print_result(arguments.output)
    return 0 if whole else 1


def _check(arguments: argparse.Namespace) -> int:
    from consumer.adapters import logs  # noqa: PLC0415
    from consumer.operate.check import check, print_lines  # noqa: PLC0415

    if arguments.explain:
        return _explain(arguments)

    logging = logs.configure("error", None, fd=sys.stderr.fileno())
    try:
        lines = asyncio.run(check(arguments.config))
    finally:
        logging.close(deadline_s=2)
    print_lines(lines, arguments.output)
    return 0 if all(line.holds for line in lines) else 1


def _explain(arguments: argparse.Namespace) -> int:
    from consumer.operate import explain  # noqa: PLC0415
    from consumer.settings import load  # noqa: PLC0415

    settings = load(config=arguments.config, unneeded=("GENESYS_", "KAFKA_"))
    record = explain.find(settings, arguments.explain, topic=arguments.topic, key=arguments.key)
    steps = asyncio.run(explain.explain(record, settings))
    explain.print_steps(steps, arguments.output)
    return 0 if all(step.passed for step in steps) else 1


def _query(arguments: argparse.Namespace) -> "Query":
    from consumer.operate.dead_letters import Query  # noqa: PLC0415

    return Query(
        reason=arguments.reason,
        topic=arguments.topic,
        since_ms=arguments.since,
        until_ms=arguments.until,
        limit=arguments.limit,
    )


@contextmanager
def _beside(arguments: argparse.Namespace) -> "Iterator[Settings]":
    """Settings of a command that works beside the consumer, on Kafka alone; log lines leave standard output to it."""
    from consumer.adapters import logs  # noqa: PLC0415
    from consumer.settings import load  # noqa: PLC0415

    settings = load(config=arguments.config, unneeded=("GENESYS_",))
    logging = logs.configure(settings.log_level, settings.log_format, fd=sys.stderr.fileno())
    try:
        yield settings
    finally:
        logging.close(deadline_s=2)
