"""The programs that do the job: ours, the bare calls of its libraries, and the same job in three stream libraries.

The peers have an environment of their own, which `make bench` makes.
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_PROJECT = Path(__file__).resolve().parents[1]
_PEERS_PYTHON = str(_PROJECT / ".cache" / "peers" / "bin" / "python")
_PEERS_MEASURED = ("quixstreams", "faststream", "faust-streaming", "confluent-kafka", "aiokafka", "rocksdict")
_TELL_VERSIONS = """
import platform, sys
from importlib.metadata import version
print(", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in sys.argv[1:])]))
"""


@dataclass(frozen=True)
class Program:
    """A module that consumes until SIGTERM, set up by the environment.

    Attributes:
        name: In tables.
        module: With its arguments.
        python: The interpreter, with its libraries.
    """

    name: str
    module: tuple[str, ...]
    python: str = sys.executable


OURS = Program("genesys-consumer", ("consumer", "run"))
FLOOR = Program("floor", ("bench.floor",))
PEERS = (
    Program("Quix Streams", ("bench.peers.quix",), _PEERS_PYTHON),
    Program("FastStream", ("bench.peers.faststream",), _PEERS_PYTHON),
    Program("faust-streaming", ("bench.peers.faust", "worker", "--without-web", "--loglevel", "warn"), _PEERS_PYTHON),
)
COMPARED = (OURS, *PEERS)
ALL = (*COMPARED, FLOOR)


def peer_versions() -> str:
    """What the peers run on, as their environment says."""
    command = (_PEERS_PYTHON, "-c", _TELL_VERSIONS, *_PEERS_MEASURED)
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603 -- ours
