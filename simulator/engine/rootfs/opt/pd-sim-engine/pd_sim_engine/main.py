"""The `vllm` command."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sys
from contextlib import suppress
from typing import Any

from . import RELEASE, VLLM_VERSION, arguments, bench, checks, ending, network, server_state
from .api import ROUTES, Api
from .config.vllm import make_config
from .engine import Engine
from .http_server import HttpServer
from .log import Log, StartupFailure

INTERRUPTED = 130
"""Exit code of a start-up that SIGTERM ends: the real one raises KeyboardInterrupt."""

SPAWN_FAILED = (
    "WorkerProc initialization failed due to an exception in a background process. "
    "See stack trace for root cause."
)
EXECUTOR = "/vllm-workspace/vllm/vllm/v1/executor/multiproc_executor.py"
READY_SECONDS = 600
"""VLLM_ENGINE_READY_TIMEOUT_S."""
CLIENT = "/vllm-workspace/vllm/vllm/v1/engine/core_client.py"
UTILS = "/vllm-workspace/vllm/vllm/v1/utils.py"
SERVE = "/vllm-workspace/vllm/vllm/entrypoints/cli/serve.py"
CORE_FAILED = "Engine core initialization failed. See root cause above. Failed core proc(s): {}"


def _bind_api(args: argparse.Namespace) -> socket.socket:
    """The API's port is bound before anything else, but not listened on until the engine is ready."""
    address = args.host or ""
    family = socket.AF_INET6 if network.is_ipv6(address) else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        sock.bind((address, args.port))
    except OSError as error:
        sock.close()
        raise StartupFailure(
            "OSError",
            f"[Errno {error.errno}] {os.strerror(error.errno or 0)}",
            frame=(
                "/vllm-workspace/vllm/vllm/entrypoints/openai/api_server.py",
                1312,
                "create_server_socket",
            ),
        ) from None
    sock.setblocking(False)
    return sock


def _api_servers(args: argparse.Namespace) -> int:
    """How many API servers share the port: in later releases one for each data-parallel rank."""
    if args.api_server_count is not None:
        return int(args.api_server_count)
    if args.headless:
        return 0
    if RELEASE.one_api_server or args.data_parallel_external_lb or args.data_parallel_rank is not None:
        return 1
    if args.data_parallel_hybrid_lb or args.data_parallel_start_rank is not None:
        return int(args.data_parallel_size_local or 1)
    return int(args.data_parallel_size)


def _check_mode(args: argparse.Namespace) -> None:
    """What `vllm serve` refuses before it makes a configuration."""
    frame = (SERVE, 70, "run_headless")
    count = args.api_server_count
    if RELEASE.one_api_server:
        if args.headless and (count or 1) > 1:
            raise StartupFailure("ValueError", "api_server_count can't be set in headless mode", frame=frame)
        return
    frame = (SERVE, 60, "cmd")
    if args.headless and count is not None and count > 0:
        raise StartupFailure(
            "ValueError",
            f"--api-server-count={count} cannot be used with --headless (no API servers are started in "
            "headless mode).",
            frame=frame,
        )
    external = args.data_parallel_external_lb or args.data_parallel_rank is not None
    if external and (args.data_parallel_hybrid_lb or args.data_parallel_start_rank is not None):
        raise StartupFailure("ValueError", RELEASE.two_modes, frame=frame)


