"""`reconcile`: the contact list against what was delivered."""

import argparse
import asyncio
import sys

from consumer.cli import options, output


def add(commands: options.Commands) -> None:
    """Add the command."""
    parser = options.add(
        commands,
        "reconcile",
        "compare the contact list with what was delivered",
        "Exports the contact list and compares it with what was delivered: which contacts are missing, too many,\n"
        "different in a managed column, or callable although the CRM withdrew them. Prints counts, no contact data.\n"
        "Consumers may go on meanwhile, save with --apply. Exit code 0: in step; 3: drift was found, mended or not;\n"
        "1: it could not be done.\n\n" + options.SETTINGS,
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
    options.add_config(parser)
    options.add_output(parser)


def _reconcile(arguments: argparse.Namespace) -> int:
    from consumer.reconcile_app import reconcile
    from consumer.settings import load

    if arguments.delete_extra and not arguments.apply:
        output.complain("--delete-extra changes the list: give it together with --apply")
        return 2
    settings = load(config=arguments.config)
    with output.logged(settings.log_level, settings.log_format):
        report = asyncio.run(reconcile(settings, apply=arguments.apply, delete_extra=arguments.delete_extra))
    sys.stdout.write((report.as_json() if arguments.output == "json" else report.as_text()) + "\n")
    return 3 if report.drift else 0
