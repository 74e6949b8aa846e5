"""Refusals of Genesys that the simulator has no reason for: each code that the contract names can be had."""

import json
from collections.abc import Sequence

import pytest

from consumer.adapters.genesys.client import Client
from consumer.adapters.genesys.transport import Answer, Request
from tests.contract import CONTRACT


def refusals(method: str, path: str) -> Sequence[str]:
    """Codes with which the contract has an endpoint answer 400."""
    (found,) = [each for each in CONTRACT["endpoints"] if (each["method"], each["path"]) == (method, path)]
    told = found["responses"]["400"]
    return [*told["error_codes"], *told["generic_error_codes"]]


def refuse(client: Client, operation: str, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have one operation of a client answered by 400 and a code."""
    authorised = client._authorised

    async def answered(request: Request, deadline: float) -> Answer:
        if request.endpoint.operation == operation:
            return Answer(400, "application/json", {}, json.dumps({"code": code, "status": 400}).encode())
        return await authorised(request, deadline)

    monkeypatch.setattr(client, "_authorised", answered)
