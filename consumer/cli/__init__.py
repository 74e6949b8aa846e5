"""The command line: which commands there are, and how an error ends the program.

Each module has a command, or a few that belong together, and loads what it needs when it is called, so that `--help`
answers at once. `options` has what several of them ask for, `output` what they say beside their results.

Exit codes: 0 done, 1 a fatal error, 2 bad settings or usage, 3 drift that `reconcile` found, 130 Ctrl-C, 141 nobody
reads what is printed; never a stack trace for what a user can mend, and in none the messages of what failed: they may
quote contact data.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version

from consumer.cli import audit, check, dead_letters, demo, load, options, output, reconcile, run
from consumer.errors import ConsumerError, FatalError, SettingsError, TransientError

_DESCRIPTION = """\
Keeps a Genesys Cloud outbound contact list equal to what a CRM says.

CRM change events come from Kafka (Avro or JSON), are validated, deduplicated and applied to the contact list in
batches; every record ends in one audit event. Try `genesys-consumer demo` first: it needs no server and no account.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    output.stand_in_for_closed()
    output.spell_out()
    try:
        code = _run(argv)
        sys.stdout.flush()  # here rather than at the end of the interpreter, which would show a trace
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError as error:
        return 141 if output.is_unread() else _failed(error)
    except OSError as error:
        refusal = output.refusal()
        return _failed(FatalError(f"standard output takes nothing more: {refusal}") if refusal else error)
    except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 -- the interpreter would print its messages
        return _failed(_cause(error))
    return code


def _run(argv: Sequence[str] | None) -> int:
    """What was asked for; the exit code, also of help and of wrong usage."""
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as ended:
        return int(ended.code or 0)
    command: Callable[[argparse.Namespace], int] = arguments.command
    return command(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = options.Parser(
        prog="genesys-consumer", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('genesys-consumer')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (run.add, load.add, demo.add, dead_letters.add, audit.add, check.add, reconcile.add):
        add(commands)
    return parser


def _cause(error: BaseException) -> BaseException:
    """The first error of the project in a group, and otherwise the error itself."""
    own = error.subgroup(ConsumerError) if isinstance(error, BaseExceptionGroup) else None
    return error if own is None else _cause(own.exceptions[0])


def _failed(error: BaseException) -> int:
    """Say what went wrong, on one line for each thing, and of a bug where it is; the exit code."""
    if isinstance(error, SettingsError):
        output.complain("bad settings:", *(f"  {problem}" for problem in error.problems))
        return 2
    if isinstance(error, FatalError | TransientError):
        output.complain(f"stopped: {error}")
        return 1
    from consumer.adapters import logs

    output.complain("stopped by a bug, please report it:", logs.trace(error))
    return 1
