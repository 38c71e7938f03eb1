# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Rules about values in the launch script, which expands variables in pd_engine_env only."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from .. import expansion
from ..findings import ERROR, WARNING, Finding, Rule, shown
from ..model import Instance, Node
from ..values import did_you_mean
from .base import Context, at_node, rule

_DOCS = "docs/variables.md"

# Variables that the image, Docker or bash itself sets; a custom image may set others.
_SET_ELSEWHERE = frozenset(
    {
        "ASCEND_AICPU_PATH",
        "ASCEND_HOME_PATH",
        "ASCEND_OPP_PATH",
        "ASCEND_TOOLKIT_HOME",
        "ATB_HOME_PATH",
        "EUID",
        "HOME",
        "HOSTNAME",
        "LANG",
        "LD_LIBRARY_PATH",
        "LD_PRELOAD",
        "OMP_NUM_THREADS",
        "PATH",
        "PPID",
        "PWD",
        "PYTHONPATH",
        "RANDOM",
        "SECONDS",
        "SHLVL",
        "SOC_VERSION",
        "TASK_QUEUE_ENABLE",
        "UID",
    }
)
# Reserved by bash: an assignment ends the script.
_READ_ONLY = frozenset({"BASHOPTS", "BASH_VERSINFO", "EUID", "PPID", "SHELLOPTS", "UID"})
# The image's values of these locate CANN, the driver and vLLM.
_SEARCH_PATHS = ("LD_LIBRARY_PATH", "PATH", "PYTHONPATH")


def _given(node: Node) -> Iterator[tuple[str, str]]:
    """Yield the variables of pd_engine_env that have a value."""
    for name, value in node.settings.engine_env.items():
        if value is not None:
            yield name, value


@rule(
    "PD440",
    ERROR,
    "Every `$` in a value of pd_engine_env refers to a variable",
    cure="write out the value; write a literal dollar sign as \\$",
    source=_DOCS,
)
def expandable(r: Rule, c: Context) -> Iterator[Finding]:
    for instance, node in c.nodes("pd_engine_env"):
        for name, value in _given(node):
            try:
                expansion.parse(value)
            except expansion.NotExpandable as error:
                yield r.at(
                    f"{name} contains {error.what}: the launch script expands variables and nothing else",
                    **at_node(instance, node),
                    variable="pd_engine_env",
                    seen=f"{name} with {error.seen}",
                    expected="text, $NAME, ${NAME} or ${NAME:-text}",
                )
        circle = expansion.circle(node.exports)
        if circle:
            yield r.at(
                f"the values of {' and '.join(sorted(set(circle)))} refer to each other",
                **at_node(instance, node),
                variable="pd_engine_env",
                seen=" → ".join(circle),
                expected="one of them without the other",
                cure="write out one of the values",
            )


@rule(
    "PD441",
    WARNING,
    "Every variable that is referenced in pd_engine_env is set",
    cure="set it in pd_engine_env, or correct its name; if the image sets it, ignore this warning",
    source=_DOCS,
)
def references_set(r: Rule, c: Context) -> Iterator[Finding]:
    for instance, node in c.nodes("pd_engine_env"):
        known = {*expansion.SCRIPT_NAMES, *_SET_ELSEWHERE, *node.exports}
        for name, value in _given(node):
            try:
                parts = expansion.parse(value)
            except expansion.NotExpandable:
                continue
            for reference in expansion.references(parts):
                if reference.name in known or reference.operator:
                    continue
                near = did_you_mean(reference.name.lower(), expansion.SCRIPT_NAMES)
                yield r.at(
                    f"{name} refers to {reference.name}, which nothing in the plan sets: unless the image "
                    f"sets it, it expands to nothing{near}",
                    **at_node(instance, node),
                    variable="pd_engine_env",
                    seen=f"{name} with ${reference.name}",
                    expected=f"{reference.name} in pd_engine_env, or one of "
                    + ", ".join(f"${known}" for known in expansion.SCRIPT_NAMES),
                )


@rule(
    "PD442",
    ERROR,
    "pd_engine_env sets no variable that is reserved for the launch script or bash",
    cure="remove it from pd_engine_env; pd_node_ip sets the address, pd_interface the NIC",
    source="bash(1), Shell Variables; docs/variables.md",
)
def own_names(r: Rule, c: Context) -> Iterator[Finding]:
    for instance, node in c.nodes("pd_engine_env"):
        planned = {expansion.LOCAL_IP: node.address, expansion.MASTER_ADDR: instance.head.address}
        for name, _ in _given(node):
            if name in _READ_ONLY:
                message, expected = f"bash does not allow {name} to be set: the script would end there", None
            elif planned.get(name) is not None and node.env[name] != planned[name]:
                message = f"the launch script sets {name} from the plan, and uses it after this value as well"
                expected = planned[name]
            else:
                continue
            yield r.at(
                message,
                **at_node(instance, node),
                variable="pd_engine_env",
                seen=name if name in _READ_ONLY else f"{name}={shown(node.env[name], 60)}",
                expected=expected or "not set",
            )


