# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Rules about what the chosen release supports: environment variables, --additional-config, image."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..findings import ERROR, HINT, WARNING, Finding, Rule, shown
from ..model import Instance, Node
from ..releases import Release, load_release, release_names, standing
from ..slips import close_to, slip_of
from ..topology import joined
from ..values import SAME, did_you_mean
from .base import Context, additional_config, at_node, flag_number, flashcomm, number, rule
from .transfer import whole_number

# Prefixes of vLLM's and vllm-ascend's own variables.
_OURS = "VLLM_"
# Variables of the libraries, the loader and Python that serving depends on. The list of what they read is not
# complete. The many others (CUDA_, NCCL_ …) are not checked: they have no effect on these servers.
_LIBRARIES = (
    "ACL_",
    "ASCEND_",
    "ATB_",
    "CPU_AFFINITY_",
    "EXPERT_MAP_",
    "GLOO_",
    "HCCL_",
    "LCCL_",
    "LD_",
    "MC_",
    "MOONCAKE_",
    "OMP_",
    "PYTORCH_NPU_",
    "TASK_",
    "TP_",
)
_SINGLE = frozenset({"DYNAMIC_EPLB", "PATH", "PYTHONHASHSEED", "PYTHONPATH"})
# The name of upstream's image.
_NAME = "vllm-ascend"
# Seconds: a load of 15 minutes and the graph capture after it.
SAFE_READY_TIMEOUT = 1200
_READY_TIMEOUT = "VLLM_ENGINE_READY_TIMEOUT_S"


def _places(c: Context) -> Iterator[tuple[str, Instance, tuple[Node, ...]]]:
    """Yield every variable of pd_engine_env, with the instance and its nodes that set it."""
    for instance in c.instances("pd_engine_env"):
        by_name: dict[str, list[Node]] = {}
        for node in instance.nodes:
            for name, value in node.settings.engine_env.items():
                if value is not None:
                    by_name.setdefault(name, []).append(node)
        for name, nodes in by_name.items():
            yield name, instance, tuple(nodes)


def _one_host(instance: Instance, nodes: tuple[Node, ...]) -> str | None:
    """The host, if only one of several nodes sets the variable, else None."""
    return nodes[0].host if len(nodes) == 1 and len(instance.nodes) > 1 else None


def _ours(release: Release) -> frozenset[str]:
    """vLLM's and vllm-ascend's own variables that the release reads."""
    return frozenset(name for name in release.environment if name.startswith(_OURS))


def _libraries(release: Release) -> frozenset[str]:
    return frozenset(name for name in release.environment if name in _SINGLE or name.startswith(_LIBRARIES))


def _readers(name: str) -> list[str]:
    """The names of the releases that read a variable."""
    return [release for release in release_names() if name in load_release(release).environment]


def _unknown(c: Context) -> Iterator[tuple[str, Instance, tuple[Node, ...]]]:
    """Yield the variables of pd_engine_env that nothing in the release is known to read."""
    release = c.cluster.release
    for name, instance, nodes in _places(c):
        if name not in release.environment and name not in release.idle_env:
            yield name, instance, nodes


@rule(
    "PD420",
    ERROR,
    "No variable is a misspelling of one that vLLM or vllm-ascend reads",
    cure="correct the variable's name",
    source="V@0.13.0:vllm/envs.py, A@v0.13.0:vllm_ascend/envs.py, and those of the other releases",
)
def environment_spelt(r: Rule, c: Context) -> Iterator[Finding]:
    """With such a variable the engine starts, but without the intended setting."""
    release = c.cluster.release
    for name, instance, nodes in _unknown(c):
        meant = None if _readers(name) else slip_of(name, _ours(release))
        if meant is not None:
            yield r.at(
                f"release {release.name} reads no variable {name}; did you mean {meant}?",
                host=_one_host(instance, nodes),
                instance=instance.name,
                variable="pd_engine_env",
                seen=name,
                expected=meant,
            )


