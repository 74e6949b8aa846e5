"""The official Python SDK, unmodified, on a simulator that runs in a thread of its own.

The SDK waits for its answers, so the simulator's event loop cannot be the test's. Of the SDK's configuration two things
are needed, both its own: `ApiClient(host=…)`, from which it also derives the login host (by replacing `//api.`, which
the simulator's address does not have: login and API are one), and `get_client_credentials_token`. It looks for a
configuration file in the home folder, and watches the whole of it: its home is an empty folder here.
"""

import asyncio
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any, NamedTuple
from unittest import mock

from PureCloudPlatformClientV2 import ApiClient, OrganizationApi, OutboundApi
from PureCloudPlatformClientV2.rest import ApiException

from consumer.simulator.app import Simulator

CREDENTIALS = ("sdk", "secret")


class OfficialSdk(NamedTuple):
    """The SDK with a token, and the organisation that it talks to."""

    simulator: Simulator
    client: ApiClient

    @property
    def outbound(self) -> OutboundApi:
        return OutboundApi(self.client)

    @property
    def organization(self) -> OrganizationApi:
        return OrganizationApi(self.client)


@contextmanager
def threaded(simulator: Simulator) -> Iterator[Simulator]:
    """The simulator, started, on an event loop in another thread."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(simulator.start(), loop).result()
        yield simulator
        asyncio.run_coroutine_threadsafe(simulator.stop(), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def official_sdk(**organisation: Any) -> Iterator[OfficialSdk]:
    """The SDK, logged in.

    Args:
        organisation: What `Simulator` takes.
    """
    with threaded(Simulator(**organisation)) as simulator, tempfile.TemporaryDirectory() as home:
        with mock.patch.dict(os.environ, {"HOME": home}):
            client = ApiClient(host=simulator.url)
        try:
            yield OfficialSdk(simulator, client.get_client_credentials_token(*CREDENTIALS))
        finally:
            client.get_http_client().rest_client.pool_manager.clear()


def refusal(call: Callable[..., object], *arguments: object, **options: object) -> tuple[int, str]:
    """Status and code of the `ApiException` that a call of the SDK must raise."""
    try:
        call(*arguments, **options)
    except ApiException as error:
        return error.status, json.loads(error.body)["code"]
    raise AssertionError("the SDK was not refused")