class Process:
    """The process that `vllm serve` is: API server, or headless."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.servers = _api_servers(args)
        self.headless = args.headless or self.servers < 1
        # With several API servers the first process only watches over them, and its lines have no prefix.
        self.log = Log(None if self.headless or self.servers > 1 else "APIServer")
        self.engine: Engine | None = None
        self.server: HttpServer | None = None
        self.leaving = asyncio.Event()

    async def run(self) -> int:
        """The exit code."""
        terminated = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, terminated.set)
        life = asyncio.ensure_future(self._live())
        stop = asyncio.ensure_future(terminated.wait())
        await asyncio.wait({life, stop}, return_when=asyncio.FIRST_COMPLETED)
        if life.done():
            return life.result()
        life.cancel()
        with suppress(asyncio.CancelledError):
            await life
        if self.headless:
            return 0
        if self.engine is None or self.server is None:
            self.log.raw("KeyboardInterrupt: terminated")
            return INTERRUPTED
        await ending.stop_engine(self.engine, self.log, int(getattr(self.args, "shutdown_timeout", 0)))
        self.log.info("launcher.py:110", "Shutting down FastAPI HTTP server.")
        await ending.stop_server(self.server, self.log)
        return 0

    late = False
    """Whether the API servers have given up."""

    async def _live(self) -> int:
        try:
            return await self._serve()
        except StartupFailure as failure:
            self._report(failure)
            if not self.headless or self.engine is None or not self.engine.config.has_core:
                return 1
            # The engine cores are processes of their own here: it ends with them, and calls that no error.
            self.log.info("serve.py:142", "Shutting down.")
            return 0

    async def _serve(self) -> int:
        args = self.args
        timing = server_state.timing()
        checks.check_imports()
        await asyncio.sleep(timing.start_seconds / 4)
        sock = None
        _check_mode(args)
        if not self.headless:
            self.log.info("api_server.py:1351", f"vLLM API server version {VLLM_VERSION}")
            self.log.info("utils.py:253", f"non-default args: {arguments.non_default(args)}")
            sock = _bind_api(args)
        await asyncio.sleep(timing.start_seconds / 4)
        config = make_config(args)
        if self.headless and args.data_parallel_hybrid_lb:
            raise StartupFailure("ValueError", "data_parallel_hybrid_lb is not applicable in headless mode")
        self.log.info("model.py:514", f"Resolved architecture: {config.model.architecture}")
        self.log.info("model.py:1661", f"Using max model len {config.model.max_model_len}")
        if config.headless and config.nnodes > 1:
            self.log.info(
                "serve.py:103",
                f"Launching vLLM (v{VLLM_VERSION}) headless multiproc executor, with head node address "
                f"{args.master_addr}:{args.master_port} for torch.distributed process group.",
            )
        elif config.headless:
            self.log.info(
                "serve.py:117",
                f"Launching {config.dp_local} data parallel engine(s) in headless mode, with head node "
                f"address tcp://{config.dp_address}:{config.dp_rpc_port}.",
            )
        engine = self.engine = Engine(config, os.getpid())
        start = asyncio.ensure_future(engine.start())
        if self.servers > 1:
            self._limit_the_wait(timing.hccl_connect_timeout_scale)
        try:
            await asyncio.wait({start, engine.state.died}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            start.cancel()
            raise
        if engine.state.died.done():
            start.cancel()
            engine.state.died.result()
        start.result()
        if self.late:
            # The first process looks after the API servers only when the engine has started.
            first = self._server_logs()[0]
            text = f"Process {first.process} (PID: {first.pid}) died with exit code 1"
            raise StartupFailure("RuntimeError", text, frame=(UTILS, 280, "wait_for_completion_or_failure"))
        if sock is None:
            return await self._follow(engine)
        return await self._answer(engine, sock)

    def _server_logs(self) -> list[Log]:
        """Of each API server."""
        if self.servers == 1:
            return [self.log]
        pid = os.getpid()
        return [Log(f"ApiServer_{number}", pid + 11 + number) for number in range(self.servers)]

    def _limit_the_wait(self, scale: float) -> None:
        """Several API servers are there before the engine, and wait for it only so long; a single one waits
        without a limit."""
        given = os.environ.get(RELEASE.ready_variable or "", "")
        seconds = int(given) if given.isdigit() else READY_SECONDS

        def give_up() -> None:
            if self.server is not None:
                return
            self.late = True
            failure = StartupFailure(
                "TimeoutError", RELEASE.late.format(seconds=seconds), frame=(CLIENT, 531, "__init__")
            )
            for log in self._server_logs():
                log.raw(failure.traceback())

        asyncio.get_running_loop().call_later(seconds * scale, give_up)

    async def _follow(self, engine: Engine) -> int:
        """A headless node works until it is stopped or its engine core dies. It outlives its head, then of no
        use: its workers wait for the next message, and nothing tells them that there will be none."""
        ends: set[asyncio.Future[Any]] = {engine.state.died}
        ends |= {asyncio.ensure_future(link.gone.wait()) for link in engine.state.links}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if engine.state.died.done():
            self.log.info("serve.py:142", "Shutting down.")
            return 0
        if not engine.config.has_core:
            self.log.raw(
                "[W socket.cpp:125] [c10d] recvValue failed on SocketImpl: Failed to recv, got 0 "
                "bytes. Connection was "
                "likely closed. Did the remote server shutdown or crash?"
            )
        engine.state.peer_lost()
        await asyncio.wait({engine.state.died})
        return 0

    async def _answer(self, engine: Engine, sock: socket.socket) -> int:
        args = self.args
        host = args.host or "0.0.0.0"
        logs = self._server_logs()
        for number, log in enumerate(logs):
            line = RELEASE.server_line.format(number=number)
            log.info("api_server.py:1425", f"{line} http://{host}:{args.port}")
            log.info("launcher.py:38", "Available routes are:")
            for path, methods in ROUTES.items():
                log.info("launcher.py:46", f"Route: {path}, Methods: {methods}")
            log.raw(f"INFO:     Started server process [{log.pid}]")
            log.raw("INFO:     Waiting for application startup.")
        server = HttpServer(Api(engine, self.leaving.set), self._access)
        await server.start(sock)
        self.server = server
        for log in logs:
            log.raw("INFO:     Application startup complete.")
        await ending.engine_death(engine, self.leaving)
        await ending.stop_server(server, self.log)
        self.log.raw(f"INFO:     Finished server process [{os.getpid()}]")
        return 0

    def _access(self, line: str) -> None:
        if not self.args.disable_uvicorn_access_log:
            self.log.raw(f"INFO:     {line}")

    def _report(self, failure: StartupFailure) -> None:
        """The tracebacks of the processes, innermost first."""
        engine = self.engine
        if failure.stage in ("config", "import") or engine is None:
            self.log.raw(failure.traceback())
            return
        spawn = StartupFailure("Exception", SPAWN_FAILED, frame=(EXECUTOR, 640, "wait_for_ready"))
        if failure.stage == "worker":
            engine.state.first_log.error(
                "multiproc_executor.py:750", f"WorkerProc failed to start.\n{failure.traceback()}"
            )
        else:
            spawn = failure
        if not engine.config.has_core:
            self.log.raw(spawn.traceback())
            return
        engine.state.core_log.error("core.py:864", f"EngineCore failed to start.\n{spawn.traceback()}")
        if self.headless:
            return
        frame = ("/vllm-workspace/vllm/vllm/v1/engine/utils.py", 962, "wait_for_engine_startup")
        self.log.raw(StartupFailure("RuntimeError", CORE_FAILED, frame=frame).traceback())


def main() -> None:
    parser = arguments.make_parser()
    args = parser.parse_args()
    if args.subparser is None:
        parser.print_help()
        return
    if args.subparser == "bench":
        bench.main(args)
        return
    if args.subparser != "serve":
        sys.exit(f"vllm {args.subparser}: the simulated engine has only `vllm serve` and `vllm bench serve`.")
    arguments.validate(args)
    asyncio.run(_run(args))


async def _run(args: argparse.Namespace) -> None:
    """Run, and go at once: nothing is left to clean up that the kernel does not, also as PID 1 with open
    connections."""
    code = await Process(args).run()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