@rule(
    "PD437",
    WARNING,
    "The release reads every vLLM and vllm-ascend variable in the environment",
    cure="remove it from pd_engine_env; if the image reads it, ignore this warning",
    source="V@0.13.0:vllm/envs.py, A@v0.13.0:vllm_ascend/envs.py, and those of the other releases",
)
def environment_read(r: Rule, c: Context) -> Iterator[Finding]:
    """Such a variable has no effect, and the engine starts. A custom image may read it."""
    release = c.cluster.release
    for name, instance, nodes in _unknown(c):
        readers = _readers(name)
        if not readers and (not name.startswith(_OURS) or slip_of(name, _ours(release))):
            continue  # misspellings are left to PD420, and what other programs read is not known
        where = standing(release, name, "environment")
        # The list of variables of other programs is incomplete: only those known to be removed are reported.
        if not name.startswith(_OURS) and where.instead is None:
            continue
        known, cure = "", None
        if readers:
            known = f"; {' and '.join(readers)} {'do' if len(readers) > 1 else 'does'}"
        elif near := close_to(name, _ours(release)):
            known = f"; did you mean {near}?"
        elif _own_image(c):
            known = ", and neither does any other release; a custom image may"
        if where.instead is not None:
            cure = where.removal()
        elif where.comes_with is not None:
            cure = f"remove it, or set pd_release to {where.comes_with} or a later release"
        elif where.gone_since is not None:
            cure = "remove it from pd_engine_env"
        yield r.at(
            f"release {release.name} reads no variable {name}{known}",
            host=_one_host(instance, nodes),
            instance=instance.name,
            variable="pd_engine_env",
            seen=name,
            expected=f"a variable that {release.name} reads",
            cure=cure,
        )


@rule(
    "PD439",
    ERROR,
    "With fail-on-environ-validation, vLLM knows every variable that is set",
    cure="remove fail-on-environ-validation from pd_engine_args, or the variable",
    source="V@0.18.0:vllm/envs.py:1711 (validate_environ)",
)
def environment_validated(r: Rule, c: Context) -> Iterator[Finding]:
    """vllm-ascend's own variables are not in vLLM's table, so vLLM rejects them too."""
    release = c.cluster.release
    for instance in c.instances("pd_engine_args", "pd_engine_env"):
        node = instance.head
        if node.flag("fail-on-environ-validation") is not True:
            continue
        vllm = {name for name in _ours(release) if not name.startswith("VLLM_ASCEND_")}
        refused = sorted(name for name in node.env if name.startswith(_OURS) and name not in vllm)
        if refused:
            yield r.at(
                f"Unknown vLLM environment variable detected: {joined(refused)}",
                instance=instance.name,
                variable="pd_engine_args",
                seen="fail-on-environ-validation",
                expected="not set",
            )


@rule(
    "PD451",
    ERROR,
    "Variables that engines read as whole numbers hold whole numbers",
    cure="in pd_engine_env, write 1 for on and 0 for off, or the number",
    source="A@v0.13.0:vllm_ascend/envs.py, V@0.18.0:vllm/envs.py:634; integer_env in data/releases",
)
def whole_numbers(r: Rule, c: Context) -> Iterator[Finding]:
    for instance, node in c.nodes("pd_engine_env"):
        for name in c.cluster.release.integer_env:
            value = node.env.get(name)
            if value is not None and not whole_number(value):
                yield r.at(
                    f"invalid literal for int() with base 10: {shown(value, 40)!r}",
                    **at_node(instance, node),
                    variable="pd_engine_env",
                    seen=f"{name}={shown(value, 40)}",
                    expected=f"{name} with a whole number",
                )


def _own_image(c: Context) -> bool:
    """Whether the image is not the release's, regardless of its registry."""
    name = c.cluster.declaration.image.rsplit("/", 1)[-1]
    return not re.match(rf"{_NAME}:{re.escape(c.cluster.release.name)}(\.post[0-9]+)?(-|@|$)", name)


@rule(
    "PD421",
    WARNING,
    "Variables of the libraries, the loader and Python have known names",
    cure="correct the variable's name; if the name is intended, ignore this warning",
    source="plugins/plugin_utils/rollout/data/releases (libraries_env)",
)
def libraries_known(r: Rule, c: Context) -> Iterator[Finding]:
    release = c.cluster.release
    for name, instance, nodes in _unknown(c):
        if name.startswith(_OURS) or _readers(name) or slip_of(name, _ours(release)):
            continue
        libraries = _libraries(release)
        near = slip_of(name, libraries)
        if near is None and name.startswith(_LIBRARIES):
            near = close_to(name, libraries, complete=False)
        if near is not None:
            yield r.at(
                f"{name} is not a known variable; did you mean {near}?",
                host=_one_host(instance, nodes),
                instance=instance.name,
                variable="pd_engine_env",
                seen=name,
                expected=near,
            )


