"""What the process that checks files is asked to do."""

from dataclasses import dataclass

import orjson


@dataclass(frozen=True, slots=True)
class CheckedBase:
    """What the check needs of a base to count tokens."""

    name: str
    path: str
    max_tokens: int


@dataclass(frozen=True, slots=True)
class CheckOrder:
    """The sizes of the files that follow, in bytes, and the base to count for."""

    training_bytes: int
    validation_bytes: int | None = None
    base: CheckedBase | None = None

    def line(self) -> bytes:
        """Return the order as it is sent."""
        return orjson.dumps(self) + b"\n"


def order_of(line: bytes) -> CheckOrder:
    """Return an order that was sent."""
    value = orjson.loads(line)
    base = value["base"]
    return CheckOrder(
        value["training_bytes"],
        value["validation_bytes"],
        None if base is None else CheckedBase(**base),
    )
