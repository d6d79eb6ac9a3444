"""The long-running processes, each alone: API, worker, engine."""

import gc
import signal
import socket
from typing import Annotated

import typer

from tunery import telemetry
from tunery.cli.console import DataOption, fail, load_settings, told
from tunery.cli.libraries import quiet_libraries
from tunery.cli.supervised import watch_if_supervised

HostOption = Annotated[str | None, typer.Option(help="Address to listen on.")]
PortOption = Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")]


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; fail with one line where the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named since asyncio turns Nagle's delay off (40 ms an answer) only by it.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(1024)
    except OSError as error:
        sock.close()
        fail(
            f"Cannot listen on {host}:{port}: {error.strerror}. Stop what uses it, or choose"
            " another --port."
        )
    return sock


def serve(host: HostOption = None, port: PortOption = None, data: DataOption = None) -> None:
    """Run the API."""
    import uvicorn

    from tunery.api.draining import Drain
    from tunery.cli.draining import DrainingServer
    from tunery.wiring.api import build_api

    supervised = watch_if_supervised()
    settings = load_settings(host=host, port=port, data=data)
    telemetry.configure(settings.log_level, "api")
    drain = Drain()
    with told():
        app = build_api(settings, drain, supervised=supervised)
    sock = listen(settings.host, settings.port)
    telemetry.logger().info("listening", address=sock.getsockname()[:2])
    config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False)
    _freeze()
    DrainingServer(config, drain, settings.drain_s).run(sockets=[sock])


def work(data: DataOption = None) -> None:
    """Run a worker."""
    from tunery.wiring.worker import build_worker

    supervised = watch_if_supervised()
    settings = load_settings(data=data)
    telemetry.configure(settings.log_level, "worker")
    with told():
        worker = build_worker(settings, supervised=supervised)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stop())
    telemetry.logger().info("waiting for tasks")
    worker.run()


def engine(
    data: DataOption = None,
    model: Annotated[
        str | None, typer.Option(help="The base model that it answers with; else the default.")
    ] = None,
) -> None:
    """Run the engine of one base model."""
    settings = load_settings(data=data, base=model)
    telemetry.configure(settings.log_level, "engine")
    if settings.engine.kind == "vllm":
        from tunery.cli.vllm import run_vllm

        run_vllm(settings)
    import uvicorn

    quiet_libraries()
    from tunery.wiring.engine import build_engine
    from tunery.wiring.storage import announce

    watch_if_supervised()
    with told():
        app, scheduler, base_digest, secret = build_engine(settings)
    sock = listen(settings.engine.host, settings.engine.port)
    host, port = sock.getsockname()[:2]
    announce(settings, base_digest, f"http://{host}:{port}", secret)
    telemetry.logger().info("ready", address=(host, port), base=settings.base)
    _freeze()
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=settings.drain_s,
    )
    uvicorn.Server(config).run(sockets=[sock])
    scheduler.stop()


def _freeze() -> None:
    """Have no collection look through what is there now, which stays, while requests wait."""
    gc.collect()
    gc.freeze()
