"""`run`: the consumer itself."""

import argparse
import asyncio

from consumer.cli import options, output


def add(commands: options.Commands) -> None:
    """Add the command."""
    parser = options.add(
        commands,
        "run",
        "consume change events until told to stop",
        "Consumes until SIGTERM or SIGINT, then finishes what is in flight and leaves the group.\n\n"
        + options.SETTINGS,
        _run,
    )
    parser.add_argument(
        "--until-caught-up",
        action="store_true",
        help="end once every assigned partition is settled up to the end that it had at start",
    )
    options.add_config(parser)


def _run(arguments: argparse.Namespace) -> int:
    from consumer.app import App
    from consumer.settings import load

    settings = load(config=arguments.config)
    with output.logged(settings.log_level, settings.log_format, fd=1):
        asyncio.run(App(settings).run_until_signal(until_caught_up=arguments.until_caught_up))
    return 0
