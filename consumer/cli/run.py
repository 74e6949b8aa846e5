"""`run`: the consumer itself."""

import argparse
import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def _signals_held() -> Iterator[None]:
    """Hold back what tells to stop until somebody listens: as process 1 it would be lost without a trace."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@_signals_held()
def _run(arguments: argparse.Namespace) -> int:
    from consumer.app import App
    from consumer.settings import load

    settings = load(config=arguments.config)
    with output.logged(settings.log_level, settings.log_format, fd=1):
        asyncio.run(App(settings).run_until_signal(until_caught_up=arguments.until_caught_up))
    return 0
