"""Many clients ask many models of several tenants while models come and go; every answer is judged.

An answer is right when its word, its portrait and its fingerprint are those of the model that was
asked, as it answered when nobody else did. Everything else is counted, and the first cases told.
"""

import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx2
import openai
from openai import OpenAI

from support.betraying import PROMPTS, Portrait, copied, distance, messages, register
from support.server import Server, texts
from tunery.domain.jobs import Adapter
from tunery.domain.tenants import KeyKind, Tenant
from tunery.services import accounts
from tunery.settings import Settings
from tunery.storage.blobs import LocalBlobStore
from tunery.wiring.storage import load_pepper, open_database

ANSWER_TOKENS = 8
TOLD = 20  # cases of a fault that are told in full
# Portraits alone and in a batch differ by less; those of a job's checkpoints by more.
SAME_NATS = 0.03
UNKNOWN = "ft:gpt-3.5-turbo:personal::00000000"


@dataclass(frozen=True, slots=True)
class Project:
    """A tenant, and who asks for it."""

    tenant: Tenant
    client: OpenAI
    http: httpx2.Client


@dataclass(slots=True, eq=False)
class Known:
    """A model: whose it is, and what it answered to each prompt before the load.

    `ending` is set before its delete is asked for, `gone` once that is answered.
    """

    owner: int | None  # a project's number; the base is everybody's
    name: str
    word: str | None
    fingerprint: str
    texts: list[str] = field(default_factory=list)
    portraits: list[Portrait] = field(default_factory=list)
    ending: bool = False
    gone: bool = False


@dataclass(frozen=True, slots=True)
class Heard:
    """One answer."""

    text: str
    model: str
    fingerprint: str | None
    portrait: Portrait | None


def open_projects(server: Server, count: int) -> list[Project]:
    """Make projects of one organization, each with a key and clients."""
    settings = Settings(data=server.data)
    database, pepper = open_database(settings), load_pepper(settings)
    projects = []
    for number in range(count):
        tenant = accounts.create_project(database, "personal", f"tenant {number}")
        key = accounts.create_key(database, pepper, KeyKind.PROJECT, "load", tenant.project_id)
        projects.append(Project(tenant, server.client(key.secret), server.http(key.secret)))
    database.close()
    return projects


def hear(client: OpenAI, name: str, prompt: int, *, stream: bool, portrait: bool) -> Heard:
    """Ask a model one of the prompts; raise what the SDK raises."""
    asked: dict[str, Any] = {
        "model": name,
        "messages": messages(*PROMPTS[prompt]),
        "temperature": 0,
        "max_tokens": ANSWER_TOKENS,
    }
    if portrait:
        asked |= {"logprobs": True, "top_logprobs": 20}
    if not stream:
        whole = client.chat.completions.create(**asked)
        choice = whole.choices[0]
        first = choice.logprobs and choice.logprobs.content
        text = choice.message.content or ""
        return Heard(text, whole.model, whole.system_fingerprint, _portrait(first))
    chunks = list(client.chat.completions.create(**asked, stream=True))
    told = (c.choices[0].logprobs for c in chunks if c.choices)
    first = next((one.content for one in told if one is not None and one.content), None)
    ((model, fingerprint),) = {(c.model, c.system_fingerprint) for c in chunks}
    return Heard(texts(chunks), model, fingerprint, _portrait(first))


def ask_many(
    server: Server, adapters: Sequence[tuple[str, Adapter]], *, models: int, asked: int, seed: int
) -> dict[str, int]:
    """Register so many models, each under a key of its own, and ask some, each once.

    `adapters` are words and what was trained to say them; the models take turns with them.
    """
    (project,) = open_projects(server, 1)
    blobs = LocalBlobStore(server.data)
    words = [adapters[number % len(adapters)] for number in range(models)]
    copies = [
        copied(blobs, adapter, f"{project.tenant.project_id}/jobs/{number}")
        for number, (_, adapter) in enumerate(words)
    ]
    names = register(server, project.tenant, copies, 0)
    listed = {model.id: model for model in project.client.models.list()}
    assert set(names) <= set(listed)
    rng = random.Random(f"{seed} many")

    def ask(number: int) -> tuple[bool, bool]:
        heard: Heard = patiently(
            lambda: hear(project.client, names[number], 0, stream=False, portrait=False)
        )
        page = listed[names[number]].model_dump()["tunery"]
        return heard.text == words[number][0], heard.fingerprint == page["system_fingerprint"]

    with ThreadPoolExecutor(8) as pool:
        right = list(pool.map(ask, rng.sample(range(models), asked)))
    return {
        "models": models,
        "asked": asked,
        "right word": sum(word for word, _ in right),
        "right fingerprint": sum(fingerprint for _, fingerprint in right),
    }


