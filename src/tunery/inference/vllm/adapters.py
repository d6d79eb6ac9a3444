"""Which adapters vLLM has: loaded once when they are first asked for, unloaded when nobody asks.

vLLM reads an adapter's files again whenever its own cache has let go of it, so they stay as long
as vLLM knows its name; and its name is taken from vLLM before they go.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from tunery.domain.errors import TuneryError
from tunery.domain.jobs import Adapter
from tunery.inference.vllm.connection import VllmConnection, message, read, refusal
from tunery.inference.vllm.folder import AdapterFolder, Lock, file_name

_LOOK_S = 0.02  # between two looks whether somebody else has let go of an adapter


class VllmAdapters:
    """The adapters of one vLLM server, as far as this process knows: what vLLM says goes before."""

    def __init__(self, connection: VllmConnection, folder: AdapterFolder) -> None:
        self._connection, self._folder = connection, folder
        self._loaded: set[str] = set()
        self._loading: dict[str, asyncio.Lock] = {}
        self._draining: dict[str, asyncio.Event] = {}
        self.loads = self.evictions = 0

    @asynccontextmanager
    async def using(self, adapter: Adapter) -> AsyncGenerator[str, None]:
        """Have the adapter loaded, and kept until the end of the block; give its name at vLLM."""
        name = file_name(adapter)
        while (drained := self._draining.get(name)) is not None:
            await drained.wait()
        lock = await self._hold(adapter)
        try:
            await self.load(adapter)
            yield name
        finally:
            lock.release()

    async def load(self, adapter: Adapter, *, again: bool = False) -> None:
        """Load an adapter that is held, unless that is done; `again` says that vLLM lost it."""
        name = file_name(adapter)
        if again:
            self._loaded.discard(name)
        elif name in self._loaded:
            return
        async with self._loading.setdefault(name, asyncio.Lock()):
            if name not in self._loaded:
                await self._ask_to_load(name)
                self._loaded.add(name)
                self.loads += 1
        await self._make_room()

    async def unload(self, adapter: Adapter) -> None:
        """Let no new request come to the adapter, wait for those it has, and let go of it."""
        name = file_name(adapter)
        while (drained := self._draining.get(name)) is not None:
            await drained.wait()
        self._draining[name] = asyncio.Event()
        try:
            while True:
                lock = await asyncio.to_thread(self._folder.claim, name)
                if lock is not None or not await asyncio.to_thread(self._folder.has, name):
                    break
                await asyncio.sleep(_LOOK_S)
            await self._let_go(name, lock)
        finally:
            self._draining.pop(name).set()

    async def _ask_to_load(self, name: str) -> None:
        path = str(self._folder.path(name).absolute())
        body = {"lora_name": name, "lora_path": path}
        response = await self._connection.send("POST", "/v1/load_lora_adapter", body)
        try:
            if response.is_success:
                return
            said = message(await read(response), "")
            if response.status_code == 400 and "already been loaded" in said:
                return  # by another process, or before this one started: under the same name
            if response.status_code == 404 and not said:  # no such route
                raise TuneryError(
                    "The engine refused: vLLM loads no adapters; start it with --enable-lora and"
                    " VLLM_ALLOW_RUNTIME_LORA_UPDATING=1.",
                    code="engine_error",
                )
            if response.status_code != 500:
                raise await refusal(response)
        finally:
            await response.aclose()
        await self._connection.ask("GET", "/health")  # 500 may also say that vLLM itself is broken
        raise TuneryError(f"The engine refused: {said}", code="engine_error")

    async def _make_room(self) -> None:
        """Let go of adapters beyond those that are kept, the longest unused of them that rest."""
        surplus, names = await asyncio.to_thread(self._folder.surplus)
        for name in names:
            if not surplus:
                return
            lock = await asyncio.to_thread(self._folder.claim, name)
            if lock is not None:
                await self._let_go(name, lock)
                self.evictions += 1
                surplus -= 1

    async def _let_go(self, name: str, lock: Lock | None) -> None:
        """Take the name from vLLM, then the files; `lock` says that there are any."""
        try:
            body = {"lora_name": name}
            response = await self._connection.send("POST", "/v1/unload_lora_adapter", body)
            try:
                if not response.is_success and response.status_code != 404:
                    raise await refusal(response)
            finally:
                await response.aclose()
            self._loaded.discard(name)
            self._loading.pop(name, None)  # nobody loads it: that would hold it
            if lock is not None:
                await asyncio.to_thread(self._folder.remove, name)
        finally:
            if lock is not None:
                lock.release()

    async def _hold(self, adapter: Adapter) -> Lock:
        """Return a shared lock; one that comes after this task was cancelled is released."""
        while True:
            holding = asyncio.ensure_future(asyncio.to_thread(self._folder.hold, adapter))
            try:
                lock = await asyncio.shield(holding)
            except asyncio.CancelledError:
                holding.add_done_callback(_release)
                raise
            if lock is not None:
                return lock
            await asyncio.sleep(_LOOK_S)


def _release(holding: "asyncio.Future[Lock | None]") -> None:
    lock = None if holding.cancelled() or holding.exception() else holding.result()
    if lock is not None:
        lock.release()
