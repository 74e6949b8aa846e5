"""The commands. Each loads what it needs when it is called, so that `--help` answers at once.

Exit codes: 0 done, 1 a fatal error, 2 bad settings or usage; never a stack trace for what a user can mend.
"""

import argparse
import asyncio
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from consumer.errors import ConsumerError, FatalError, SettingsError, TransientError

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


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings in TOML, below the environment")


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", choices=("text", "json"), default="text", help="how the result is printed")


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


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
    from consumer.loading import Loading, told  # noqa: PLC0415
    from consumer.settings import load  # noqa: PLC0415

    settings = load(config=arguments.config)
    logging = logs.configure("warning", settings.log_format, fd=2)
    try:
        with ProgressBar() as bar:
            loading = Loading(settings, arguments.file, arguments.partitioner, bar.tell)
            summary = asyncio.run(loading.run_until_signal())
    finally:
        logging.close(deadline_s=2)
    sys.stdout.write(told(summary, arguments.output))
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
