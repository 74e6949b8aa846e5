"""`demo`, `simulate-genesys` and `sample-events`: trying the program out."""

import argparse
import asyncio

from consumer.cli import options, output


def add(commands: options.Commands) -> None:
    """Add the three commands."""
    _add_demo(commands)
    _add_simulator(commands)
    _add_samples(commands)


def _add_demo(commands: options.Commands) -> None:
    parser = options.add(
        commands,
        "demo",
        "the whole program on an embedded broker and a simulated Genesys",
        "Produces sample change events of every kind, consumes them, and compares what became of them with what must\n"
        "have. Needs no server, no account and no settings. Exit code 0 only when every number matches.",
        _demo,
    )
    parser.add_argument(
        "--records", type=options.positive, default=10_000, metavar="N", help="sample events (default 10000)"
    )
    parser.add_argument("--faults", action="store_true", help="Genesys fails: 5xx, lost replies, resets, throttling")
    parser.add_argument("--hold", action="store_true", help="keep the status page up at the end, until Ctrl-C")
    options.add_output(parser)


def _add_simulator(commands: options.Commands) -> None:
    parser = options.add(
        commands,
        "simulate-genesys",
        "a Genesys Cloud on loopback",
        "Serves login and API of a simulated Genesys Cloud organisation on 127.0.0.1. Point the consumer at it with\n"
        "GENESYS_LOGIN_URL and GENESYS_API_URL. Its lists are shown at /simulator/lists.",
        _simulate,
    )
    parser.add_argument("--port", type=options.port, default=8090, metavar="P", help="port (default 8090)")
    parser.add_argument(
        "--rate-limit", type=options.positive, metavar="N", help="requests per token and minute (default: none)"
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


def _add_samples(commands: options.Commands) -> None:
    parser = options.add(
        commands,
        "sample-events",
        "produce sample change events to the source topic",
        "Produces sample change events of every kind to the first topic of KAFKA_SOURCE_TOPICS, framed with schema\n"
        "id 1 of the packaged schemas. Needs KAFKA_BOOTSTRAP_SERVERS.",
        _sample_events,
    )
    parser.add_argument("--records", type=options.positive, required=True, metavar="N", help="how many")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="another seed, other contacts (default 0)")
    options.add_config(parser)
    options.add_output(parser)


def _demo(arguments: argparse.Namespace) -> int:
    from consumer.demo.run import Demo

    demo = Demo(arguments.records, faults=arguments.faults, hold=arguments.hold, output=arguments.output)
    return 0 if asyncio.run(demo.run()) else 1


def _simulate(arguments: argparse.Namespace) -> int:
    from consumer.simulator.serve import serve

    try:
        asyncio.run(serve(arguments.port, arguments.rate_limit, arguments.fault, arguments.client))
    except ValueError as error:
        output.complain(str(error))
        return 2
    return 0


def _sample_events(arguments: argparse.Namespace) -> int:
    from consumer.demo.produce import produce_samples
    from consumer.settings import load

    settings = load(config=arguments.config, unneeded=("GENESYS_",))
    produce_samples(settings, arguments.records, arguments.seed, arguments.output)
    return 0