@rule(
    "PD422",
    WARNING,
    "The release reads every key of additional-config",
    cure="correct the key in pd_engine_args, or remove it",
    source="A@v0.13.0:vllm_ascend/ascend_config.py, and those of the other releases",
)
def config_known(r: Rule, c: Context) -> Iterator[Finding]:
    """vllm-ascend ignores unknown keys silently."""
    release = c.cluster.release
    for instance in c.instances("pd_engine_args"):
        for key in additional_config(instance.head):
            if key in release.additional_config:
                continue
            where = standing(release, key, "additional_config")
            near = (
                ""
                if where.gone_since or where.comes_with
                else did_you_mean(key, release.additional_config, SAME)
            )
            yield r.at(
                f"release {release.name} ignores the key {shown(key, 60)}{near}{where.sentence()}",
                instance=instance.name,
                variable="pd_engine_args",
                seen=f"additional-config: {shown(key, 60)}",
                expected=f"one of the {len(release.additional_config)} keys that {release.name} reads",
            )


def _key_of_other_role(c: Context, elsewhere: str, r: Rule) -> Iterator[Finding]:
    if c.cluster.colocated:
        return
    for key in c.cluster.release.config_keys:
        if key.elsewhere != elsewhere:
            continue
        for instance in c.instances("pd_engine_args", "pd_profile"):
            if instance.role != key.role and additional_config(instance.head).get(key.name):
                yield r.at(
                    key.message,
                    instance=instance.name,
                    variable="pd_engine_args",
                    seen=f"additional-config: {key.name} in a {instance.role}",
                    expected=f"only in a {key.role}",
                )


@rule(
    "PD423",
    ERROR,
    "Keys of additional-config that one role rejects are set for the other role only",
    cure="set the key in the group_vars of the other role, not of all",
    source="A@v0.18.0:vllm_ascend/platform.py:245, vllm_ascend/ascend_config.py:148",
)
def config_of_role(r: Rule, c: Context) -> Iterator[Finding]:
    yield from _key_of_other_role(c, "refused", r)


@rule(
    "PD424",
    WARNING,
    "Keys of additional-config that one role ignores are set for the other role only",
    cure="set the key in the group_vars of the other role, not of all",
    source="A@v0.23.0:vllm_ascend/platform.py:694",
)
def config_passed_over(r: Rule, c: Context) -> Iterator[Finding]:
    yield from _key_of_other_role(c, "ignored", r)


@rule(
    "PD425",
    HINT,
    "The release does not deprecate any variable that is set",
    cure="set the key in additional-config instead; a later release will not read the variable",
    source="A@v0.23.0:vllm_ascend/ascend_config.py (_get_config_value)",
)
def environment_deprecated(r: Rule, c: Context) -> Iterator[Finding]:
    release = c.cluster.release
    for name, key in release.deprecated_env.items():
        users = [instance for instance, node in c.nodes("pd_engine_env") if name in node.env]
        if users:
            yield r.at(
                f"{release.name} still reads {name}, but announces that a later release will not",
                instance=users[0].name if len({instance.name for instance in users}) == 1 else None,
                variable="pd_engine_env",
                seen=name,
                expected=f"{key} in additional-config",
            )


@rule(
    "PD608",
    ERROR,
    "The image is built for pd_release",
    cure="set pd_image to the image of pd_release, or pd_release to the release of the image",
    source="A@v0.13.0:docs/source/installation.md (the tag names the release)",
)
def image_of_release(r: Rule, c: Context) -> Iterator[Finding]:
    """Flags, ports and environment are those of pd_release; another release in the image needs others."""
    yield from _other_release(r, c, published=True)


@rule(
    "PD613",
    WARNING,
    "The tag of a custom image does not name another release",
    cure="set pd_release to the release that the image is built from; if the tag counts builds, ignore this",
    source="A@v0.13.0:docs/source/installation.md (the tag names the release)",
)
def own_image_of_release(r: Rule, c: Context) -> Iterator[Finding]:
    """The tag of a custom image may be a build number that looks like a release."""
    yield from _other_release(r, c, published=False)


def _other_release(r: Rule, c: Context, *, published: bool) -> Iterator[Finding]:
    """Yield a finding if the image's tag names another release; ``published`` selects images with
    vllm-ascend's name, else all others."""
    image, release = c.cluster.declaration.image, c.cluster.release
    name, _, tag = image.rsplit("/", 1)[-1].partition(":")
    match = re.match(r"v[0-9]+\.[0-9]+\.[0-9]+(?=-|@|$)", tag)
    if match and match[0] != release.name and match[0] in release_names() and published == (name == _NAME):
        yield r.at(
            f"the image is of release {match[0]}, but the plan would be for {release.name}"
            if published
            else f"the tag names release {match[0]}, but the plan is for {release.name}",
            variable="pd_image",
            seen=image,
            expected=f"an image of {release.name}, such as {release.image}",
        )


