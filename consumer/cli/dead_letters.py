"""`dead-letters list` and `dead-letters replay`."""

import argparse
from typing import TYPE_CHECKING

from consumer.cli import options, output

if TYPE_CHECKING:
    from consumer.operate.dead_letters import Query


def add(commands: options.Commands) -> None:
    """Add the commands, as a family."""
    family = options.add_family(
        commands,
        "dead-letters",
        "records that were given up: list them, replay them",
        "Records that can never succeed as they are stand on KAFKA_DEAD_LETTER_TOPIC, unchanged and with the reason.",
    )
    _add_list(family)
    _add_replay(family)


def _add_list(family: options.Commands) -> None:
    parser = options.add(
        family,
        "list",
        "how many there are, by reason and topic",
        "Prints how many dead letters there are by reason and source topic, how many of them were replayed, and the\n"
        "times of the oldest and the newest. Nothing of what they hold is shown.",
        _list,
    )
    parser.add_argument("--records", action="store_true", help="a line for each as well")
    _add_query(parser)


def _add_replay(family: options.Commands) -> None:
    parser = options.add(
        family,
        "replay",
        "put them back on their source topics",
        "Puts dead letters back on the source topic and partition from which they came, once each: what was replayed\n"
        "is remembered, so that an interrupted replay goes on where it stopped when it is run again. A replayed\n"
        "record counts where it stood first: what was delivered of its contact since is not undone.",
        _replay,
    )
    parser.add_argument("--dry-run", action="store_true", help="only tell what would be done")
    parser.add_argument(
        "--max-attempts",
        type=options.positive,
        default=3,
        metavar="N",
        help="leave out what was replayed N times (default 3)",
    )
    _add_query(parser)


def _add_query(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--reason", type=options.reason, metavar="R", help="only those with this reason, such as phone_not_e164"
    )
    parser.add_argument("--topic", metavar="T", help="only those from this source topic")
    parser.add_argument(
        "--since", type=options.moment, metavar="TIME", help="only those given up then or later (ISO 8601)"
    )
    parser.add_argument(
        "--until", type=options.moment, metavar="TIME", help="only those given up before then (ISO 8601)"
    )
    parser.add_argument("--limit", type=options.positive, metavar="N", help="at most so many, the oldest first")
    options.add_config(parser)
    options.add_output(parser)


def _query(arguments: argparse.Namespace) -> "Query":
    from consumer.operate.dead_letters import Query

    options.refuse_backwards("--since", arguments.since, "--until", arguments.until)
    return Query(
        reason=arguments.reason,
        topic=arguments.topic,
        since_ms=arguments.since,
        until_ms=arguments.until,
        limit=arguments.limit,
    )


def _list(arguments: argparse.Namespace) -> int:
    from consumer.operate.listing import list_letters

    with output.beside(arguments) as settings:
        list_letters(settings, _query(arguments), records=arguments.records, output=arguments.output)
    return 0


def _replay(arguments: argparse.Namespace) -> int:
    from consumer.operate.replaying import Replay

    with output.beside(arguments) as settings:
        query = _query(arguments)
        query.refuse_other_topics(settings)
        replay = Replay(settings, query, max_attempts=arguments.max_attempts, dry_run=arguments.dry_run)
        replay.run()
        replay.print_result(arguments.output)
    return 0
