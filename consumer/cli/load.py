"""`load`: the first fill."""

import argparse
import asyncio
from pathlib import Path

from consumer.cli import options, output
from consumer.core.partitioner import PARTITIONERS


def add(commands: options.Commands) -> None:
    """Add the command."""
    parser = options.add(
        commands,
        "load",
        "first fill: a file of contacts into the list",
        "Takes a file of contacts (CSV, JSON objects one a line, or an Avro container) through the same rules as the\n"
        "stream, uploads what is new, and remembers it, so that the stream does not send it again. The consumers of\n"
        "the group must be stopped. Loading the same file again goes on where it stopped.\n\n" + options.SETTINGS,
        _load,
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="its names and rules: docs/operations.md")
    parser.add_argument(
        "--partitioner",
        choices=tuple(PARTITIONERS),
        help="how keys come to the partitions of the source topic; needed where its records do not tell",
    )
    options.add_config(parser)
    options.add_output(parser)


def _load(arguments: argparse.Namespace) -> int:
    from consumer.adapters.progress_bar import ProgressBar
    from consumer.operate.load import Loading, print_summary
    from consumer.settings import load

    settings = load(config=arguments.config)
    with output.logged("warning", settings.log_format), ProgressBar() as bar:
        loading = Loading(settings, arguments.file, arguments.partitioner, bar.tell)
        summary = asyncio.run(loading.run_until_signal())
    print_summary(summary, arguments.output)
    return 0
