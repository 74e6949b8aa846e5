"""`audit verify`."""

import argparse

from consumer.cli import options, output


def add(commands: options.Commands) -> None:
    """Add the command, in its family."""
    family = options.add_family(commands, "audit", "the audit trail: check it", "What the audit topic says.")
    parser = options.add(
        family,
        "verify",
        "every offset has one event, and the chains are whole",
        "Reads the audit topic and checks that every record of the source topics up to the group's offsets has\n"
        "exactly one event, and that the chain of each source partition is whole. Exit code 0 only then, and if there\n"
        "is an event at all.",
        _verify,
    )
    parser.add_argument(
        "--from", dest="since", type=options.moment, metavar="TIME", help="events from then on (ISO 8601)"
    )
    parser.add_argument("--to", dest="until", type=options.moment, metavar="TIME", help="events before then (ISO 8601)")
    options.add_config(parser)
    options.add_output(parser)


def _verify(arguments: argparse.Namespace) -> int:
    from consumer.operate.audit import Verification

    options.refuse_backwards("--from", arguments.since, "--to", arguments.until)
    with output.beside(arguments) as settings:
        verification = Verification(settings, arguments.since, arguments.until)
        verification.begin()
        whole = verification.run()
        verification.print_result(arguments.output)
    return 0 if whole else 1
