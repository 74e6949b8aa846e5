"""Programs in Go that tests of the chart run.

Answers for: finding them, or building them once with Go, and running them. May touch: `.cache/bin` and processes of its
own.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
BIN = PROJECT / ".cache" / "bin"

BUILD_WITHIN_S = 540.0


class ToolMissingError(Exception):
    """A program is not there, and this machine cannot build it; the text names what it lacks."""


class ToolFailedError(Exception):
    """A program refused; the text is what it wrote."""


def binary(package: str, version: str) -> Path:
    """Returns a program: the one on the path, else the one in `.cache/bin`, which Go builds the first time.

    Raises:
        ToolMissingError: Neither the program nor Go is installed, or the build failed.
    """
    name = package.rpartition("/")[2]
    if installed := shutil.which(name):
        return Path(installed)
    if not (BIN / name).exists():
        _build(name, package, version)
    return BIN / name


def found(package: str, version: str) -> Path:
    """A program; without it the test is skipped, or failed where CI=true: there nothing may be skipped."""
    try:
        return binary(package, version)
    except ToolMissingError as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))


def _build(name: str, package: str, version: str) -> None:
    """In a module of its own: `go install` takes no package whose module replaces others, as Prometheus' does."""
    go = shutil.which("go")
    if not go:
        raise ToolMissingError(f"the chart's tests need {name}, or Go to build it: neither was found on this machine")
    BIN.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=BIN) as module:
        try:
            for step in (["mod", "init", "tool"], ["get", f"{package}@{version}"], ["build", "-o", name, package]):
                run([go, "-C", module, *step], BUILD_WITHIN_S)
        except ToolFailedError as failed:
            raise ToolMissingError(f"Go could not build {package}@{version}:\n{failed}") from None
        Path(module, name).replace(BIN / name)


def run(command: list[str], within_s: float) -> str:
    """Returns what the command wrote.

    Raises:
        ToolFailedError: It did not end in time, or with another code than 0.
    """
    try:
        done = subprocess.run(  # noqa: S603  our own command
            command, capture_output=True, text=True, check=False, timeout=within_s
        )
    except subprocess.TimeoutExpired:
        raise ToolFailedError(f"{command[0]} did not end within {within_s:.0f} s") from None
    if done.returncode:
        raise ToolFailedError(done.stdout + done.stderr)
    return done.stdout + done.stderr
