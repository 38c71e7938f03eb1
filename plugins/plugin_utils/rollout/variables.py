# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The variables of the inventory contract: how each is read, its default, and its meaning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from .model import DpMode, ImageSource, Mode, Mount, Parallel, Server, WeightsSource, WeightsVerify
from .names import DEPLOYMENT as DEPLOYMENT_NAME
from .names import DEPLOYMENT_EXPECTED
from .routers import Router
from .values import (
    ApiKeys,
    one_of,
    own_path,
    port,
    read_address,
    read_api_keys,
    read_chips,
    read_dp_mode,
    read_engine_id,
    read_env,
    read_flags,
    read_mapping,
    read_mode,
    read_mounts,
    read_parallel,
    read_pem,
    read_secret,
    read_server,
    read_size,
    switch,
    text,
    whole,
    word,
)

T = TypeVar("T")

DEFAULT_RELEASE = "v0.13.0"
DEFAULT_PROFILE = "deepseek-v3.1-w8a8"

# Largest number of chips of a server, for the same reason as values.MAX_PARALLEL.
MAX_CHIPS_PER_NODE = 1024


@dataclass(frozen=True)
class Variable(Generic[T]):
    """A variable of the inventory contract."""

    name: str
    read: Callable[[Any], T]
    default: T
    meaning: str
    # Whether it is set for the cluster, a host or an instance.
    scope: str = "instance"
    required: bool = False
    # May hold a secret: no finding shows its value.
    private: bool = False
    # How the documentation describes the default, if the value alone does not.
    default_text: str | None = None


def _optional(read: Callable[[Any], T]) -> Callable[[Any], T | None]:
    return lambda value: None if value is None or value == "" else read(value)


_registry = text(
    r"[A-Za-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)*/?",
    "a registry, such as registry.example:5000/mirror, without upper case letters after the first /",
)
# Docker accepts neither upper case in the name after the registry nor a scheme. A part before the first /
# with a dot, a port or upper case is a registry (distribution/reference, splitDockerDomain).
_image = text(
    r"(?!\S*://)([^\s@/]*[.:A-Z][^\s@/]*/|localhost/)?[^\sA-Z@:]+(:[^\s@/]+)?(@sha256:[0-9a-f]{64})?",
    "an image, such as registry.example:5000/ascend/vllm-ascend:v0.13.0-a3, optionally with @sha256: and 64 "
    "hexadecimal digits, without https:// and without upper case letters in its name",
)
_interface = text(r"[A-Za-z0-9._:@-]{1,15}", "the name of a network interface")
_deployment = text(DEPLOYMENT_NAME, DEPLOYMENT_EXPECTED)
_no_mapping: Mapping[str, Any] = {}
_no_env: Mapping[str, str | None] = {}
_no_mounts: tuple[Mount, ...] = ()

