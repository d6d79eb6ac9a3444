"""The lane that delivers webhooks: many at a time, so that one dead receiver holds up no other.

A task is claimed for longer than one request may take, and its lease is not renewed: what a worker
that was killed had under way is claimed again once that time is over.
"""

import asyncio
import contextlib
import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tunery.domain.errors import InvalidRequest, TuneryError
from tunery.domain.ports.delivery import NotDelivered, Sender
from tunery.domain.tasks import LeaseLost, Task
from tunery.services import deliveries
from tunery.storage.database import Database
from tunery.telemetry import Logger

SLOTS, PER_PROJECT, PER_ENDPOINT = 128, 24, 2
REQUEST_S = 20.0  # a sender's deadline and some
_STOP_S = 2.0  # what is under way may end, once the worker is to stop
_BUG_WAIT_S = 60.0
_JITTER = (0.8, 1.2)

Result = TypeVar("Result")


class Courier:
    """Claims due deliveries and carries them out."""

    def __init__(
        self,
        database: Database,
        sender: Sender,
        *,
        first_wait_s: float,
        lease_s: float,
        poll_s: float,
        log: Logger,
    ) -> None:
        self._database = database
        self._sender = sender
        self._first_wait_s = first_wait_s
        self._lease_s = lease_s + REQUEST_S
        self._poll_s = poll_s
        self._log = log
        self._projects: Counter[str] = Counter()
        self._endpoints: Counter[str] = Counter()
        # Not the loop's own threads: others may keep those waiting.
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="courier")

    def run(self, stopping: threading.Event) -> None:
        """Deliver until `stopping` is set; what is not delivered then is given back."""
        asyncio.run(self._run(stopping))

    async def _run(self, stopping: threading.Event) -> None:
        under_way: set[asyncio.Task[None]] = set()
        while not stopping.is_set():
            claimed = None
            if len(under_way) < SLOTS:
                claimed = await self._claimed()
            if claimed is not None:
                task, endpoint_id = claimed
                self._projects[task.tenant.project_id] += 1
                self._endpoints[endpoint_id] += 1
                under_way.add(asyncio.create_task(self._carry_out(task, endpoint_id)))
            elif under_way:
                await asyncio.wait(
                    under_way, timeout=self._poll_s, return_when=asyncio.FIRST_COMPLETED
                )
            else:
                await asyncio.sleep(self._poll_s)
            under_way = {one for one in under_way if not one.done()}
        if under_way:
            _, late = await asyncio.wait(under_way, timeout=_STOP_S)
            for one in late:
                one.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _claimed(self) -> tuple[Task, str] | None:
        projects = [one for one, count in self._projects.items() if count >= PER_PROJECT]
        endpoints = [one for one, count in self._endpoints.items() if count >= PER_ENDPOINT]
        try:
            return await self._in_thread(lambda: self._claim(projects, endpoints))
        except TuneryError as error:
            self._log.warning("queue not reached", error=error.message)
        except Exception:  # a lane that ended would never be missed
            self._log.exception("lane stumbled", lane="webhooks")
        return None

    def _claim(self, projects: list[str], endpoints: list[str]) -> tuple[Task, str] | None:
        with self._database.read() as tx:  # looking takes no write lock
            if not tx.deliveries(busy_projects=projects, busy_endpoints=endpoints).has_free():
                return None
        with self._database.write() as tx:
            return tx.deliveries(busy_projects=projects, busy_endpoints=endpoints).claim(
                self._lease_s
            )

    async def _carry_out(self, task: Task, endpoint_id: str) -> None:
        log = self._log.bind(task=task.kind, subject=task.subject, endpoint=endpoint_id)
        try:
            await self._deliver(task, log)
        except LeaseLost:
            log.warning("delivery given up: its endpoint is gone, or another worker has it")
        except asyncio.CancelledError:
            log.info("delivery given back: the worker stops")
            self._put_back(task, 0.0)
            raise
        except TuneryError as error:
            log.warning("delivery interrupted", error=error.message)
            await self._in_thread(lambda: self._put_back(task, self._first_wait_s))
        except Exception:
            log.exception("delivery stumbled")
            await self._in_thread(lambda: self._put_back(task, _BUG_WAIT_S))
        finally:
            _leave(self._projects, task.tenant.project_id)
            _leave(self._endpoints, endpoint_id)

    async def _deliver(self, task: Task, log: Logger) -> None:
        letter = await self._in_thread(lambda: deliveries.write_letter(self._database, task))
        if letter is None:
            log.info("delivery dropped: its endpoint is gone")
            return
        log = log.bind(delivery_event=letter.event_id, attempt=letter.attempt)
        try:
            status = await self._sender.post(letter.url, letter.headers, letter.body)
        except InvalidRequest as error:  # its text names the host
            why = f"not sent: {error.code}"
        except NotDelivered as error:
            why = str(error)
        except Exception:  # a try like any other: it must not come again for ever
            log.exception("delivery failed by a bug")
            why = "a bug"
        else:
            if 200 <= status < 300:
                await self._in_thread(lambda: deliveries.finish(self._database, task))
                log.info("delivered", status=status)
                return
            why = f"answered {status}"
        wait_s = await self._in_thread(
            lambda: deliveries.put_off(
                self._database,
                task,
                first_wait_s=self._first_wait_s,
                jitter=random.uniform(*_JITTER),  # noqa: S311 - spreads retries, hides nothing
            )
        )
        if wait_s is None:
            log.warning("delivery given up: its time is over", why=why)
        else:
            log.info("delivery put off", why=why, wait_s=round(wait_s, 1))

    def _put_back(self, task: Task, delay_s: float) -> None:
        with contextlib.suppress(TuneryError), self._database.write() as tx:  # its lease runs out
            tx.queue.put_back(task, delay_s)

    async def _in_thread(self, act: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, act)


def _leave(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
