"""`check`, and with `--explain` what a record becomes."""

import argparse
import asyncio

from consumer.cli import options, output


def add(commands: options.Commands) -> None:
    """Add the command."""
    parser = options.add(
        commands,
        "check",
        "whether settings, Kafka and Genesys are as the program needs them",
        "Checks settings, brokers, topics and what ACLs allow, schemas, mappings, the OAuth client, the contact list\n"
        "and the permissions for it: one line each, with the remedy where something is wrong. Changes nothing. Exit\n"
        "code 0 when all is well, 1 otherwise.\n\n"
        "With --explain: takes a record through all stages up to Genesys, where nothing is done, and tells what each\n"
        "sees. RECORD is a file that holds the value as it came, or topic/partition/offset, which is read from Kafka.\n"
        "That prints contact data, to your terminal alone. Exit code 1 when the record is rejected.\n\n"
        + options.SETTINGS,
        _check,
    )
    parser.add_argument("--explain", metavar="RECORD", help="show what a record becomes, step by step, instead")
    parser.add_argument("--topic", metavar="T", help="of which topic a file is (default: the first of the settings)")
    parser.add_argument("--key", metavar="K", help="what key a file's record has (default: none)")
    options.add_config(parser)
    options.add_output(parser)


def _check(arguments: argparse.Namespace) -> int:
    from consumer.errors import SettingsError
    from consumer.operate.check import check, print_document, print_line

    if arguments.explain:
        return _explain(arguments)
    if arguments.topic is not None or arguments.key is not None:
        raise SettingsError(["--topic and --key are of a file to explain: name it with --explain"])

    with output.logged("error", None):
        in_json = arguments.output == "json"
        lines = asyncio.run(check(arguments.config, _keep_quiet if in_json else print_line))
        if in_json:
            print_document(lines)
    return 0 if all(line.holds for line in lines) else 1


def _keep_quiet(_: object) -> None:
    """All lines are printed as one document."""


def _explain(arguments: argparse.Namespace) -> int:
    from consumer.errors import SettingsError
    from consumer.operate import explain
    from consumer.settings import load

    of_kafka = explain.position(arguments.explain) is not None
    if of_kafka and (arguments.topic is not None or arguments.key is not None):
        raise SettingsError(["--topic and --key say what a file does not: a record of Kafka has its own"])
    settings = load(config=arguments.config, unneeded=("GENESYS_",) if of_kafka else ("GENESYS_", "KAFKA_"))
    with output.logged("warning", settings.log_format):
        record = explain.find(settings, arguments.explain, topic=arguments.topic, key=arguments.key)
        steps = asyncio.run(explain.explain(record, settings))
    explain.print_steps(steps, arguments.output)
    return 0 if all(step.passed for step in steps) else 1