RELEASE = Variable(
    "pd_release",
    word,
    DEFAULT_RELEASE,
    "release of vllm-ascend; determines image, flags, ports and proxy",
    "cluster",
)
MODE: Variable[Mode] = Variable(
    "pd_mode",
    read_mode,
    "disaggregated",
    "`disaggregated`: separate prefillers and decoders; `colocated`: one engine, in the group `decoder`, "
    "does both, without KV transfer and proxy",
    "cluster",
)
SERVER: Variable[Server] = Variable(
    "pd_server",
    read_server,
    "atlas-a3",
    "type of the servers, `atlas-a3` or `atlas-a2`; determines the image and the number of chips",
    "cluster",
)
IMAGE = Variable(
    "pd_image",
    _optional(_image),
    None,
    "complete image reference, by tag or pinned by the registry's digest: `name:tag@sha256:…`; on the "
    "servers the image has the name with the tag",
    "cluster",
    default_text="the release's image for `pd_server`",
)
REGISTRY = Variable(
    "pd_image_registry",
    _optional(_registry),
    None,
    "registry or mirror that precedes the name of the release's image",
    "cluster",
)
IMAGE_SOURCE: Variable[ImageSource] = Variable(
    "pd_image_source",
    one_of("registry", "pull", "archive", "none"),
    "registry",
    "source of an image that no server has yet: `registry` (can be resumed), `pull` (by each server's "
    "own Docker), `archive` (a file made by `docker save`), `none` (one of the servers must have it)",
    "cluster",
)
IMAGE_ARCHIVE: Variable[str] = Variable(
    "pd_image_archive",
    text(r"[^\x00-\x1f]*", "a path"),
    "",
    "file made by `docker save`, plain, gzip or zstd, for `pd_image_source: archive`",
    "cluster",
    default_text="none",
)
IMAGE_ARCHIVE_REMOTE_SRC = Variable(
    "pd_image_archive_remote_src",
    switch,
    True,
    "whether the archive is on the servers (`true`) or on the controller (`false`)",
    "cluster",
    default_text="`true`",
)
WEIGHTS_SOURCE: Variable[WeightsSource] = Variable(
    "pd_weights_source",
    one_of("present", "server", "modelscope", "huggingface", "controller"),
    "present",
    "source of the weights: `present` (they are on all servers), `server` (one of the servers has "
    "them), `modelscope` or `huggingface` (one server downloads them), `controller` (a directory there)",
    "cluster",
)
WEIGHTS_VERIFY: Variable[WeightsVerify] = Variable(
    "pd_weights_verify",
    one_of("none", "full"),
    "none",
    "`full`: read every byte of the weights, which takes minutes, and compare it with the list of hashes "
    "next to them and between servers; `none`: check sizes and headers only",
    "cluster",
)
DEPLOYMENT = Variable(
    "pd_deployment",
    _deployment,
    "pd",
    "name of the deployment, used as the first part of container names and as a directory; instances with "
    "another name form another deployment",
    "cluster",
)
HOST_DIR = Variable(
    "pd_host_dir", own_path, "/etc/pd_rollout", "directory of the launch scripts on the servers", "cluster"
)
PLAN_DIR = Variable(
    "pd_plan_dir",
    _optional(text(r"[^\x00-\x1f]+", "a path")),
    None,
    "directory on the controller to which the plan is written",
    "cluster",
    default_text="`plans/<inventory name>`: the folder's name; for a file next to other inventories, "
    "`<folder>-<file>`; for several inventories, their names joined by `+`",
)
PROXY_PORT = Variable("pd_proxy_port", port, 8005, "port of the proxy", "cluster")
ROUTER: Variable[Router] = Variable(
    "pd_router",
    one_of("upstream", "vllm_router"),
    "upstream",
    "what passes requests on to the engines: `upstream`, the unmodified script of the release for the "
    "connector, or `vllm_router`, the router of the vLLM project, which serves more requests per second, "
    "stops using a dead engine after 2 s, and has metrics; not with `MooncakeLayerwiseConnector`",
    "cluster",
)
ROUTER_ARGS = Variable(
    "pd_router_args",
    read_flags,
    _no_mapping,
    "long options of the router by name without dashes, in the forms of `pd_engine_args`; those of the "
    "upstream script are in [releases.md](releases.md#connectors)",
    "cluster",
    private=True,
    default_text="`{}`",
)
ROUTER_METRICS_PORT = Variable(
    "pd_router_metrics_port", port, 8055, "port of the metrics of `vllm_router`, for Prometheus", "cluster"
)
ROUTER_WHEELS: Variable[str] = Variable(
    "pd_router_wheels",
    text(r"[^\x00-\x1f]*", "a path"),
    "",
    "directory on the controller with the wheels of `vllm_router`, for a controller without a package index",
    "cluster",
    default_text="fetched once by the controller's pip",
)
API_KEY = Variable(
    "pd_api_key",
    read_secret,
    False,
    "key of the engines, which the router sends to them; not written to any plan, command line or log. "
    "Clients of the router need none, see below",
    "cluster",
    private=True,
    default_text="none",
)
FRONT_PORT = Variable(
    "pd_front_port",
    _optional(port),
    None,
    "port on which clients reach the deployment: HAProxy with TLS and API keys in front of the router, on "
    "every host of the group `proxy`; see [front.md](front.md)",
    "cluster",
    default_text="none: clients reach the router itself",
)
FRONT_METRICS_PORT = Variable(
    "pd_front_metrics_port", port, 8405, "port of the front's metrics, for Prometheus", "cluster"
)
FRONT_NAME = Variable(
    "pd_front_name",
    _optional(text(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", "a host name or an IPv4 address")),
    None,
    "name or address by which clients reach the front; the certificate must be valid for it",
    "cluster",
    default_text="each host's address if the certificate is valid for it, else the certificate's first name",
)
FRONT_VIRTUAL = Variable(
    "pd_front_virtual_address",
    _optional(read_address),
    None,
    "free IPv4 address in the network of the hosts of `proxy`, which their fronts share: keepalived gives it "
    "to one that serves, and moves it within 3 s",
    "cluster",
    default_text="none",
)
FRONT_TLS = Variable(
    "pd_front_tls",
    switch,
    True,
    "whether the front speaks HTTPS; `false`: plain HTTP, with which everybody on the way can read keys, "
    "prompts and answers",
    "cluster",
    default_text="`true`",
)
FRONT_CERTIFICATE = Variable(
    "pd_front_certificate",
    read_pem,
    False,
    "certificate of the front, followed by its intermediate ones: a file on the controller, or the PEM text",
    "cluster",
    private=True,
    default_text="none",
)
FRONT_CERTIFICATE_KEY = Variable(
    "pd_front_certificate_key",
    read_pem,
    False,
    "private key of the certificate, without a passphrase: a file on the controller, or the PEM text, from a "
    "vault; on the servers only root can read it",
    "cluster",
    private=True,
    default_text="none",
)
FRONT_CA: Variable[bool] = Variable(
    "pd_front_ca",
    read_pem,
    False,
    "certificates of the authorities that clients trust, with which the smoke test verifies the front: a "
    "file on the controller, or the PEM text",
    "cluster",
    private=True,
    default_text="those of the servers' operating system; a self-signed certificate is trusted as it is",
)
FRONT_KEYS: Variable[ApiKeys] = Variable(
    "pd_front_api_keys",
    read_api_keys,
    ApiKeys(),
    "API keys of the clients by name, from a vault; servers keep only their SHA-256, log and metrics have "
    "the name",
    "cluster",
    private=True,
    default_text="`{}`: every request is passed on",
)
FRONT_RATE = Variable(
    "pd_front_requests_per_minute",
    _optional(whole(1, 10**6)),
    None,
    "requests that each API key may send to each front in a minute; more are answered with 429",
    "cluster",
    default_text="any number",
)
FRONT_BODY = Variable(
    "pd_front_max_body",
    read_size,
    64 * 2**20,
    "largest request, in bytes or as text such as `64m`; a larger one is answered with 413",
    "cluster",
    default_text="`64m`",
)
FRONT_ANSWER = Variable(
    "pd_front_answer_timeout",
    whole(1, 86400, " seconds"),
    3600,
    "seconds for which an answer may send nothing before it is given up",
    "cluster",
)
FRONT_REQUEST = Variable(
    "pd_front_request_timeout",
    whole(1, 3600, " seconds"),
    30,
    "seconds in which the headers of a request must have arrived",
    "cluster",
)
FRONT_IDLE = Variable(
    "pd_front_idle_timeout",
    whole(1, 3600, " seconds"),
    75,
    "seconds for which a client's connection is kept without a request",
    "cluster",
)
FRONT_CONNECTIONS = Variable(
    "pd_front_connections",
    whole(10, 10**6),
    8192,
    "connections of clients that the front accepts at a time",
    "cluster",
)
DRAIN = Variable(
    "pd_drain_timeout",
    whole(1, 86400, " seconds"),
    600,
    "seconds for which a router that is replaced behind the front may finish its last requests",
    "cluster",
)
GUARD = Variable(
    "pd_guard",
    switch,
    True,
    "whether a guard runs on each server: a service that starts engines again after a crash or a reboot, all "
    "nodes of an instance together, and takes those that fail out of the routers' list",
    "cluster",
    default_text="`true`",
)
GUARD_PORT = Variable(
    "pd_guard_port", port, 8406, "port on which the guards of a deployment talk to each other", "cluster"
)
CONCURRENCY = Variable(
    "pd_expected_concurrency",
    _optional(whole(1, 10**6)),
    None,
    "number of concurrent requests that the decoders should serve; a warning if they serve fewer",
    "cluster",
)

PROFILE = Variable(
    "pd_profile",
    word,
    DEFAULT_PROFILE,
    "default engine arguments and environment per role (`generic` adds none for a specific model)",
)
MODEL_PATH = Variable(
    "pd_model_path", own_path, "/", "directory of the weights on the servers", required=True
)
SERVED_NAME = Variable("pd_served_model_name", word, "model", "name of the model in the API", required=True)
NODE_IP = Variable("pd_node_ip", word, "", "IPv4 service address", "host", default_text="`ansible_host`")
INTERFACE = Variable(
    "pd_interface",
    _optional(_interface),
    None,
    "NIC of the service address",
    "host",
    default_text="found on the server when the engine starts",
)
CHIPS_PER_NODE = Variable(
    "pd_chips_per_node",
    whole(1, MAX_CHIPS_PER_NODE, " chips"),
    16,
    "chips of one server",
    "host",
    default_text="16; 8 with `pd_server: atlas-a2`",
)
CHIPS = Variable(
    "pd_chips",
    _optional(read_chips),
    None,
    "chips that the instance uses on the host: a list, or text such as `0-7`",
    default_text="all",
)
PARALLEL = Variable(
    "pd_parallel",
    read_parallel,
    Parallel(),
    "`{tensor, prefill_context, decode_context, pipeline, data, data_local}`, in ranks",
    default_text="all 1",
)
DP_MODE: Variable[DpMode] = Variable(
    "pd_dp_mode",
    read_dp_mode,
    "internal",
    "`internal`: one API server in front of all data-parallel ranks; `external`: one for each rank, each "
    "with its own port and chips",
)
API_PORT = Variable(
    "pd_api_port",
    port,
    8004,
    "port of the engine's API; with `pd_dp_mode: external` the port of each node's first rank, followed by "
    "one port for each further rank",
)
MASTER_PORT = Variable(
    "pd_master_port", port, 7001, "port of the first node, to which the other nodes of an instance connect"
)
DP_RPC_PORT = Variable(
    "pd_dp_rpc_port",
    port,
    5980,
    "port to which the data-parallel ranks of an instance with several nodes connect",
)
KV_PORT = Variable(
    "pd_kv_port",
    _optional(port),
    None,
    "first handshake port of the instance, which has one port for each chip",
    default_text="computed from the instance's chips: 36100 plus 100 for each chip of the server before "
    "its first, on 16 chips",
)
ENGINE_ID = Variable(
    "pd_engine_id",
    _optional(read_engine_id),
    None,
    "engine id of the node",
    default_text="the instance's name and the node's rank, such as `prefill_a-0`",
)
CONNECTOR = Variable(
    "pd_kv_connector", word, "MooncakeConnectorV1", "`MooncakeConnectorV1` or `MooncakeLayerwiseConnector`"
)
KV_TRANSFER = Variable(
    "pd_kv_transfer_config",
    read_mapping,
    _no_mapping,
    "fields of `--kv-transfer-config` that the plan does not write, such as `kv_load_failure_policy`",
    default_text="`{}`",
)
KV_EXTRA = Variable(
    "pd_kv_extra_config",
    read_mapping,
    _no_mapping,
    "keys that are merged into `kv_connector_extra_config`",
    private=True,
    default_text="`{}`",
)
ENGINE_ENV = Variable(
    "pd_engine_env",
    read_env,
    _no_env,
    "environment variables, merged over the profile's; `null` removes a variable; `$NAME` is expanded, see "
    "below",
    private=True,
    default_text="from the profile",
)
ENGINE_ARGS = Variable(
    "pd_engine_args",
    read_flags,
    _no_mapping,
    "long flags of `vllm serve` by name without dashes, merged over the profile's: `true` sets the flag, "
    "`false` its `--no-…` (`no-…: true` is the same), a mapping is passed as JSON (and replaces the "
    "profile's mapping as a whole), a list as several words, `null` removes a flag",
    private=True,
    default_text="from the profile",
)
EXTRA_MOUNTS = Variable(
    "pd_extra_mounts",
    read_mounts,
    _no_mounts,
    "additional mounts of the containers: paths, or `{source, target, read_only}`",
    default_text="`[]`",
)
SHM_SIZE = Variable(
    "pd_shm_size",
    text(r"[1-9][0-9]*[bkmgBKMG]?", "a size, such as 1g"),
    "1g",
    "shared memory of an engine's container",
)

VARIABLES: tuple[Variable[Any], ...] = (
    RELEASE,
    MODE,
    SERVER,
    IMAGE,
    REGISTRY,
    IMAGE_SOURCE,
    IMAGE_ARCHIVE,
    IMAGE_ARCHIVE_REMOTE_SRC,
    WEIGHTS_SOURCE,
    WEIGHTS_VERIFY,
    DEPLOYMENT,
    HOST_DIR,
    PLAN_DIR,
    PROXY_PORT,
    ROUTER,
    ROUTER_ARGS,
    ROUTER_METRICS_PORT,
    ROUTER_WHEELS,
    API_KEY,
    FRONT_PORT,
    FRONT_NAME,
    FRONT_VIRTUAL,
    FRONT_TLS,
    FRONT_CERTIFICATE,
    FRONT_CERTIFICATE_KEY,
    FRONT_CA,
    FRONT_KEYS,
    FRONT_RATE,
    FRONT_BODY,
    FRONT_ANSWER,
    FRONT_REQUEST,
    FRONT_IDLE,
    FRONT_CONNECTIONS,
    FRONT_METRICS_PORT,
    DRAIN,
    GUARD,
    GUARD_PORT,
    CONCURRENCY,
    PROFILE,
    MODEL_PATH,
    SERVED_NAME,
    NODE_IP,
    INTERFACE,
    CHIPS_PER_NODE,
    CHIPS,
    PARALLEL,
    DP_MODE,
    API_PORT,
    MASTER_PORT,
    DP_RPC_PORT,
    KV_PORT,
    ENGINE_ID,
    CONNECTOR,
    KV_TRANSFER,
    KV_EXTRA,
    ENGINE_ENV,
    ENGINE_ARGS,
    EXTRA_MOUNTS,
    SHM_SIZE,
)

KNOWN = frozenset(variable.name for variable in VARIABLES)

# Set by the collection itself at run time; an inventory must not set them.
RUNTIME = frozenset({"pd_plan"})
