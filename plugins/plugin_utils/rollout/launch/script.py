# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The launch scripts: the files of data/scripts with the plan's values at their @PLACES@."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache

from .. import data, expansion
from ..model import Instance, Node, ValidCluster
from .arguments import Argument, quoted

# Where the secret's file stands inside the container.
SECRET_TARGET = "/run/secrets/pd_api_key"


def engine_script(
    cluster: ValidCluster, instance: Instance, node: Node, arguments: Sequence[Argument]
) -> str:
    """Return one engine's script on one host: addresses, environment, one ``vllm serve`` or one per rank."""
    size = len(instance.nodes)
    part = f", node {node.rank} of {size}" if size > 1 else ""
    return _filled(
        data.script("engine.sh"),
        TITLE=f"{instance.name}{part}, on {node.host}",
        ADDRESSES="\n".join(_addresses(cluster, instance, node)),
        ENVIRONMENT="\n".join(_environment(cluster, node)),
        COMMAND=_ranks(node, arguments)
        if node.ranks
        else f"exec vllm serve {continued(arguments, indent='  ')}",
    )


def proxy_script(cluster: ValidCluster, host: str, arguments: Sequence[Argument]) -> str:
    """Return the script of the proxy on one host."""
    key = f'export OPENAI_API_KEY="$(cat {SECRET_TARGET})"' if cluster.declaration.api_key else ""
    return _filled(
        data.script("proxy.sh"),
        HOST=host,
        ENVIRONMENT=key,
        DIRECTORY=cluster.release.proxy_directory,
        ARGUMENTS=continued(arguments),
    )


def router_script(cluster: ValidCluster, host: str, path: str, arguments: Sequence[Argument]) -> str:
    """Return the script of vllm-router on one host; ``path`` has its modules."""
    environment = [f'export PYTHONPATH={quoted(path)}"${{PYTHONPATH:+:$PYTHONPATH}}"']
    if cluster.declaration.api_key:
        environment.append(f'export OPENAI_API_KEY="$(cat {SECRET_TARGET})"')
    return _filled(
        data.script("router.sh"),
        HOST=host,
        ENVIRONMENT="\n".join(environment),
        ARGUMENTS=continued(arguments),
    )


def _filled(text: str, **values: str) -> str:
    """Return a script with values instead of ``@NAME@``; a place on its own line is removed if its value is
    empty."""

    def value(place: re.Match[str]) -> str:
        found = values[place[1]]
        return f"{found}{place[2]}" if found else ""

    return re.sub(r"@([A-Z_]+)@(\n?)", value, text)


def continued(arguments: Sequence[Argument], indent: str = "  ") -> str:
    """Return arguments as shell words, one per line."""
    return f" \\\n{indent}".join(argument.text() for argument in arguments)


def _addresses(cluster: ValidCluster, instance: Instance, node: Node) -> Iterator[str]:
    """Yield the assignments of the variables that the exports and the arguments refer to."""
    used = frozenset[str]().union(*map(expansion.names, node.exports.values()))
    yield f"{expansion.LOCAL_IP}={quoted(cluster.addresses[node.host])}"
    if node.settings.interface is not None:
        yield f"{expansion.NIC_NAME}={quoted(node.settings.interface)}"
    elif expansion.NIC_NAME in used:
        yield _find_nic()
    if len(instance.nodes) > 1 or expansion.MASTER_ADDR in used:
        yield f"{expansion.MASTER_ADDR}={quoted(cluster.addresses[instance.head.host])}"


@cache
def _find_nic() -> str:
    return _filled(data.script("find_nic.sh"), FIND_NIC=data.script("find_nic.py").rstrip()).rstrip()


def _environment(cluster: ValidCluster, node: Node) -> Iterator[str]:
    """Yield the exports, each after those that it refers to, and what the image sets in ~/.bashrc only."""
    done = frozenset(expansion.SCRIPT_NAMES)
    for name, value in node.exports.items():
        yield f"export {name}={expansion.written(value, done, quoted)}"
        done |= {name}
    profile = node.settings.profile
    if profile.preload:
        yield _filled(data.script("preload.sh"), LIBRARIES=" ".join(profile.preload)).rstrip()
    if profile.library_path:
        paths = ":".join(profile.library_path)
        yield f'export LD_LIBRARY_PATH="${{LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}}{paths}"'
    if cluster.declaration.api_key:
        yield f'export VLLM_API_KEY="$(cat {SECRET_TARGET})"'


def _ranks(node: Node, arguments: Sequence[Argument]) -> str:
    """Return one ``vllm serve`` for each rank."""
    calls = (f"serve {rank.number} {','.join(map(str, rank.places))} {rank.api_port}" for rank in node.ranks)
    return _filled(
        data.script("serve_ranks.sh"),
        ARGUMENTS=continued(arguments, indent="    "),
        RANKS="\n".join(calls),
    ).rstrip()
