"""Addresses and interfaces of the host (the engine runs in the host's network)."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

_servers: list[asyncio.Server] = []
_connections: set[asyncio.StreamWriter] = set()


def get_ip() -> str:
    """vLLM's get_ip(): VLLM_HOST_IP, or the address of the default route. Not HCCL_IF_IP."""
    if given := os.environ.get("VLLM_HOST_IP"):
        return given
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("8.8.8.8", 80))
            return str(probe.getsockname()[0])
    except OSError:
        return "0.0.0.0"


def is_ipv6(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).version == 6
    except ValueError:
        return False


def is_local(address: str) -> bool:
    """Whether an interface of this host has the address."""
    family = socket.AF_INET6 if is_ipv6(address) else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def interfaces() -> set[str]:
    return {name for _, name in socket.if_nameindex()}


def matches_interface(selector: str, names: set[str]) -> bool:
    """HCCL_SOCKET_IFNAME's syntax: prefixes, `=name` exactly, `^name` all but."""
    exact, negate = selector.startswith("="), selector.startswith("^")
    wanted = [part for part in selector.lstrip("=^").lstrip("=").split(",") if part]
    if negate:
        return any(not any(name.startswith(part) for part in wanted) for name in names)
    return any(name == part or (not exact and name.startswith(part)) for part in wanted for name in names)


def listen(address: str, port: int, *, reuse: bool = True) -> socket.socket:
    """A bound and listening socket."""
    family = socket.AF_INET6 if is_ipv6(address) else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if reuse:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        sock.listen(128)
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


async def serve(
    sock: socket.socket,
    connection: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    limit: int,
) -> None:
    """Listen for the engine core and its workers, until they end. `limit`: bytes of a message."""

    async def known(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _connections.add(writer)
        try:
            await connection(reader, writer)
        finally:
            _connections.discard(writer)

    _servers.append(await asyncio.start_server(known, sock=sock, limit=limit))


async def connect(address: str, port: int, limit: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection of the engine core and its workers."""
    reader, writer = await asyncio.open_connection(address, port, limit=limit)
    _connections.add(writer)
    return reader, writer


def hang_up() -> None:
    """The engine core and its workers have ended, and with them all that they listened on and talked to."""
    for server in _servers:
        server.close()
    for writer in list(_connections):
        with suppress(RuntimeError):
            writer.close()
    _servers.clear()
    _connections.clear()
