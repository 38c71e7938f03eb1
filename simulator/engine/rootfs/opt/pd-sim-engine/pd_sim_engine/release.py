"""What differs between the releases of vllm-ascend, as far as the simulated engine shows it.

An image is of one release and built for one kind of server, named by the files `release` and `hardware`
beside the data; a process outside of an image (tests) names them by PD_SIM_RELEASE and PD_SIM_HARDWARE.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

FILE = Path(__file__).resolve().parent.parent / "release"
HARDWARE = FILE.with_name("hardware")
P2P = "vllm_ascend.distributed.kv_transfer.kv_p2p."
CONNECTORS = {
    "MooncakeConnectorV1": ("mooncake_connector", "MooncakeConnector"),
    "MooncakeLayerwiseConnector": ("mooncake_layerwise_connector", "MooncakeLayerwiseConnector"),
}
"""Module and class of the connectors that are simulated, by their registered name."""
LATE = (
    "Timed out waiting for engine core processes to start. This is often caused by slow weight loading for "
    "large models. Waited {seconds}s (configured by VLLM_ENGINE_READY_TIMEOUT_S). To increase the timeout, "
    "set the environment variable: VLLM_ENGINE_READY_TIMEOUT_S=<seconds>"
)
STORES = frozenset({"AscendStoreConnector", "MooncakeConnectorStoreV1", "UCMConnector"})
VLLM_CONNECTORS = frozenset(
    {
        "MultiConnector",
        "SharedStorageConnector",
        "NixlConnector",
        "LMCacheConnectorV1",
        "P2pNcclConnector",
        "OffloadingConnector",
    }
)


@dataclass(frozen=True)
class Shutdown:
    """What a release says that can finish its requests after SIGTERM, and whether more than they is waited
    for. The texts know {timeout} in seconds, {mode}, {count} of requests and {request}, the id of one."""

    begins: tuple[str, ...]
    """The API server, at once."""
    core_begins: tuple[str, ...]
    aborts: str
    drains: str
    rejects: str
    """Empty where it is not said at this level."""
    core_ends: tuple[str, ...]
    ends: tuple[str, ...]
    """The API server, when the engine core has ended."""
    waits_for_blocks: bool
    """Also for blocks that nobody has fetched yet."""


@dataclass(frozen=True)
class Release:
    """One release: its versions, and what it does otherwise than others."""

    name: str
    vllm: str
    connectors: str
    """The package that holds the connectors' modules, with its dot."""
    model_flag_goes: str
    """When `--model` will be gone, as the parser's warning says."""
    base_port: bool
    """Whether Mooncake reads ASCEND_BASE_PORT (since Mooncake 0.3.8)."""
    context_with_data: bool
    """Whether prefill context parallel and data parallel go together."""
    layerwise_context: bool
    """Whether the layerwise connector's ports count the prefill context rank (PR 10019)."""
    stage_by_context: bool
    """Whether the device index is (pp_rank × pcp + pcp_rank) × tp + tp_rank; before, the ranks are added."""
    json_suffixes: bool
    """Whether a bare 80g in a JSON option is a number."""
    named_first: bool
    """Whether --served-model-name without a model in front is refused at once."""
    bench_is_greedy: bool
    """Whether `vllm bench serve` asks for temperature 0 by itself."""
    module_first: bool
    """Whether kv_connector_module_path goes before the registered name; else it is for other names only."""
    registers: frozenset[str]
    """Connectors that vllm-ascend registers beside the two of `CONNECTORS`."""
    tells_request: bool
    """Whether a producer tells its own request id, with a random end, and its tensor parallel size."""
    flash_comm: str
    """What its messages call flash comm 1."""
    server_line: str
    """What it says when it begins to listen; {number} is the API server's."""
    core_without_rank: bool
    """Whether the only engine core is called EngineCore, without a rank."""
    recompute: str
    """Who may have recompute_scheduler_enable: all, pd (prefillers and decoders), decoders."""
    abort_variable: str
    """Names the seconds after which a producer frees blocks that nobody fetched."""
    layerwise_tells_sizes: bool
    """Whether a layerwise decoder tells the metaserver its sizes, and block ids by group."""
    layerwise_query_fatal: bool
    """Whether a layerwise prefiller dies when it cannot ask the decoder for its ports."""
    layerwise_tells_failure: bool
    """Whether a layerwise prefiller tells the decoder that a transfer has failed."""
    ready_variable: str | None
    """Names the seconds that each of several API servers waits for the engine; else they are fixed."""
    late: str
    """What such an API server says when they have passed; {seconds} of them."""
    counts_sources: bool
    """Whether prompt tokens are counted by where they come from."""
    counts_recomputed: bool
    """Whether the last token of a prompt that is all cached counts as computed too, and by itself."""
    waiting_reasons: bool
    """Whether waiting requests are shown by what they wait for."""
    reports_lost_transfers: bool
    """Whether a consumer tells the scheduler of blocks that did not come; else the request goes on with what
    they hold."""
    refreshes_descriptors: bool
    """Whether a consumer asks again for what Mooncake knows of a port after a transfer there has failed; else
    it believes for ever what the first process there said."""
    idle_notices: bool
    """Whether a producer without requests sees that blocks were fetched, or not in time; else it does at its
    next request."""
    force_freed: str
    """What it says of blocks that were not; {request} after {seconds}."""
    shutdown: Shutdown | None
    """None: the engine core ends at once."""
    death_code: tuple[int, str]
    """Code and type of the error that ends a stream when the engine core is dead."""
    goes_with_a_request: bool
    """Whether the API server leaves when it answers a request with the death of the engine core, or only when
    it looks after it."""
    two_modes: str = ""
    """How it refuses two ways of balancing between data-parallel ranks at once."""

    @property
    def one_api_server(self) -> bool:
        """Whether one API server is the default; later it is one for each data-parallel rank."""
        return not self.two_modes

    def source(self, connector: str) -> str:
        """The file of a registered connector in the image."""
        return f"/vllm-workspace/vllm-ascend/{str(self.module(connector)).replace('.', '/')}.py"

    def module(self, connector: str) -> str | None:
        """The module of a registered connector."""
        found = CONNECTORS.get(connector)
        return None if found is None else self.connectors + found[0]

    def is_registered(self, connector: str) -> bool:
        return connector in CONNECTORS or connector in self.registers or connector in VLLM_CONNECTORS

    def classes(self, module: str) -> set[str] | None:
        """The connector classes of a module, None where there is no such module."""
        return next(({cls} for name, cls in CONNECTORS.values() if self.connectors + name == module), None)


