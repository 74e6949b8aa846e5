"""A real Apicurio Registry on loopback, with Confluent's API beside its own.

Answers for: fetching it once with Maven, and starting it so that it answers when the call returns and is gone when the
process that started it is gone. What is registered is in its memory. May touch: `.cache/apicurio`, a process of its own
and a loopback port.
"""

import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from socket import create_server
from typing import Any, Self
from urllib.error import URLError
from urllib.request import Request, urlopen

from tests.kafka_cluster import POM, PROJECT, KafkaMissingError, launch, move_into_place

VERSION = "2.6.13.Final"
"""The newest that runs on Java 17."""

ARTIFACT = f"io.apicurio:apicurio-registry-app:{VERSION}:tar.gz:all"
KEPT = PROJECT / ".cache" / "apicurio"
READY_WITHIN_S = 240.0
STOPS_WITHIN_S = 30.0


class Apicurio:
    """One registry; a context manager.

    Attributes:
        url: Of the host.
    """

    def __init__(self) -> None:
        self.url = ""
        self._folder = Path(tempfile.mkdtemp(prefix="apicurio-"))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._start(jar())
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def confluent(self) -> str:
        """Where Confluent's API is."""
        return f"{self.url}/apis/ccompat/v7"

    def register(self, subject: str, schema: Any, **properties: Any) -> int:
        """Register a schema, which is JSON or text; returns its id."""
        text = schema if isinstance(schema, str) else json.dumps(schema)
        body = json.dumps({"schema": text, **properties}).encode()
        return int(self.ask(f"/apis/ccompat/v7/subjects/{subject}/versions", body)["id"])

    def ask(self, path: str, body: bytes | None = None) -> Any:
        """The JSON that a path answers with."""
        request = Request(self.url + path, body, {"Content-Type": "application/json"})  # noqa: S310  # loopback
        with urlopen(request, timeout=STOPS_WITHIN_S) as answer:  # noqa: S310
            return json.load(answer)

    def stop(self) -> None:
        """End it, and remove what it wrote."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOPS_WITHIN_S)
        shutil.rmtree(self._folder)

    def _start(self, jar: Path) -> None:
        with create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        java = ["java", "-Xmx512m", "-XX:TieredStopAtLevel=1", f"-Dquarkus.http.port={port}"]
        log = self._folder / "registry.log"
        self._process = launch([*java, "-Dquarkus.http.host=127.0.0.1", "-jar", str(jar)], log)
        deadline = time.monotonic() + READY_WITHIN_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the registry did not get ready; its log ends:\n{log.read_text()[-2000:]}")
            time.sleep(0.2)

    def _answers(self) -> bool:
        try:
            return bool(self.ask("/apis/ccompat/v7/schemas/types"))
        except (URLError, OSError, ValueError):
            return False


def jar() -> Path:
    """The registry's jar; Maven fetches it the first time.

    Raises:
        KafkaMissingError: Java or, for the first time, Maven is not installed.
    """
    folder = KEPT / VERSION
    if not folder.is_dir():
        _fetch(folder)
    (found,) = folder.glob("*-runner.jar")
    return found


def _fetch(folder: Path) -> None:
    missing = [command for command in ("java", "mvn") if not shutil.which(command)]
    if missing:
        raise KafkaMissingError(f"Apicurio needs {' and '.join(missing)}, not found on this machine")
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=VERSION, dir=folder.parent))
    goal = ["dependency:copy", f"-Dartifact={ARTIFACT}", f"-DoutputDirectory={fresh}"]
    maven = ["mvn", "-B", "-q", "--strict-checksums", "-f", str(POM), *goal]
    try:
        done = subprocess.run(maven, capture_output=True, text=True, check=False)  # noqa: S603  # our own
        if done.returncode:
            raise AssertionError(f"Maven could not fetch Apicurio:\n{done.stdout}{done.stderr}")
        (archive,) = fresh.glob("*.tar.gz")
        shutil.unpack_archive(archive, fresh, filter="data")
        archive.unlink()
        move_into_place(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
