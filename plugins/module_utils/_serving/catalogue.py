# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Failures while engines and the proxy start and of the guard, and what a canary finds; the source of
docs/failures.md."""

from __future__ import annotations

from .._findings import ERROR, HINT, WARNING, Catalogue, Check

SOURCE = "the container's state and its log"
CANARY_SOURCE = "this collection, role canary"
CANARY_LOGS = "see the logs of both engines"
# An engine without the server's /etc/hccn.conf starts, is healthy, and reads a wrong KV cache.
WRONG_KV = (
    f"{CANARY_LOGS}; /etc/hccn.conf must be mounted into every engine, and both must have the same sizes in"
    " kv_connector_extra_config; after a restart of the prefiller at v0.13.0 restart the decoder, or set"
    " MC_DISABLE_METACACHE=1 in its environment"
)
ROUTER_SOURCE = "this collection, plugins/plugin_utils/rollout/data/routers/vllm_router.yml"

ENGINE_CHECKS = Catalogue(
    Check(
        "engine-ended",
        "An engine or the proxy ended during its start",
        "A container that this run has started is stopped if it fails, so that it is not restarted forever.",
        ERROR,
        "a container that runs until it is ready",
        "docker logs {container}  # on {host}: the first error in it is the cause",
        SOURCE,
    ),
    Check(
        "engine-late",
        "An engine or the proxy is not ready in time",
        "It is still loading, is waiting for other nodes of its instance, or hangs.",
        ERROR,
        "an answer of its health check within the role's timeout",
        "docker logs --tail 50 {container}  # on {host}; raise engine_ready_timeout if it only needs longer",
        SOURCE,
    ),
    Check(
        "engine-group-incomplete",
        "An instance has to be started, but one of its servers is not in this run",
        "The nodes of an instance only start together: without the others they would wait in vain.",
        ERROR,
        "all servers of the instance in this run",
        "ansible-playbook playbooks/deploy.yml --limit {hosts}  # or without --limit",
        "this collection, role _container",
    ),
    Check(
        "engine-not-awaited",
        "The wait for an engine was ended",
        "Another engine or the proxy has failed, and without it there is no service.",
        ERROR,
        "all engines and the proxy become ready",
        "fix the other failure, then run again",
        SOURCE,
    ),
    Check(
        "engine-drain-late",
        "An engine still has requests when its time to finish them is up",
        "They came past the routers, or take longer than pd_drain_timeout. They are cut when it is stopped.",
        WARNING,
        "no request that runs or waits",
        "raise pd_drain_timeout if answers take longer; see who asks the engine itself",
        "vllm:num_requests_running and vllm:num_requests_waiting of its /metrics",
    ),
    Check(
        "engine-start-unrecorded",
        "The start of an engine cannot be recorded",
        "Without the record the next run cannot tell whether a node is still in the group of its start.",
        ERROR,
        "a deployment directory to which root can write",
        "df {path}; ls -ld {path}  # free space, or repair the directory; then run again",
        "this collection, plugins/module_utils/_serving/nodes.py",
    ),
    Check(
        "engine-revision-unwritten",
        "A revision cannot be written",
        "The deployment serves as planned. But playbooks/rollback.yml could not go back to it.",
        ERROR,
        "a deployment directory to which root can write",
        "df {path}; ls -ld {path}  # free space, or repair the directory; then run again",
        "this collection, plugins/module_utils/_serving/history.py",
    ),
    Check(
        "router-wheels-unfetched",
        "The wheels of vllm-router cannot be fetched",
        "Its host has no modules of the router yet, and the controller has not got them either.",
        ERROR,
        "a package index that the controller's pip can read, or pd_router_wheels",
        "see what pip says; or set pd_router_wheels to a directory with the wheels, or pd_router to upstream",
        ROUTER_SOURCE,
    ),
    Check(
        "router-wheel-missing",
        "A wheel of vllm-router is missing",
        "The planned version needs it on servers of this architecture.",
        ERROR,
        "the wheel in the directory of pd_router_wheels on the controller",
        "add it, or unset pd_router_wheels to have it fetched",
        ROUTER_SOURCE,
    ),
    Check(
        "router-wheel-wrong",
        "A wheel of vllm-router is not the planned one",
        "Its hash is another one: it is damaged, or somebody has replaced it. Nothing of it is used.",
        ERROR,
        "the pinned SHA-256",
        "remove {path}, and provide the wheel of the package index again",
        ROUTER_SOURCE,
    ),
    Check(
        "router-machine-unknown",
        "There is no wheel of vllm-router for a server's architecture",
        "The router cannot run on this server.",
        ERROR,
        "x86_64 or aarch64",
        "set pd_router to upstream, or move the group proxy to another server",
        ROUTER_SOURCE,
    ),
    Check(
        "router-modules-unwritten",
        "The modules of vllm-router cannot be written to a server",
        "Its container mounts them.",
        ERROR,
        "100 MB below pd_host_dir, to which root can write",
        "df {path}; ls -ld {path}  # free space, or repair the directory; then run again",
        ROUTER_SOURCE,
    ),
)

# Their place is a pair: prefiller → decoder.
CANARY_CHECKS = Catalogue(
    Check(
        "canary-no-answer",
        "An engine gives no answer to a canary's request",
        "Clients whose request gets to this pair have no answer either, or an empty one with status 200.",
        ERROR,
        "a completion with status 200 from the prefiller, then from the decoder",
        "see the log of the named engine; playbooks/deploy.yml starts engines that do not run",
        CANARY_SOURCE,
    ),
    Check(
        "canary-no-kv-params",
        "A prefiller answers without saying where its KV cache is",
        "Upstream's proxy passes such an answer on, and the decoder computes the prompt again.",
        ERROR,
        "kv_transfer_params in the prefiller's answer",
        "check --kv-transfer-config of the prefiller: kv_role must be kv_producer; see its log",
        "A@v0.23.0:examples/disaggregated_prefill_v1/load_balance_proxy_server_example.py:924",
    ),
    Check(
        "canary-not-called",
        "A decoder does not call the canary",
        "A layerwise decoder tells a metaserver where its blocks are, here the canary, in service the proxy.",
        ERROR,
        "a call of the decoder",
        "open the canary's port for the decoders' servers (canary_port sets it), or see the decoder's log",
        "A@v0.13.0:vllm_ascend/distributed/mooncake_layerwise_connector.py:798",
    ),
    Check(
        "canary-no-listener",
        "The canary cannot listen for layerwise decoders",
        "They tell it where their blocks are.",
        ERROR,
        "a free port of the router's address",
        "set canary_port to a free port, or to 0 for any",
        CANARY_SOURCE,
    ),
    Check(
        "canary-empty",
        "An answer is empty",
        "Status 200 without text is what clients get for a transfer that failed or a decoder that ends.",
        ERROR,
        "text",
        CANARY_LOGS,
        CANARY_SOURCE,
    ),
    Check(
        "canary-repeats",
        "An answer repeats itself or cannot be read",
        "So does a model that reads a wrong KV cache, or that computes with damaged weights.",
        ERROR,
        "text that goes on",
        WRONG_KV,
        CANARY_SOURCE,
    ),
    Check(
        "canary-cut",
        "An answer breaks off",
        "It has fewer tokens than asked for, although the model has not ended it.",
        ERROR,
        "all tokens, or the end that the decoder alone gives",
        CANARY_LOGS,
        CANARY_SOURCE,
    ),
    Check(
        "canary-wrong",
        "A pair's answer begins otherwise than the decoder's own",
        "The decoder reads a wrong KV cache. The answers have status 200.",
        ERROR,
        "the same first words (canary_match_words)",
        WRONG_KV,
        CANARY_SOURCE,
    ),
    Check(
        "canary-changed",
        "A pair's answer begins otherwise than at the last good revision",
        "Release, image, model and profile are the same, so the answer to a fixed prompt must be.",
        ERROR,
        "the same first words (canary_match_words)",
        "check the weights (playbooks/check.yml) and what else has changed on the servers",
        CANARY_SOURCE,
    ),
    Check(
        "canary-recomputed",
        "A decoder computes prompts itself instead of getting their KV cache",
        "The text is right, but prefillers work in vain, and decoders get slow.",
        ERROR,
        "the prompts' tokens transferred",
        "see the decoder's log for `Failed to transfer KV cache`, and kv_role and kv_load_failure_policy in"
        " its --kv-transfer-config",
        "V@0.18.0:vllm/v1/metrics/loggers.py:600",
    ),
    Check(
        "canary-transfer-unknown",
        "It is not known whether a decoder got the KV cache",
        "Its metrics do not tell the canary's requests from others, or do not count it. The texts are good.",
        HINT,
        "the counters of a decoder with few other requests",
        "ask again at a quieter time, or add enable-prompt-tokens-details to the decoders' pd_engine_args",
        "this collection, plugins/module_utils/_serving/canary_verdict.py",
    ),
)

GUARD_CHECKS = Catalogue(
    Check(
        "guard-not-started",
        "The guard does not start",
        "Engines and routers serve, but nothing brings an engine back after a crash or a reboot.",
        ERROR,
        "an active unit",
        "journalctl -u {unit} -n 30  # on this server; or set pd_guard to false",
        "systemd and the unit's journal",
    ),
    Check(
        "guard-unit-foreign",
        "There is another service of the guard's name",
        "It was not written by this collection, which replaces nothing of others.",
        ERROR,
        "no unit of that name, or one of this collection",
        "choose another pd_deployment, or remove {path}; or set pd_guard to false",
        "this collection, plugins/module_utils/_serving/guard_unit.py",
    ),
)
