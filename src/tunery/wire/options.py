"""How an answer is to be made: the fields that every request for generated text shares."""

from typing import Protocol

from tunery.protocol.sampling import Number
from tunery.services.answers import Options


class _Sampled(Protocol):
    @property
    def temperature(self) -> Number | None: ...
    @property
    def top_p(self) -> Number | None: ...
    @property
    def stop(self) -> str | list[str] | None: ...
    @property
    def seed(self) -> int | None: ...
    @property
    def n(self) -> int | None: ...
    @property
    def presence_penalty(self) -> Number | None: ...
    @property
    def frequency_penalty(self) -> Number | None: ...
    @property
    def logit_bias(self) -> dict[str, Number] | None: ...


def from_wire_options(body: _Sampled) -> Options:
    """Return the options of a body; what it leaves open has OpenAI's default."""
    return Options(
        temperature=1.0 if body.temperature is None else float(body.temperature),
        top_p=1.0 if body.top_p is None else float(body.top_p),
        stop=(body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ()),
        seed=body.seed,
        n=body.n or 1,
        presence_penalty=float(body.presence_penalty or 0),
        frequency_penalty=float(body.frequency_penalty or 0),
        logit_bias=tuple((int(key), float(bias)) for key, bias in (body.logit_bias or {}).items()),
    )