_V0_13 = Release(
    name="v0.13.0",
    vllm="0.13.0",
    connectors="vllm_ascend.distributed.",
    model_flag_goes="v0.13",
    base_port=False,
    context_with_data=True,
    layerwise_context=False,
    stage_by_context=False,
    json_suffixes=False,
    named_first=False,
    bench_is_greedy=True,
    module_first=False,
    registers=STORES,
    tells_request=False,
    flash_comm="Flash Comm v1 (Sequence Parallelism)",
    server_line="Starting vLLM API server {number} on",
    core_without_rank=False,
    recompute="all",
    abort_variable="VLLM_NIXL_ABORT_REQUEST_TIMEOUT",
    layerwise_tells_sizes=False,
    layerwise_query_fatal=True,
    layerwise_tells_failure=False,
    ready_variable=None,
    late="Timed out waiting for engines to sendinitial message on input socket.",
    counts_sources=False,
    counts_recomputed=False,
    waiting_reasons=False,
    reports_lost_transfers=False,
    refreshes_descriptors=False,
    idle_notices=False,
    force_freed="Force freed request: {request}",
    shutdown=None,
    death_code=(400, "BadRequestError"),
    goes_with_a_request=False,
)
_V0_18 = replace(
    _V0_13,
    name="v0.18.0",
    vllm="0.18.0",
    connectors=P2P,
    base_port=True,
    named_first=True,
    bench_is_greedy=False,
    registers=STORES | {"LMCacheAscendConnector"},
    tells_request=True,
    flash_comm="Flash Comm v1",
    server_line="Starting vLLM server on",
    core_without_rank=True,
    recompute="pd",
    abort_variable="VLLM_MOONCAKE_ABORT_REQUEST_TIMEOUT",
    layerwise_tells_sizes=True,
    layerwise_query_fatal=False,
    ready_variable="VLLM_ENGINE_READY_TIMEOUT_S",
    late=LATE,
    counts_sources=True,
    counts_recomputed=True,
    refreshes_descriptors=True,
    shutdown=Shutdown(
        begins=(),
        core_begins=("Shutdown initiated (timeout={timeout})",),
        aborts="Aborting {count} requests",
        drains="Draining {count} in-flight requests (timeout={timeout}s)",
        rejects="Rejecting request {request} (server shutting down)",
        core_ends=("Shutdown complete",),
        ends=(),
        waits_for_blocks=False,
    ),
    death_code=(500, "InternalServerError"),
    goes_with_a_request=True,
    two_modes="Cannot use both external and hybrid data parallel load balancing modes.",
)
_V0_23 = replace(
    _V0_18,
    name="v0.23.0",
    vllm="0.23.0",
    model_flag_goes="a future version",
    context_with_data=False,
    layerwise_context=True,
    stage_by_context=True,
    json_suffixes=True,
    module_first=True,
    registers=_V0_18.registers | {"MooncakeHybridConnector", "RecomputeCPUOffloadConnector"},
    recompute="decoders",
    layerwise_tells_failure=True,
    counts_recomputed=False,
    waiting_reasons=True,
    reports_lost_transfers=True,
    idle_notices=True,
    force_freed=(
        "Force freed expired request: {request}. Reason: Request exceeded timeout threshold ({seconds:g} "
        "seconds). Action: Resources have been forcibly released to prevent memory leak."
    ),
    shutdown=Shutdown(
        begins=(
            "[shutdown] API server: shutdown triggered",
            "[shutdown] API server: stopping engine client mode={mode} timeout={timeout}s",
        ),
        core_begins=(
            "[shutdown] EngineCore: trigger received signal=SIGTERM",
            "[shutdown] EngineCore: start mode={mode} timeout={timeout}s",
        ),
        aborts="[shutdown] EngineCore: aborting in-flight requests count={count}",
        drains="[shutdown] EngineCore: draining in-flight requests count={count} timeout={timeout}s",
        rejects="",
        core_ends=(
            "[shutdown] EngineCore: request processing complete; starting resource teardown",
            "[shutdown] EngineCore: exiting busy loop",
        ),
        ends=(
            "[shutdown] API server: engine client stopped",
            "[shutdown] API server: signalling HTTP server shutdown",
        ),
        waits_for_blocks=True,
    ),
    two_modes="Cannot use more than one data parallel load balancing mode.",
)

RELEASES = {release.name: release for release in (_V0_13, _V0_18, _V0_23)}


def current() -> Release:
    """The release of this image."""
    name = os.environ.get("PD_SIM_RELEASE")
    if name is None:
        name = FILE.read_text(encoding="utf-8").strip() if FILE.exists() else "v0.13.0"
    return RELEASES[name]


def hardware() -> str:
    """What this image is built for: A3 or A2."""
    name = os.environ.get("PD_SIM_HARDWARE")
    if name is None:
        name = HARDWARE.read_text(encoding="utf-8").strip() if HARDWARE.exists() else "A3"
    return name