@rule(
    "PD443",
    WARNING,
    "Search paths in pd_engine_env keep the image's entries",
    cure="append the variable itself, such as LD_LIBRARY_PATH: /some/path:$LD_LIBRARY_PATH",
    source="the image's ENV (CANN's set_env.sh); docs/variables.md",
)
def search_paths(r: Rule, c: Context) -> Iterator[Finding]:
    for instance, node in c.nodes("pd_engine_env"):
        for name, value in _given(node):
            if name in _SEARCH_PATHS and not re.search(rf"\$\{{?{name}\b", value):
                yield r.at(
                    f"{name} replaces the image's value, which locates CANN, the driver and vLLM",
                    **at_node(instance, node),
                    variable="pd_engine_env",
                    seen=f"{name}={shown(value, 80)}",
                    expected=f"…:${name}",
                )


@rule(
    "PD446",
    WARNING,
    "A home directory in pd_engine_env is written as $HOME",
    cure="write $HOME instead of ~; if the program itself expands the ~, ignore this warning",
    source="bash(1), Tilde Expansion; docs/variables.md",
)
def home_directory(r: Rule, c: Context) -> Iterator[Finding]:
    """A shell expands ~ only outside quotes; values here are expanded as within double quotes."""
    for instance, node in c.nodes("pd_engine_env"):
        for name, value in _given(node):
            if re.search(r"(^|:)~/", value):
                yield r.at(
                    f"the ~ in {name} is not expanded, and few programs read it as a directory",
                    **at_node(instance, node),
                    variable="pd_engine_env",
                    seen=f"{name} with ~/",
                    expected="$HOME/",
                )


_VARIABLE = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)")
_OF_A_SHELL = re.compile(r"\$\([^)]{0,40}\)?|\$\{?[A-Z][A-Z0-9_]*\}?")


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in a value, including the keys of mappings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _as_they_stand(instance: Instance, node: Node) -> Iterator[tuple[str, str, str]]:
    """Yield the texts that reach Docker or the command line unchanged: the variable, the place in it, the
    text."""
    settings = node.settings
    for spelt, value in settings.engine_args.items():
        for text in _texts(value):
            yield "pd_engine_args", f"{spelt}: ", text
    for text in _texts(settings.kv_extra_config):
        yield "pd_kv_extra_config", "", text
    for mount in settings.extra_mounts:
        for path in dict.fromkeys((mount.source, mount.target)):
            yield "pd_extra_mounts", "", path
    yield "pd_model_path", "", settings.model_path
    yield "pd_served_model_name", "", settings.served_model_name


@rule(
    "PD444",
    ERROR,
    "The launch script's variables are used in pd_engine_env only",
    cure="write out the value, or use an Ansible expression such as {{ ansible_host }}",
    source=_DOCS,
)
def not_expanded_here(r: Rule, c: Context) -> Iterator[Finding]:
    """The planner quotes command lines, so `$local_ip` on one is not an address."""
    for instance, node in c.nodes():
        for variable, where, text in _as_they_stand(instance, node):
            for name in dict.fromkeys(_VARIABLE.findall(text)):
                if name in expansion.SCRIPT_NAMES:
                    yield r.at(
                        f"{variable} is used literally, and ${name} in it is not expanded",
                        **at_node(instance, node),
                        variable=variable,
                        seen=f"{where}${name}",
                        expected="the value",
                    )


@rule(
    "PD445",
    WARNING,
    "Text that looks like a shell variable or command is used in pd_engine_env only",
    cure="write out the value, or use an Ansible expression; if the text is literal, ignore this warning",
    source=_DOCS,
)
def looks_like_shell(r: Rule, c: Context) -> Iterator[Finding]:
    declaration = c.cluster.declaration
    for variable, text in (
        ("pd_image", declaration.image),
        ("pd_host_dir", declaration.host_dir),
        ("pd_plan_dir", declaration.plan_dir or ""),
    ):
        match = _OF_A_SHELL.search(text)
        if match:
            yield r.at(
                f"{variable} is used literally, and {match[0]} in it is not expanded",
                variable=variable,
                seen=shown(text, 80),
                expected="the value",
            )
    for instance, node in c.nodes():
        for variable, where, text in _as_they_stand(instance, node):
            match = _OF_A_SHELL.search(text)
            if match:
                yield r.at(
                    f"{variable} is used literally, and {match[0]} in it is not expanded",
                    **at_node(instance, node),
                    variable=variable,
                    seen=f"{where}{match[0]}",
                    expected="the value",
                )