@rule(
    "PD609",
    WARNING,
    "vLLM waits long enough for its own engine to start",
    cure=f'set {_READY_TIMEOUT}: "3600" in pd_engine_env',
    source="V@0.18.0:vllm/envs.py; vllm-ascend issues 7098, 6778",
)
def ready_timeout(r: Rule, c: Context) -> Iterator[Finding]:
    default = c.cluster.release.engine_ready_timeout
    if default is None:
        return
    for instance in c.instances("pd_engine_env"):
        value = instance.head.env.get(_READY_TIMEOUT)
        seconds = default if value is None else number(value)
        if seconds is None or seconds < SAFE_READY_TIMEOUT:
            yield r.at(
                f"vLLM itself stops an engine that loads longer than {shown(value or str(default), 20)} s, "
                "and a load of 15 minutes has been seen",
                instance=instance.name,
                variable="pd_engine_env",
                seen=f"{_READY_TIMEOUT}={f'(not set: {default})' if value is None else value}",
                expected=f"at least {SAFE_READY_TIMEOUT} seconds",
            )


@rule(
    "PD610",
    WARNING,
    "How long a prefiller keeps a finished prompt's cache is set in the variable that the connector reads",
    cure="set the release's variable",
    source=(
        "A@v0.13.0:vllm_ascend/distributed/mooncake_connector.py:162; "
        "A@v0.18.0:vllm_ascend/distributed/kv_transfer/kv_p2p/mooncake_connector.py"
    ),
)
def abort_timeout(r: Rule, c: Context) -> Iterator[Finding]:
    release = c.cluster.release
    names = {name for name in _abort_variables() if name != release.abort_timeout_variable}
    for instance, node in c.nodes("pd_engine_env"):
        for name in sorted(names & node.env.keys() & release.environment):
            yield r.at(
                f"the connector of {release.name} reads {release.abort_timeout_variable}, not {name}",
                **at_node(instance, node),
                variable="pd_engine_env",
                seen=name,
                expected=release.abort_timeout_variable,
            )


def _abort_variables() -> set[str]:
    return {load_release(name).abort_timeout_variable for name in release_names()}


@rule(
    "PD611",
    HINT,
    "With FlashComm1 and prefill context parallel, the batch size is a multiple of their ranks",
    cure="choose a multiple of tensor × prefill_context for max-num-batched-tokens",
    source="A@v0.18.0:vllm_ascend/ascend_config.py:73",
)
def batch_rounded(r: Rule, c: Context) -> Iterator[Finding]:
    if not c.cluster.release.limits.batch_rounded:
        return
    for instance in c.instances("pd_parallel", "pd_engine_args", "pd_engine_env"):
        batch = flag_number(instance.head, "max-num-batched-tokens")
        ranks = instance.parallel.tensor * instance.parallel.prefill_context
        rounds = instance.parallel.prefill_context > 1 and flashcomm(c, instance.head)
        if rounds and batch is not None and batch % ranks:
            yield r.at(
                f"the engine rounds {batch} up to {-(-batch // ranks) * ranks}, a multiple of {ranks}",
                instance=instance.name,
                variable="pd_engine_args",
                seen=f"max-num-batched-tokens {batch}",
                expected=-(-batch // ranks) * ranks,
            )


@rule(
    "PD612",
    WARNING,
    "Fused MC2 is off where the release notes say that it fails",
    cure="set VLLM_ASCEND_ENABLE_FUSED_MC2: null in pd_engine_env",
    source="A@v0.18.0 release notes, known issues (vllm-ascend issue 8320)",
)
def fused_mc2(r: Rule, c: Context) -> Iterator[Finding]:
    if c.cluster.release.limits.fused_mc2:
        return
    name = "VLLM_ASCEND_ENABLE_FUSED_MC2"
    for instance in c.instances("pd_parallel", "pd_engine_env", "pd_profile"):
        value = number(instance.head.env.get(name, "0"))
        if value and (instance.role == "prefiller" or instance.parallel.data > 1):
            yield r.at(
                "fused MC2 fails in prefillers of separate prefill and decode, and with several "
                "data-parallel ranks",
                instance=instance.name,
                variable="pd_engine_env",
                seen=f"{name}={value}, {instance.role}, data {instance.parallel.data}",
                expected="0",
            )
