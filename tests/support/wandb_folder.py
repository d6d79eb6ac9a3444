"""Reads what wandb wrote while offline: `run-<id>.wandb`, protocol buffers in LevelDB's log format.

Written from the format's description: blocks of 32 KiB; in each, chunks of checksum (4 bytes),
length (2), kind (1: whole, 2: first, 3: middle, 4: last) and data. The file has 7 bytes in front.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

BLOCK, HEADER, CHUNK = 32768, 7, 7


@dataclass
class OfflineRun:
    """One run folder."""

    path: Path
    id: str = ""
    project: str = ""
    entity: str = ""
    name: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None


def offline_runs(folder: Path) -> list[OfflineRun]:
    """Return the runs below a folder, oldest first."""
    files = sorted(folder.glob("wandb/offline-run-*/run-*.wandb"), key=lambda p: p.stat().st_ctime)
    return [_read(path) for path in files]


def _read(path: Path) -> OfflineRun:
    from wandb.proto import wandb_internal_pb2

    run = OfflineRun(path)
    for data in _records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run.id, run.project = record.run.run_id, record.run.project
            run.entity, run.name = record.run.entity, record.run.display_name
            run.tags = list(record.run.tags)
            run.config.update(_values(record.run.config.update))
        elif kind == "config":
            run.config.update(_values(record.config.update))
        elif kind == "history":
            run.history.append(_values(record.history.item))
        elif kind == "summary":
            run.summary.update(_values(record.summary.update))
        elif kind == "exit":
            run.exit_code = record.exit.exit_code
    return run


def _values(items: Any) -> dict[str, Any]:
    """Return the values of a message's items that we passed: wandb's own start with `_`."""
    named = ((item.key or item.nested_key[0], item.value_json) for item in items)
    return {name: orjson.loads(value) for name, value in named if name != "_wandb"}


def _records(data: bytes) -> Iterator[bytes]:
    place, parts = HEADER, b""
    while place + CHUNK <= len(data):
        left = BLOCK - place % BLOCK
        if left < CHUNK:  # too small for a chunk: the block's rest is empty
            place += left
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + CHUNK])
        parts += data[place + CHUNK : place + CHUNK + length]
        place += CHUNK + length
        if kind in (1, 4):
            yield parts
            parts = b""
