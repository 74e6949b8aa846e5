"""Answers for the simulator as a whole: what it is made of, its start and stop, and the view inside for tests.

Opens a listening socket and nothing else; it can share a process and event loop with the program it serves.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from consumer.simulator.access import Access
from consumer.simulator.api import Api
from consumer.simulator.contacts import ContactView, Poison
from consumer.simulator.dnc import DncLists, EntryKind
from consumer.simulator.dnc_api import DncApi
from consumer.simulator.dnc_jobs import DncJobs
from consumer.simulator.downloads import Downloads
from consumer.simulator.errors import REQUEST_BYTES_MAX
from consumer.simulator.exchange import Exchanges
from consumer.simulator.faults import Fault, FaultPlan
from consumer.simulator.inspection import add_routes
from consumer.simulator.journal import Journal
from consumer.simulator.limits import Limits
from consumer.simulator.list_api import ListApi
from consumer.simulator.list_jobs import ListJobs
from consumer.simulator.lists import CONTACTS_PER_LIST_MAX, ContactLists
from consumer.simulator.operations import API_ROUTES, FETCH_FILE, UPLOAD_FILE, UPLOAD_FORM
from consumer.simulator.page import add_page
from consumer.simulator.tasks import Pace, Tasks
from consumer.simulator.transfers import Transfers
from consumer.simulator.uploads import Uploads

_REQUEST_LINE_MAX = 65_536
_SHUTDOWN_TIMEOUT_S = 1.0
_TICK_S = 0.05


class Simulator:
    """Genesys Cloud's login and API host at one address, for as long as it is started.

    What it holds outlives a stop: started again, on the same port if told so, it is the same organisation after an
    outage. Tokens and rates go by the clock that it is given.

    Args:
        clients: Client ids with their secrets; None lets any client have a token.
        token_lifetime_s: How long a token is good for.
        requests_per_minute: Requests per token and minute; None is without limit.
        withheld_permissions: Permissions that its clients do not have.
        faults: Faults by rate.
        script: Faults that strike the first requests they match, in order, before any by rate.
        seed: Seed of the faults by rate.
        poison: Contacts that are refused.
        contacts_in_use: Ids of contacts that a campaign uses, so that they cannot be deleted.
        refused_numbers: Numbers that no do-not-call list takes.
        contacts_per_list: How many contacts a list may have.
        journal_limit: How many requests the journal keeps.
        job_seconds: The least that a clear, an import, an export or a bulk operation takes.
        rows_per_second: Contacts that they handle in a second.
        clock: Seconds that only grow, for all that takes time here.
        wall_clock: Seconds since 1970, for dates and for what expires in do-not-call lists.

    Attributes:
        faults: What goes wrong; faults can be injected and rates replaced while it runs.
        journal: The last requests, when a journal limit is given.
    """

    def __init__(
        self,
        *,
        clients: Mapping[str, str] | None = None,
        token_lifetime_s: int = 86_400,
        requests_per_minute: int | None = None,
        withheld_permissions: Collection[str] = (),
        faults: Iterable[Fault] = (),
        script: Iterable[Fault] = (),
        seed: int = 0,
        poison: Poison | None = None,
        contacts_in_use: Collection[str] = (),
        refused_numbers: Collection[str] = (),
        contacts_per_list: int = CONTACTS_PER_LIST_MAX,
        journal_limit: int = 0,
        job_seconds: float = 0.2,
        rows_per_second: float = 50_000,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.faults = FaultPlan(faults, script, seed)
        self.journal = Journal(journal_limit)
        pace = Pace(clock, job_seconds, rows_per_second)
        self._lists = ContactLists(wall_clock, pace=pace, per_list_max=contacts_per_list)
        self._dnc_lists = DncLists(wall_clock, pace=pace, refused=refused_numbers)
        self._access = Access(
            clock,
            clients=clients,
            token_lifetime_s=token_lifetime_s,
            requests_per_minute=requests_per_minute,
            withheld_permissions=withheld_permissions,
        )
        uploads, downloads = Uploads(self._lists, poison, clock), Downloads(self._all_tasks)
        self._api = self._make_api(uploads, downloads, poison, contacts_in_use)
        transfers = Transfers(downloads, uploads)
        self._exchanges = Exchanges(clock, self._access, self._api, transfers, faults=self.faults, journal=self.journal)
        self._runner: web.AppRunner | None = None
        self._keeping_up: asyncio.Task[None] | None = None
        self._url = ""

    def _make_api(
        self, uploads: Uploads, downloads: Downloads, poison: Poison | None, contacts_in_use: Collection[str]
    ) -> Api:
        """The API with all its parts."""
        jobs = ListJobs(self._lists, poison)
        dnc, dnc_jobs = DncApi(self._dnc_lists), DncJobs(self._dnc_lists, uploads)
        limits = Limits(lambda: self._access.requests_per_minute)
        parts = (ListApi(self._lists), uploads, downloads, jobs, dnc, dnc_jobs, limits)
        return Api(self._lists, poison, contacts_in_use, *(part.actions for part in parts))

    def _all_tasks(self) -> list[Tasks]:
        contact_tasks = [contact_list.tasks for contact_list in self._lists.all()]
        return contact_tasks + [dnc_list.tasks for dnc_list in self._dnc_lists.all()]

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen; port 0 takes a free one."""
        self._exchanges.open()
        self._runner = web.AppRunner(
            self._application(),
            access_log=None,
            handler_cancellation=True,
            max_line_size=_REQUEST_LINE_MAX,
            shutdown_timeout=_SHUTDOWN_TIMEOUT_S,
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        self._url = "http://{}:{}".format(*self._runner.addresses[0][:2])
        self._keeping_up = asyncio.create_task(self._keep_up())

    async def _keep_up(self) -> None:
        """Do what is due in the lists although nobody looks: a million rows at a time would hold up everybody else."""
        while True:
            await asyncio.sleep(_TICK_S)
            self._lists.all()

    async def stop(self) -> None:
        """Stop listening and cut what hangs; nothing is forgotten."""
        self._exchanges.close()
        if self._keeping_up is not None:
            self._keeping_up.cancel()
            await asyncio.wait([self._keeping_up])
            self._keeping_up = None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    def _application(self) -> web.Application:
        application = web.Application(client_max_size=REQUEST_BYTES_MAX)
        router = application.router
        router.add_route("POST", "/oauth/token", self._exchanges.token)
        for route in API_ROUTES:
            router.add_route(route.method, route.path, partial(self._exchanges.api, route))
        router.add_route(FETCH_FILE.method, FETCH_FILE.path, self._exchanges.fetch_file)
        router.add_route(UPLOAD_FILE.method, UPLOAD_FILE.path, self._exchanges.upload_file)
        router.add_route(UPLOAD_FORM.method, UPLOAD_FORM.path, self._exchanges.upload_form)
        add_routes(router, self._lists, self._dnc_lists, self.stats)
        add_page(router)
        router.add_route("*", "/{path:.*}", self._exchanges.unknown)
        return application

    @property
    def url(self) -> str:
        """Where it listens or last listened: the login host and the API host at once."""
        return self._url

    @property
    def withheld_permissions(self) -> set[str]:
        """Permissions that its clients do not have; may be changed at any time."""
        return self._access.withheld_permissions

    @property
    def contacts_in_use(self) -> set[str]:
        """Ids of contacts that cannot be deleted; may be changed at any time."""
        return self._api.contacts_in_use

    def lists(self) -> list[dict[str, Any]]:
        """Every contact list as Genesys describes it, with its size."""
        return [contact_list.body(with_size=True) for contact_list in self._lists.all()]

    def contacts(self, name_or_id: str) -> dict[str, ContactView]:
        """The contacts of a list by id.

        Raises:
            LookupError: There is no such list.
        """
        return dict(self._lists.look_up(name_or_id).contacts.views())

    def applied(self, name_or_id: str) -> Mapping[str, int]:
        """How often each contact of a list was written, those deleted since included.

        Raises:
            LookupError: There is no such list.
        """
        return self._lists.look_up(name_or_id).contacts.applied

    def dnc_lists(self) -> list[dict[str, Any]]:
        """Every do-not-call list as Genesys describes it, with its size."""
        return [dnc_list.body(with_size=True) for dnc_list in self._dnc_lists.all()]

    def dnc_numbers(self, name_or_id: str) -> set[str]:
        """The phone numbers of a do-not-call list that must not be called now.

        Raises:
            LookupError: There is no such list.
        """
        return self._dnc_lists.in_force(self._dnc_lists.look_up(name_or_id), EntryKind.PHONE_NUMBERS)

    def stats(self) -> dict[str, Any]:
        """Requests by operation and status, faults by kind, and what was done to contacts and do-not-call entries."""
        return {
            "requests": {operation.value: dict(counts) for operation, counts in self._exchanges.answered.items()},
            "faults": dict(self._exchanges.struck),
            "contacts": dict(self._lists.tally),
            "dncEntries": dict(self._dnc_lists.tally),
        }