def _portrait(tokens: Sequence[Any] | None) -> Portrait | None:
    return {one.token: one.logprob for one in tokens[0].top_logprobs} if tokens else None


class Book:
    """Every model that is or was there."""

    def __init__(self, projects: Sequence[Project]) -> None:
        self.projects = projects
        self.models: list[Known] = []
        self._lock = threading.Lock()

    def add(self, owner: int | None, name: str, word: str | None) -> Known:
        """Take a model up: ask it every prompt, and hold its page against its answers."""
        client = self.projects[owner or 0].client
        page = client.models.retrieve(name).model_dump()["tunery"]
        known = Known(owner, name, word, page["system_fingerprint"])
        for prompt in range(len(PROMPTS)):
            heard = patiently(
                lambda p=prompt: hear(client, name, p, stream=False, portrait=True)  # type: ignore[misc]
            )
            assert heard.portrait is not None
            assert (heard.model, heard.fingerprint) == (name, known.fingerprint)
            known.texts.append(heard.text)
            known.portraits.append(heard.portrait)
        if word is not None:
            assert set(known.texts) == {word}, f"{name} has not learned {word}: {known.texts}"
        with self._lock:
            self.models.append(known)
        return known

    def some(self, rng: random.Random, fits: Callable[[Known], bool]) -> Known | None:
        """Return a random model that fits, if there is one."""
        with self._lock:
            found = [known for known in self.models if fits(known)]
        return rng.choice(found) if found else None

    def all(self) -> list[Known]:
        """Return the models known so far."""
        with self._lock:
            return list(self.models)


def patiently(ask: Callable[[], Any], overloaded: Callable[[], None] = lambda: None) -> Any:
    """Ask again where the engine has no place just now; 503 says that it is worth it."""
    while True:
        try:
            return ask()
        except openai.InternalServerError as error:
            if error.status_code != 503 or error.code == "model_files_missing":
                raise
            overloaded()
            time.sleep(0.2)


