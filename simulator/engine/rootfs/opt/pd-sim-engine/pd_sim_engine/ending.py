"""How an engine that serves ends: by SIGTERM, or by the death of its core.

Sources: V@0.13.0, 0.18.0, 0.23.0:vllm/entrypoints/launcher.py (serve_http, watchdog_loop),
vllm/v1/engine/core.py (_handle_shutdown), vllm/v1/utils.py (shutdown); uvicorn's Server.shutdown.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from . import RELEASE
from .engine import Engine
from .http_server import HttpServer
from .log import Log
from .release import Shutdown

GRACE_SECONDS = 5.0
"""At least so long the engine core has to end by itself, then it is killed."""
LOOK_SECONDS = 0.05
FAULT_SECONDS = 0.2
"""How often it is looked whether the engine core is to be killed."""
KILLED = "engine_core_killed"


async def stop_engine(engine: Engine, log: Log, timeout: int) -> None:
    """SIGTERM: the engine core ends, at once or when it has done what it waits for, at most `timeout` s."""
    said = RELEASE.shutdown
    if said is None:
        engine.state.halt()
        return
    mode = "drain" if timeout else "abort"
    for text in said.begins:
        log.info("launcher.py:117", text.format(mode=mode, timeout=timeout))
    _begin(engine, said, mode, timeout)
    with suppress(TimeoutError):
        async with asyncio.timeout(max(timeout, GRACE_SECONDS)):
            while engine.running or (said.waits_for_blocks and engine.holding):
                await asyncio.sleep(LOOK_SECONDS)
            for text in said.core_ends:
                engine.state.core_log.info("core.py:1224", text)
    # What still runs is not told that the engine core is gone.
    engine.state.halt()
    for text in said.ends:
        log.info("launcher.py:125", text)


def _begin(engine: Engine, said: Shutdown, mode: str, timeout: int) -> None:
    """The engine core takes no more requests; those that run are aborted, or may finish."""
    state, count = engine.state, engine.running
    state.draining = True
    lines = list(said.core_begins)
    if count:
        lines.append(said.drains if timeout else said.aborts)
    for text in lines:
        state.core_log.info("core.py:1201", text.format(mode=mode, timeout=timeout, count=count))
    if not timeout:
        state.abort()


async def stop_server(server: HttpServer, log: Log) -> None:
    """uvicorn finishes what it is answering, however long that takes."""
    log.raw("INFO:     Shutting down")
    server.close()
    await asyncio.sleep(2 * LOOK_SECONDS)
    if server.connections:
        log.raw("INFO:     Waiting for connections to close. (CTRL+C to force quit)")
        await server.empty()
    log.raw("INFO:     Waiting for application shutdown.\nINFO:     Application shutdown complete.")


async def engine_death(engine: Engine, leaving: asyncio.Event) -> None:
    """Until the API server leaves because its engine core is dead: when it looks after it, or sooner where a
    request makes it. The exit code is 0 all the same."""
    state = engine.state
    watch = asyncio.create_task(_kill_when_told(engine))
    try:
        await asyncio.wait({state.died})
    finally:
        watch.cancel()
    with suppress(TimeoutError):
        async with asyncio.timeout(state.timing.watchdog_seconds):
            await leaving.wait()


async def _kill_when_told(engine: Engine) -> None:
    """The fault engine_core_killed: only while it serves, so that an engine that starts again lives."""
    before = engine.state.fault(KILLED)
    while True:
        await asyncio.sleep(FAULT_SECONDS)
        now = engine.state.fault(KILLED)
        if now is not None and before is None:
            engine.state.killed()
            return
        before = now
