"""Holds every request that our client makes while the tests run against tests/data/genesys/contract.json.

A plugin of pytest. It looks at a request in two places: where this process sends it, and where a simulator in this
process answers one whose User-Agent is ours, so that a client in another process is watched too. A request that the
contract does not have fails the test that it came in; outside of tests it fails the run. A test that sends such a
request on purpose says so with the marker `off_contract`.
"""

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache, wraps
from inspect import iscoroutinefunction
from typing import Any, NamedTuple
from urllib.parse import parse_qs, parse_qsl

import pytest
from aiohttp import web
from jsonschema import Draft202012Validator
from yarl import URL

from consumer.adapters.genesys.transport import Answer, FileBody, Request, Transport
from consumer.simulator.exchange import Exchanges
from consumer.simulator.operations import Route
from tests.contract import CONTRACT, closed

_OURS = "genesys-consumer/"
_JSON = "application/json"
_FORM = "application/x-www-form-urlencoded"
_BOOLEANS = {"true", "false"}
_FREE_TEXT = {"id", "contactListId", "data"}
_EXPORTED_FILE: Mapping[str, Any] = {
    "method": "GET",
    "path": "{ExportUri.uri}",
    "query_params": [],
    "request_body": None,
}
"""Where an export is fetched is told by an answer: no endpoint of the contract."""
_TOLD = re.compile(rb'"ur[il]": ?"([^"]+)"')
_SHORT = 10_000


class Sent(NamedTuple):
    """A request as it went over the wire; a body of None was not read."""

    method: str
    url: URL
    content_type: str
    body: bytes | None

    @property
    def name(self) -> str:
        """What it asked, without its query, which may name people."""
        return f"{self.method} {self.url.raw_path}"


class Endpoint:
    """One operation of the contract."""

    def __init__(self, described: Mapping[str, Any]) -> None:
        self.method: str = described["method"]
        self.path: str = described["path"]
        self._parameters = {parameter["name"]: parameter for parameter in described["query_params"]}
        self._body: Mapping[str, Any] | None = described["request_body"]
        self.told = self.path.startswith("{")  # as {UploadUrlResponse.url}: an answer says where
        self._pattern = re.compile("[^/]+".join(map(re.escape, re.split(r"\{[\w.]+\}", self.path))))

    def serves(self, method: str, path: str, told: Collection[str]) -> bool:
        """Whether a request is for it; told are the paths that answers gave to go to."""
        return method == self.method and (path in told if self.told else self._pattern.fullmatch(path) is not None)

    def deviations(self, sent: Sent) -> Iterator[str]:
        """What is wrong with a request; no value that it carries is told."""
        if not self.told:
            yield from self._of_query(sent.url)
        if sent.body is not None:
            yield from self._of_body(sent.content_type, sent.body)

    def _of_query(self, url: URL) -> Iterator[str]:
        given = parse_qsl(url.raw_query_string, keep_blank_values=True)
        names = {name for name, _ in given}
        for name, parameter in self._parameters.items():
            if parameter["required"] and name not in names:
                yield f"query parameter {name} is missing"
        for name, value in given:
            if name not in self._parameters:
                yield f"query parameter {name} is not known"
            elif not _has_type(value, self._parameters[name]["schema"]):
                yield f"query parameter {name} has no value that it can have"

    def _of_body(self, content_type: str, body: bytes) -> Iterator[str]:
        if self._body is None:
            if body:
                yield "there is a body, where none can be"
            elif content_type:
                yield f"the content type is {content_type}, where no body can be"
            return
        expected = self._body["content_type"]
        if not content_type or ("/" in expected and content_type != expected):
            yield f"the content type is {content_type or 'not given'}"
            return
        if content_type not in {_JSON, _FORM}:
            return  # a file
        try:
            value = _value(content_type, body)
        except ValueError:
            yield f"the body is no {content_type}"
            return
        for error in self._validator.iter_errors(_one_of_each_kind(value)):
            yield f"the body is wrong at {error.json_path}: against {error.validator}"

    @property
    def _validator(self) -> Draft202012Validator:
        return _validator(json.dumps(self._body["schema"] if self._body else {}))


@cache
def _validator(schema: str) -> Draft202012Validator:
    return Draft202012Validator(closed(json.loads(schema) | {"$defs": CONTRACT["$defs"]}))


def _value(content_type: str, body: bytes) -> object:
    if content_type == _FORM:
        return {name: values[0] for name, values in parse_qs(body.decode(), strict_parsing=True).items()}
    return json.loads(body)


def _one_of_each_kind(value: object) -> object:
    """Of an array, the elements that differ in more than free text: a thousand contacts are mostly one."""
    return list({_kind(each): each for each in reversed(value)}.values()) if isinstance(value, list) else value


def _kind(element: object) -> str:
    if not isinstance(element, dict):
        return type(element).__name__
    return repr({name: _types(value) if name in _FREE_TEXT else value for name, value in element.items()})


def _types(value: object) -> object:
    return {name: type(each) for name, each in value.items()} if isinstance(value, dict) else type(value)


def _has_type(value: str, schema: Mapping[str, Any]) -> bool:
    if "enum" in schema and value not in schema["enum"]:
        return False
    match schema["type"]:
        case "boolean":
            return value in _BOOLEANS
        case "integer":
            return value.isdecimal()
        case _:
            return value != ""