class Load:
    """Clients that ask until enough was asked and whoever publishes has ended."""

    def __init__(self, book: Book, *, seed: int, requests: int) -> None:
        self._book = book
        self._seed = seed
        self._requests = requests
        self._lock = threading.Lock()
        self._together: deque[tuple[Known, int]] = deque()
        self.counts: Counter[str] = Counter()
        self.told: list[str] = []
        self.farthest = 0.0  # a right answer's portrait from that of its model, in nats

    def run(self, clients: int, publish: Callable[[], None]) -> None:
        """Ask with so many clients, while `publish` runs."""
        with ThreadPoolExecutor(clients + 1) as pool:
            publishing = pool.submit(publish)
            asking = [pool.submit(self._client, n, publishing.done) for n in range(clients)]
            for one in (publishing, *asking):
                one.result()

    def count(self, what: str, case: str = "") -> None:
        """Count something, and keep the first cases of it."""
        with self._lock:
            self.counts[what] += 1
            if case and len(self.told) < TOLD:
                self.told.append(f"{what}: {case}")

    def _client(self, number: int, published: Callable[[], bool]) -> None:
        rng = random.Random(f"{self._seed} client {number}")
        while self.counts["requests"] < self._requests or not published():
            self.count("requests")
            try:
                self._ask_something(rng)
            except Exception as error:
                self.count("unexpected errors", f"{type(error).__name__}: {error}"[:300])

    def _ask_something(self, rng: random.Random) -> None:
        with self._lock:
            together = self._together.popleft() if self._together else None
        project = rng.randrange(len(self._book.projects))
        if together is not None:
            self._ask(rng, *together)
            return
        prompt, turn = rng.randrange(len(PROMPTS)), rng.random()
        if turn < 0.02:  # the next requests are one prompt to every model at the same moment
            everyone = [known for known in self._book.all() if not known.ending]
            with self._lock:
                self._together.extend((known, prompt) for known in everyone)
        if turn < 0.1:
            known = self._book.some(rng, lambda k: k.owner not in (None, project))
            self._ask_in_vain(rng, project, known, prompt)
        elif turn < 0.15:
            known = self._book.some(rng, lambda k: k.owner == project and k.gone)
            self._ask_in_vain(rng, project, known, prompt)
        elif turn < 0.18:
            self._list(project)
        else:
            known = self._book.some(
                rng, lambda k: (k.owner == project and not k.ending) or k.owner is None
            )
            if known is not None:
                self._ask(rng, known, prompt)

    def _ask(self, rng: random.Random, known: Known, prompt: int) -> None:
        client = self._book.projects[known.owner or 0].client
        stream, portrait = rng.random() < 0.5, rng.random() < 0.7
        self.count("streamed" if stream else "whole")
        gone = known.gone
        try:
            heard: Heard = patiently(
                lambda: hear(client, known.name, prompt, stream=stream, portrait=portrait),
                lambda: self.count("asked again after 503"),
            )
        except openai.NotFoundError:
            if known.ending:
                self.count("met the delete")
            else:
                self.count("unexpected errors", f"404 for {known.name}")
            return
        if gone:
            self.count("wrong adapter", f"{known.name} was gone and answered {heard.text!r}")
        self._judge(known, prompt, heard)

    def _judge(self, known: Known, prompt: int, heard: Heard) -> None:
        case = f"{known.name} on prompt {prompt}: {heard.text!r}, {heard.fingerprint}"
        if (heard.model, heard.fingerprint) != (known.name, known.fingerprint):
            self.count("wrong fingerprint", f"{case}, not {known.fingerprint}")
        right = heard.text == known.texts[prompt]
        if heard.portrait is not None:
            self.count("portraits")
            own = distance(heard.portrait, known.portraits[prompt])
            others = [k for k in self._book.all() if k.fingerprint != known.fingerprint]
            nearest = min(distance(heard.portrait, k.portraits[prompt]) for k in others)
            right = right and own < min(SAME_NATS, nearest)
            case += f", {own:.3f} nats from its own portrait, {nearest:.3f} from the nearest other"
            self.farthest = max(self.farthest, own)
        if not right:
            self.count("wrong adapter", f"{case}; alone {known.texts[prompt]!r}")
        self.count("base" if known.owner is None else "tuned")

    def _ask_in_vain(
        self, rng: random.Random, project: int, known: Known | None, prompt: int
    ) -> None:
        """Ask for a model that is another's, or gone: the answer is that of an unknown one."""
        if known is None:
            return
        http = self._book.projects[project].http

        def ask(name: str) -> tuple[int, str]:
            asked = {"messages": messages(*PROMPTS[prompt]), "stream": rng.random() < 0.5}
            answer = http.post("/v1/chat/completions", json={"model": name, **asked})
            return answer.status_code, answer.text.replace(name, "NAME")

        self.count("another's" if known.owner != project else "deleted")
        got, expected = ask(known.name), ask(UNKNOWN)
        if got != expected or got[0] != 404:
            self.count("crossed tenant", f"{known.name} by project {project}: {got}")

    def _list(self, project: int) -> None:
        """List a project's models: all of its own, none of another's."""
        self.count("lists")
        own = [k for k in self._book.all() if k.owner == project and not k.ending]
        foreign = {k.name for k in self._book.all() if k.owner not in (None, project)}
        listed = {model.id for model in self._book.projects[project].client.models.list()}
        if listed & foreign:
            self.count("crossed tenant", f"project {project} lists {listed & foreign}")
        missing = {k.name for k in own if not k.ending} - listed
        if missing:
            self.count("unexpected errors", f"project {project} does not list {missing}")


def delete(book: Book, known: Known) -> None:
    """Delete a model, and have the book know when it went."""
    assert known.owner is not None
    known.ending = True
    assert book.projects[known.owner].client.models.delete(known.name).deleted
    known.gone = True
