"""How commands are added to the command line: what their help looks like, and the options that several of them have."""

import argparse
import re
import sys
from collections.abc import Callable
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from consumer.core.moments import milliseconds
from consumer.errors import SettingsError
from consumer.model import Reason

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"  # noqa: SLF001 -- it has no public name
"""Where commands are added: to the program, or to a family of commands."""

_LAST_PORT = 65_535

SETTINGS = """\
Settings come from environment variables, then from --config FILE (TOML); docs/settings.md lists them all. Needed:
KAFKA_BOOTSTRAP_SERVERS, GENESYS_OAUTH_CLIENT_ID, GENESYS_OAUTH_CLIENT_SECRET, GENESYS_CONTACT_LIST.
"""


class Parser(argparse.ArgumentParser):
    """One that says so where its help cannot be written: argparse keeps that to itself, and ends with 0."""

    def _print_message(  # type: ignore[explicit-override]  # typing.override is of Python 3.12
        self, message: str, file: "SupportsWrite[str] | None" = None
    ) -> None:
        if file is not None and file is sys.stdout:
            file.write(message)
        else:
            super()._print_message(message, file)


def add(
    commands: Commands, name: str, help_: str, description: str, command: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    """Add a command.

    Args:
        commands: What it is added to.
        name: Of the command.
        help_: What it is for, in the list of commands.
        description: What it does, in its own help.
        command: Carries it out; the exit code.
    """
    parser = commands.add_parser(
        name, help=help_, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(command=command)
    return parser


def add_family(commands: Commands, name: str, help_: str, description: str) -> Commands:
    """Add a name that does nothing itself but has commands below it."""
    parser = commands.add_parser(name, help=help_, description=description)
    return parser.add_subparsers(title="commands", metavar="COMMAND", required=True)


def add_config(parser: argparse.ArgumentParser) -> None:
    """For commands that have settings."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings in TOML, below the environment")


def add_output(parser: argparse.ArgumentParser) -> None:
    """For commands that print a result."""
    parser.add_argument("--output", choices=("text", "json"), default="text", help="how the result is printed")


def positive(text: str) -> int:
    """A whole number above 0."""
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def port(text: str) -> int:
    """A port; 0 is any that is free."""
    if not re.fullmatch("[0-9]{1,5}", text) or int(text) > _LAST_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: a whole number up to {_LAST_PORT}")
    return int(text)


def reason(text: str) -> str:
    """A code for which records are given up: one of ours, or Genesys' own behind `genesys:`."""
    if text not in {*Reason} and not text.startswith("genesys:"):
        raise argparse.ArgumentTypeError(f"{text!r} is no reason: {', '.join(Reason)} or genesys:<error code>")
    return text


def refuse_backwards(first: str, since: int | None, last: str, until: int | None) -> None:
    """Refuse two moments between which there is no time, each given with its option.

    Raises:
        SettingsError: The second is not after the first.
    """
    if since is not None and until is not None and since >= until:
        raise SettingsError([f"{last} must be after {first}"])


def moment(text: str) -> int:
    """Milliseconds since the epoch of a time as people write it; UTC unless it says otherwise."""
    try:
        return milliseconds(text, zone=UTC)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time in ISO 8601, such as 2026-01-31T08:00 (UTC) or 2026-01-31T08:00:00+01:00"
        ) from None