class Watch:
    """What was seen.

    Attributes:
        checked: How many requests.
        endpoints: Those that were asked, as method and path.
        failed: How many requests the contract does not have.
    """

    def __init__(self, endpoints: Sequence[Mapping[str, Any]] = CONTRACT["endpoints"]) -> None:
        self._endpoints = [Endpoint(described) for described in (*endpoints, _EXPORTED_FILE)]
        self._sent_here: set[int] = set()
        self._told: set[str] = set()
        self._found: list[str] = []
        self.checked = 0
        self.endpoints: set[tuple[str, str]] = set()
        self.failed = 0

    def look(self, sent: Sent) -> None:
        """Check a request."""
        self.checked += 1
        wrong = list(self._deviations(sent))
        if wrong:
            self.failed += 1
            self._found.append(f"{sent.name}: {'; '.join(wrong)}")

    def _deviations(self, sent: Sent) -> Iterator[str]:
        # A path that a template and a plain name both fit is the plain name's.
        path = sent.url.raw_path
        fitting = [each for each in self._endpoints if each.serves(sent.method, path, self._told)]
        if not fitting:
            yield "the contract has no such endpoint"
            return
        endpoint = min(fitting, key=lambda each: each.path.count("{"))
        self.endpoints.add((endpoint.method, endpoint.path))
        yield from endpoint.deviations(sent)

    def sent(self, sent: Sent) -> None:
        """Check a request that this process sends."""
        self._sent_here.add(hash(sent))
        self.look(sent)

    def served(self, sent: Sent) -> None:
        """Check a request that a simulator answers, unless it was seen where it was sent."""
        if hash(sent) not in self._sent_here:
            self.look(sent)

    def answered(self, body: object) -> None:
        """Remember where an answer tells to go."""
        if isinstance(body, bytes) and len(body) < _SHORT:
            self._told |= {URL(found.decode()).raw_path for found in _TOLD.findall(body)}

    def redirected(self, location: str | None) -> None:
        """Remember where an answer leads."""
        if location is not None:
            self._told.add(URL(location).raw_path)

    def take(self) -> list[str]:
        """What was found since this was last asked."""
        found, self._found = self._found, []
        return found


def _media_type(header: str) -> str:
    return header.partition(";")[0].strip().lower()


def watched_send(watch: Watch, send: Callable[..., Any]) -> Callable[..., Any]:
    """Transport.send, with a look at each request."""

    @wraps(send)
    async def send_watched(transport: Transport, request: Request, limit_s: float) -> Answer:
        content_type = _media_type(request.headers.get("Content-Type", ""))
        body = None if isinstance(request.body, FileBody) else request.body or b""
        watch.sent(Sent(request.endpoint.method, request.url, content_type, body))
        answer: Answer = await send(transport, request, limit_s)
        watch.answered(answer.body)
        return answer

    return send_watched


def watched_exchange(watch: Watch, served: Callable[..., Any]) -> Callable[..., Any]:
    """A handler of the simulator, with a look at each request of our client that it has answered."""

    @wraps(served)
    async def serve_watched(exchanges: Exchanges, *route_and_request: Route | web.Request) -> web.StreamResponse:
        request = route_and_request[-1]
        assert isinstance(request, web.Request)
        try:
            response: web.StreamResponse = await served(exchanges, *route_and_request)
            watch.answered(getattr(response, "body", None))
            watch.redirected(response.headers.get("Location"))
        finally:
            if request.headers.get("User-Agent", "").startswith(_OURS):
                content_type = _media_type(request.headers.get("Content-Type", ""))
                # A request that is refused by its head alone is not read.
                watch.served(Sent(request.method, request.url, content_type, request._read_bytes))
        return response

    return serve_watched


class Plugin:
    """The watch over one process of a run; the process that shows the summary gathers what the others saw."""

    def __init__(self) -> None:
        self.watch = Watch()
        self._undo = pytest.MonkeyPatch()
        self._outside: list[str] = []

    def pytest_configure(self) -> None:
        """Begin to look."""
        self._undo.setattr(Transport, "send", watched_send(self.watch, Transport.send))
        for name, handler in list(vars(Exchanges).items()):
            if iscoroutinefunction(handler) and not name.startswith("_"):
                self._undo.setattr(Exchanges, name, watched_exchange(self.watch, handler))

    def pytest_unconfigure(self) -> None:
        """Look no more."""
        self._undo.undo()

    def pytest_runtest_setup(self) -> None:
        """Keep apart what came before this test."""
        self._outside += self.watch.take()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Iterator[None]:
        """Fail the test that a deviation came in, when all that it began is over."""
        yield
        found = self.watch.take()
        if item.get_closest_marker("off_contract"):
            self.watch.failed -= len(found)
        elif found:
            pytest.fail("not in the contract: " + "\n".join(found), pytrace=False)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take over what a process of pytest-xdist saw."""
        seen = getattr(node, "workeroutput", {}).get("contract")
        if seen:
            self.watch.checked += seen["checked"]
            self.watch.failed += seen["failed"]
            self.watch.endpoints |= {(method, path) for method, path in seen["endpoints"]}
            self._outside += seen["outside"]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Hand over what was seen, and fail the run for what came outside of tests."""
        self._outside += self.watch.take()
        if self._outside and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["contract"] = {
                "checked": self.watch.checked,
                "failed": self.watch.failed,
                "endpoints": sorted(map(list, self.watch.endpoints)),
                "outside": self._outside,
            }

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what was seen."""
        watch = self.watch
        if watch.checked:
            terminalreporter.line(
                f"contract: {watch.checked} requests checked, {len(watch.endpoints)} endpoints, "
                f"{watch.failed} deviations"
            )
        for deviation in self._outside:
            terminalreporter.line(f"not in the contract, outside of tests: {deviation}")
