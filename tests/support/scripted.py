"""An engine that answers every prompt with the same pieces, and an endpoint's parts over it."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any, cast

from support.rows import CONTEXT_TOKENS, render_with
from tunery.domain.errors import TuneryError
from tunery.domain.ports.engine import Delta, Engine, Generation
from tunery.endpoints.ledger import Ledger
from tunery.endpoints.parts import Parts
from tunery.services.known_models import KnownModels
from tunery.services.models import ModelDirectory
from tunery.storage.database import Database

WHOLE = (Delta("Hel", 1), Delta("", 2), Delta("lo", 3, "stop"))


class ScriptedEngine:
    """Answers every prompt with the same pieces."""

    def __init__(self, script: Sequence[Delta | TuneryError]) -> None:
        self._script = script
        self.prompts: list[Sequence[int]] = []

    def version(self, base_digest: str) -> str:
        return f"scripted-{base_digest[:1]}"

    async def generate(self, generation: Generation) -> AsyncGenerator[Delta, None]:
        self.prompts.append(generation.prompt_ids)
        for step in self._script:
            if isinstance(step, TuneryError):
                raise step
            yield step


def scripted_parts(
    database: Database, directory: ModelDirectory, *script: Delta | TuneryError, kept_s: int = 60
) -> Parts:
    engine = cast(Engine, ScriptedEngine(script or WHOLE))
    no_embeddings: Any = None
    return Parts(
        database=database,
        ledger=Ledger(database),
        models=KnownModels(database, directory),
        renderers=render_with,
        engine=engine,
        engine_context_tokens=CONTEXT_TOKENS,
        embedder=no_embeddings,
        embedding_tokenizers=no_embeddings,
        responses_kept_s=kept_s,
    )
