"""The engine's configuration and the rules that vLLM 0.13.0 and vllm-ascend v0.13.0 check while they make it.

Order and messages as there (PORTS-RULES-PROXY §E). All of this happens in the first process, after the
imports and before any worker is started.
"""

from __future__ import annotations

import argparse
import json
import os
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import RELEASE
from .log import StartupFailure
from .paths import on_server

ARG_UTILS = "/vllm-workspace/vllm/vllm/engine/arg_utils.py"
PLATFORM = "/vllm-workspace/vllm-ascend/vllm_ascend/platform.py"

DEFAULT_BLOCK_SIZE = 128
DEFAULT_BATCHED_TOKENS = 2048
DEFAULT_NUM_SEQS = 256
DP_RPC_PORT = 29550
"""ParallelConfig.data_parallel_rpc_port."""


@dataclass(frozen=True)
class Model:
    """What the engine reads of the model's directory."""

    path: str
    config: dict[str, Any]
    dtype: str
    max_model_len: int

    @property
    def directory(self) -> Path:
        return on_server(self.path)

    @property
    def is_mla(self) -> bool:
        return "kv_lora_rank" in self.config and self.config.get("kv_lora_rank") is not None

    @property
    def is_moe(self) -> bool:
        return any(self.config.get(key) for key in ("n_routed_experts", "num_experts", "num_local_experts"))

    @property
    def kv_heads(self) -> int:
        return int(self.config.get("num_key_value_heads", self.config.get("num_attention_heads", 1)))

    @property
    def architecture(self) -> str:
        names = self.config.get("architectures") or ["?"]
        return str(names[0])


@dataclass(frozen=True)
class KvTransfer:
    """--kv-transfer-config."""

    connector: str
    role: str
    port: int
    engine_id: str
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def is_producer(self) -> bool:
        return self.role in ("kv_producer", "kv_both")

    @property
    def is_consumer(self) -> bool:
        return self.role in ("kv_consumer", "kv_both")

    def size(self, side: str, key: str, default: int | None = None) -> int:
        sizes = self.extra.get(side, {})
        if key not in sizes and default is None:
            raise StartupFailure(
                "AssertionError",
                "",
                frame=(CONNECTOR, 1177, "_get_prefill_decode_size"),
                stage="worker",
            )
        return int(sizes.get(key, default))


CONNECTOR = RELEASE.source("MooncakeConnectorV1")


@dataclass(frozen=True)
class EngineConfig:
    """All that the engine goes by."""

    args: argparse.Namespace
    model: Model
    served_names: list[str]
    tp: int
    pp: int
    pcp: int
    dcp: int
    dp: int
    dp_local: int
    dp_rank: int
    dp_mode: str
    """internal: rank 0's API serves all ranks; external: every rank has its own; hybrid: every node has."""
    dp_address: str
    dp_rpc_port: int
    nnodes: int
    node_rank: int
    headless: bool
    block_size: int
    interleave: int
    max_num_seqs: int
    max_num_batched_tokens: int
    enforce_eager: bool
    capture_sizes: list[int]
    cudagraph_mode: str
    kv: KvTransfer | None

    @property
    def world_size(self) -> int:
        """Chips of one data parallel rank, over all its nodes."""
        return self.tp * self.pp * self.pcp

    @property
    def local_world_size(self) -> int:
        """Chips of one data parallel rank on this node."""
        return self.world_size // self.nnodes

    @property
    def local_ranks(self) -> range:
        """Global ranks of this node within its data parallel rank."""
        first = self.node_rank * self.local_world_size
        return range(first, first + self.local_world_size)

    @property
    def dp_ranks(self) -> range:
        """Data-parallel ranks of this process."""
        return range(self.dp_rank, self.dp_rank + (self.dp_local if self.nnodes == 1 else 1))

    @property
    def has_core(self) -> bool:
        """Whether an engine core runs here: not on the further nodes of one data-parallel rank."""
        return not self.headless or self.nnodes == 1

    @property
    def dp_remote(self) -> bool:
        """Whether other processes hold data-parallel ranks too."""
        return self.nnodes == 1 and self.dp > 1 and len(self.dp_ranks) < self.dp

    @property
    def served_ranks(self) -> range:
        """Data-parallel ranks that this process's API serves."""
        return range(self.dp) if self.dp_mode == "internal" and self.nnodes == 1 else self.dp_ranks

    @property
    def chips(self) -> int:
        return self.local_world_size * len(self.dp_ranks)

    @property
    def role(self) -> str | None:
        if self.kv is None:
            return None
        return "prefiller" if self.kv.role == "kv_producer" else "decoder"

    @property
    def cp_size(self) -> int:
        return self.pcp * self.dcp

    def rank_names(self, rank: int, dp_rank: int) -> str:
        """The worker's name in the log: every dimension larger than 1."""
        name = "Worker"
        pp_rank, pcp_rank, tp_rank = self.coordinates(rank)
        if self.dp > 1:
            name += f"_DP{dp_rank}"
        if self.pp > 1:
            name += f"_PP{pp_rank}"
        if self.pcp > 1:
            name += f"_PCP{pcp_rank}"
        if self.tp > 1:
            name += f"_TP{tp_rank}"
        if self.dcp > 1:
            name += f"_DCP{tp_rank % self.dcp}"
        if self.args.enable_expert_parallel:
            name += f"_EP{dp_rank * self.world_size + rank}"
        return name

    def coordinates(self, rank: int) -> tuple[int, int, int]:
        """(pp_rank, pcp_rank, tp_rank): TP runs fastest, then PCP, then PP."""
        return rank // (self.tp * self.pcp), rank // self.tp % self.pcp, rank % self.tp


def _failed(
    condition: bool, message: str, *, kind: str = "AssertionError", frame: tuple[str, int, str]
) -> None:
    if condition:
        raise StartupFailure(kind, message, frame=frame)


def _pydantic(cls: str, message: str, frame: tuple[str, int, str]) -> StartupFailure:
    """A ValueError inside a configuration class comes out as pydantic's ValidationError."""
    text = (
        f"1 validation error for {cls}\n  Value error, {message} "
        "[type=value_error, input_value=ArgsKwargs((), {...}), input_type=ArgsKwargs]\n"
        "    For further information visit https://errors.pydantic.dev/2.12/v/value_error"
    )
    return StartupFailure("pydantic_core._pydantic_core.ValidationError", text, frame=frame)


def read_model(args: argparse.Namespace) -> Model:
    """ModelConfig: the directory, config.json, the tokenizer, the description of the quantization."""
    path = args.model_tag or args.model
    directory = on_server(path) if path.startswith("/") else Path(path)
    frame = (ARG_UTILS, 1332, "create_engine_config")
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except OSError:
        message = (
            f"Invalid repository ID or local directory specified: '{path}'.\n"
            "Please verify the following requirements:\n"
            "1. Provide a valid Hugging Face repository ID.\n"
            "2. Specify a local directory that contains a recognized configuration file.\n"
            "   - For Hugging Face models: ensure the presence of a 'config.json'.\n"
            "   - For Mistral models: ensure the presence of a 'params.json'.\n"
        )
        raise _pydantic("ModelConfig", message, frame) from None
    except ValueError:
        message = f"It looks like the config file at '{path}/config.json' is not a valid JSON file."
        raise StartupFailure("OSError", message, frame=frame) from None
    if not any((directory / name).exists() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        message = (
            f"Can't load tokenizer for '{path}'. If you were trying to load it from the hub, "
            "make sure you don't have a local directory with the same name. Otherwise, make sure "
            f"'{path}' is the "
            "correct path to a directory containing all relevant files for a LlamaTokenizerFast tokenizer."
        )
        raise StartupFailure("OSError", message, frame=frame)
    if args.quantization == "ascend" and not list(directory.glob("quant_model_description*.json")):
        raise StartupFailure("ValueError", "Cannot find the config file for ascend", frame=frame)
    written = str(config.get("torch_dtype", config.get("dtype", "bfloat16"))).removeprefix("torch.")
    dtype = {"auto": written, "half": "float16", "float": "float32"}.get(args.dtype, args.dtype)
    longest = int(config.get("max_position_embeddings", 32768))
    length = args.max_model_len or longest
    if length > longest and os.environ.get("VLLM_ALLOW_LONG_MAX_MODEL_LEN") != "1":
        message = (
            f"User-specified max_model_len ({length}) is greater than the derived max_model_len "
            f"(max_position_embeddings={longest} or model_max_length=None in model's config.json). To allow "
            "overriding this maximum, set the env var VLLM_ALLOW_LONG_MAX_MODEL_LEN=1."
        )
        raise _pydantic("ModelConfig", message, frame)
    return Model(path, config, dtype, length)


def _check_attention(args: argparse.Namespace, model: Model) -> None:
    """Rules of the model's heads (§E 2-4 and 6)."""
    frame = ("/vllm-workspace/vllm/vllm/config/model.py", 1053, "verify_with_parallel_config")
    tp, dcp = args.tensor_parallel_size, args.decode_context_parallel_size
    heads = int(model.config.get("num_attention_heads", tp))
    if heads % tp:
        raise _pydantic(
            "VllmConfig",
            f"Total number of attention heads ({heads}) must be divisible by tensor parallel size ({tp}).",
            frame,
        )
    if model.is_mla or dcp == 1:
        return
    kv_heads = model.kv_heads
    if tp <= kv_heads:
        message = (
            f"tensor parallel size {tp} must be greater than total num kv heads {kv_heads} when "
            "enable decode "
            "context parallel for GQA/MQA"
        )
    elif dcp > tp // kv_heads:
        message = (
            "decode context parallel size must less than or equal to (tensor parallel size "
            f"{tp} // total num kv heads {kv_heads}) = {tp // kv_heads}, but got {dcp}"
        )
    elif heads // kv_heads % dcp:
        message = (
            f"Total number of q per kv attn heads ({heads // kv_heads}) must be divisible by dcp "
            "world size when "
            f"enable decode context parallel for GQA ({dcp})."
        )
    else:
        return
    raise StartupFailure("AssertionError", message, frame=frame)


def _scheduler(args: argparse.Namespace, model: Model) -> tuple[int, int, bool]:
    """(max_num_seqs, max_num_batched_tokens, chunked prefill) with vLLM's defaults, checked (§E 14, 15)."""
    chunked = args.enable_chunked_prefill is not False
    seqs = args.max_num_seqs or DEFAULT_NUM_SEQS
    tokens = args.max_num_batched_tokens
    if tokens is None:
        tokens = DEFAULT_BATCHED_TOKENS if chunked else max(model.max_model_len, DEFAULT_BATCHED_TOKENS)
        tokens = min(seqs * model.max_model_len, tokens)
    if args.max_num_seqs is None:
        seqs = min(seqs, tokens)
    frame = ("/vllm-workspace/vllm/vllm/config/scheduler.py", 250, "verify_max_model_len")
    if tokens < model.max_model_len and not chunked:
        raise _pydantic(
            "SchedulerConfig",
            f"max_num_batched_tokens ({tokens}) is smaller than max_model_len ({model.max_model_len}). This "
            "effectively limits the maximum sequence length to max_num_batched_tokens and makes vLLM "
            "reject longer "
            "sequences. Please increase max_num_batched_tokens or decrease max_model_len.",
            frame,
        )
    if tokens < seqs:
        raise _pydantic(
            "SchedulerConfig",
            f"max_num_batched_tokens ({tokens}) must be greater than or equal to max_num_seqs ({seqs}).",
            frame,
        )
    return seqs, tokens, chunked


@dataclass(frozen=True)
class _DataParallel:
    """What of data parallelism falls to this process (§E 7, 8, 16, 18)."""

    local: int
    rank: int
    mode: str


def _data_parallel(args: argparse.Namespace) -> _DataParallel:
    frame = (ARG_UTILS, 1412, "create_engine_config")
    dp, nnodes = args.data_parallel_size, args.nnodes
    local, rank = args.data_parallel_size_local, args.data_parallel_rank
    hybrid, external = args.data_parallel_hybrid_lb, args.data_parallel_external_lb
    _failed(
        bool(hybrid and external),
        "data_parallel_hybrid_lb and data_parallel_external_lb cannot both be True.",
        frame=frame,
    )
    inferred = 0
    if nnodes > 1:
        counted = dp * args.pipeline_parallel_size * args.tensor_parallel_size
        _failed(
            counted % nnodes != 0, f"world_size={counted} must be divisible by nnodes={nnodes}.", frame=frame
        )
        _failed(
            args.node_rank >= nnodes,
            f"node_rank={args.node_rank} must be less than nnodes={nnodes}.",
            frame=frame,
        )
        per_rank = args.pipeline_parallel_size * args.tensor_parallel_size
        inferred = args.node_rank * (counted // nnodes) // per_rank
        if dp > 1 and external:
            rank = inferred
        elif local is None:
            local = max(counted // nnodes // per_rank, 1)
    mode = "internal"
    if external or rank is not None:
        _failed(
            rank is None,
            "data_parallel_rank or node_rank must be specified if data_parallel_external_lb is enable.",
            frame=frame,
        )
        _failed(
            local not in (1, None),
            "data_parallel_size_local must be 1 or None when data_parallel_rank is set",
            frame=frame,
        )
        mode, local = "external", 1
    else:
        _failed(
            bool(hybrid) and local is None,
            "data_parallel_size_local must be set to use data_parallel_hybrid_lb.",
            frame=frame,
        )
        # A start rank on a node that is not headless means hybrid, which with one rank is external.
        if (
            local is not None
            and local != dp
            and (hybrid or (args.data_parallel_start_rank and not args.headless))
        ):
            mode = "external" if local == 1 else "hybrid"
        rank = args.data_parallel_start_rank or inferred
        local = dp if local is None else local
    if local > dp:
        raise _pydantic(
            "ParallelConfig",
            f"data_parallel_size_local ({local}) must be <= data_parallel_size ({dp})",
            frame,
        )
    if dp > 1 and rank >= dp:
        raise _pydantic(
            "ParallelConfig", f"data_parallel_rank ({rank}) must be in the range [0, {dp})", frame
        )
    return _DataParallel(local, rank, mode)


def _ascend(config: dict[str, Any], args: argparse.Namespace, model: Model) -> None:
    """vllm-ascend's own checks (§E, second list)."""
    frame = (PLATFORM, 150, "check_and_update_config")
    tp = args.tensor_parallel_size
    dp, pcp = args.data_parallel_size, args.prefill_context_parallel_size
    if dp > 1 and pcp > 1 and not RELEASE.context_with_data:
        raise StartupFailure(
            "ValueError",
            "PCP (Prefill Context Parallelism) and DP (Data Parallelism) cannot be enabled simultaneously in "
            f"the current version of vLLM Ascend. Got data_parallel_size={dp} and "
            f"prefill_context_parallel_size={pcp}. Please set either --data-parallel-size 1 or "
            "--prefill-context-parallel-size 1.",
            frame=(PLATFORM, 351, "_validate_parallel_config"),
        )
    if os.environ.get("VLLM_ASCEND_ENABLE_FLASHCOMM1", "0") == "1":
        where = ("/vllm-workspace/vllm-ascend/vllm_ascend/utils.py", 780, "enable_sp")
        _failed(tp == 1, f"{RELEASE.flash_comm} is only supported when tp_size > 1.", frame=where)
        _failed(
            model.is_moe and not args.enable_expert_parallel,
            f"{RELEASE.flash_comm} requires enable_expert_parallel=True for MoE models.",
            frame=where,
        )
        sizes = config["capture_sizes"]
        _failed(
            not args.enforce_eager and not any(size % tp == 0 for size in sizes),
            f"cudagraph_capture_sizes {sizes} does not containvalues that are multiples of tp_size {tp}",
            frame=frame,
        )
    if config["cudagraph_mode"] != "NONE" and os.environ.get("ASCEND_LAUNCH_BLOCKING", "0") == "1":
        raise StartupFailure(
            "ValueError",
            "ACL graph is incompatible with ASCEND_LAUNCH_BLOCKING=1. Please unset "
            "ASCEND_LAUNCH_BLOCKING or set it "
            "to 0.",
            frame=frame,
        )


def _check_recompute(args: argparse.Namespace, kv: KvTransfer | None) -> None:
    """Whom --additional-config may give the recompute scheduler."""
    given = args.additional_config if isinstance(args.additional_config, dict) else {}
    role = None if kv is None else kv.role
    if not given.get("recompute_scheduler_enable") or RELEASE.recompute == "all":
        return
    frame = (PLATFORM, 461, "check_and_update_config")
    if RELEASE.recompute == "pd" and role in (None, "kv_both"):
        raise StartupFailure(
            "ValueError",
            "recompute_scheduler_enable can only be enabled in PD-disaggregated mode "
            "(kv_role='kv_producer' or 'kv_consumer'), and is not supported in PD-mixed mode.",
            frame=frame,
        )
    if RELEASE.recompute == "decoders" and role not in ("kv_producer", "kv_consumer"):
        raise StartupFailure(
            "ValueError",
            "recompute_scheduler_enable can only be enabled on PD-disaggregated D nodes "
            f"(kv_role='kv_consumer', but got kv_role={role!r}), and is not supported in PD-mixed mode.",
            frame=frame,
        )


def _check_kv_extra(kv: KvTransfer, tp: int, dp: int) -> None:
    """The own side's sizes must be the engine's own; the other side's are not looked at here."""
    sides = [("prefill", kv.is_producer), ("decode", kv.is_consumer)]
    frame = ("/vllm-workspace/vllm-ascend/vllm_ascend/utils.py", 1120, "_check")
    for side, mine in sides:
        sizes = kv.extra.get(side, {}) if mine else {}
        for key, words, own in (("tp_size", "tensor", tp), ("dp_size", "data", dp)):
            if key in sizes and sizes[key] != own:
                raise StartupFailure(
                    "ValueError",
                    f"KV transfer '{side}' config has a conflicting {words} parallel size. "
                    f"Expected {own}, but got {sizes[key]}.",
                    frame=frame,
                )


def _kv_transfer(args: argparse.Namespace) -> KvTransfer | None:
    given = args.kv_transfer_config
    if given is None or given.get("kv_connector") is None:
        return None
    return KvTransfer(
        connector=given["kv_connector"],
        role=given["kv_role"],
        port=int(given.get("kv_port", 14579)),
        engine_id=str(given.get("engine_id") or uuid.uuid4()),
        extra=given.get("kv_connector_extra_config") or {},
    )


def _graphs(args: argparse.Namespace, seqs: int) -> tuple[str, list[int]]:
    """(cudagraph mode, capture sizes)."""
    compilation = args.compilation_config if isinstance(args.compilation_config, dict) else {}
    if args.enforce_eager:
        return "NONE", []
    mode = str(compilation.get("cudagraph_mode") or "PIECEWISE")
    if mode == "FULL_AND_PIECEWISE":
        mode = "PIECEWISE"
    sizes = args.cudagraph_capture_sizes or compilation.get("cudagraph_capture_sizes")
    if sizes is None:
        largest = min(seqs * 2, 512)
        sizes = [size for size in (1, 2, 4, *range(8, 256, 8), *range(256, 513, 16)) if size <= largest]
    return mode, sorted(int(size) for size in sizes)


def _check_connector_class(given: dict[str, Any], frame: tuple[str, int, str]) -> None:
    """The factory finds the connector's class by its registered name, or in the module that is given."""
    name, module = str(given["kv_connector"]), given.get("kv_connector_module_path")
    registered = RELEASE.is_registered(name)
    if registered and not (module and RELEASE.module_first):
        return
    if not module:
        raise StartupFailure("ValueError", f"Unsupported connector type: {name}", frame=frame)
    classes = RELEASE.classes(str(module))
    if classes is None:
        raise StartupFailure("ModuleNotFoundError", f"No module named '{module}'", frame=frame)
    if name not in classes:
        raise StartupFailure("AttributeError", f"Class {name} not found in {module}", frame=frame)


def make_config(args: argparse.Namespace) -> EngineConfig:
    """create_engine_config: the configuration, or the failure that the real one ends with."""
    model = read_model(args)
    frame = (ARG_UTILS, 1354, "create_engine_config")
    tp, dcp = args.tensor_parallel_size, args.decode_context_parallel_size
    pcp, pp = args.prefill_context_parallel_size, args.pipeline_parallel_size
    utilization = args.gpu_memory_utilization
    _failed(tp % dcp != 0, f"tp_size={tp} must be divisible bydcp_size={dcp}.", frame=frame)
    if not 0 < utilization <= 1:
        bound = "less than or equal to 1" if utilization > 1 else "greater than 0"
        raise StartupFailure(
            "pydantic_core._pydantic_core.ValidationError",
            f"1 validation error for CacheConfig\ngpu_memory_utilization\n  Input should be {bound}",
            frame=frame,
        )
    data_parallel = _data_parallel(args)
    backend = args.distributed_executor_backend
    if args.nnodes > 1 and backend not in (None, "mp", "uni", "external_launcher"):
        raise _pydantic(
            "ParallelConfig",
            "nnodes > 1 can only be set when distributed executor backend is mp, uni or external_launcher.",
            frame,
        )
    _check_attention(args, model)
    seqs, tokens, chunked = _scheduler(args, model)
    block_size = args.block_size or DEFAULT_BLOCK_SIZE
    interleave = args.cp_kv_cache_interleave_size
    if dcp > 1 and (interleave > block_size or block_size % interleave):
        message = (
            f"Block_size({block_size}) should be greater than or equal to and divisible by "
            f"cp_kv_cache_interleave_size ({interleave})."
        )
        raise StartupFailure(
            "AssertionError",
            message,
            frame=("/vllm-workspace/vllm/vllm/config/vllm.py", 802, "__post_init__"),
        )
    mode, sizes = _graphs(args, seqs)
    kv = _kv_transfer(args)
    if kv is not None:
        _check_kv_extra(kv, tp, args.data_parallel_size)
        _check_connector_class(args.kv_transfer_config, frame)
    _ascend({"capture_sizes": sizes, "cudagraph_mode": mode}, args, model)
    _check_recompute(args, kv)
    prefix_caching = args.enable_prefix_caching is not False
    if model.config.get("model_type") != "qwen3_next" and (prefix_caching or chunked):
        block_size = DEFAULT_BLOCK_SIZE
    _failed(
        kv is not None and block_size != interleave and dcp * pcp > 1,
        f"cp_kv_cache_interleave_size({interleave}) and block_size({block_size}) needs to be equal if "
        "use pcp or dcp "
        "> 1 in P/D disaggregate and kv pool scenario.",
        frame=(PLATFORM, 350, "check_and_update_config"),
    )
    return EngineConfig(
        args=args,
        model=model,
        served_names=args.served_model_name or [model.path],
        tp=tp,
        pp=pp,
        pcp=pcp,
        dcp=dcp,
        dp=args.data_parallel_size,
        dp_local=data_parallel.local,
        dp_rank=data_parallel.rank,
        dp_mode=data_parallel.mode,
        dp_address=args.data_parallel_address or args.master_addr or "127.0.0.1",
        dp_rpc_port=DP_RPC_PORT if args.data_parallel_rpc_port is None else args.data_parallel_rpc_port,
        nnodes=args.nnodes,
        node_rank=args.node_rank,
        headless=args.headless,
        block_size=block_size,
        interleave=interleave,
        max_num_seqs=seqs,
        max_num_batched_tokens=tokens,
        enforce_eager=args.enforce_eager,
        capture_sizes=sizes,
        cudagraph_mode=mode,
        kv=kv,
    )


def check_executor(config: EngineConfig) -> None:
    """What the executor asserts before it starts workers (§E 9)."""
    _failed(
        config.world_size % config.nnodes != 0,
        f"global world_size ({config.world_size}) must be divisible by nnodes_within_dp ({config.nnodes}). ",
        frame=(
            "/vllm-workspace/vllm-ascend/vllm_ascend/patch/platform/patch_multiproc_executor.py",
            32,
            "_init_executor",
        ),
    )


def check_connector(config: EngineConfig, host: str) -> None:
    """What a worker's connector checks when it is made."""
    kv = config.kv
    if kv is None or not kv.connector.startswith("Mooncake"):
        return
    layerwise = kv.connector == "MooncakeLayerwiseConnector"
    if layerwise and RELEASE.layerwise_tells_sizes:
        if kv.role == "kv_consumer" and config.pcp > 1:
            raise StartupFailure(
                "AssertionError",
                "Prefill context parallel is not support on decoder nodes",
                frame=(RELEASE.source(kv.connector), 804, "__init__"),
                stage="core",
            )
        return
    prefill_tp, _ = kv.size("prefill", "tp_size"), kv.size("prefill", "dp_size")
    decode_tp, _ = kv.size("decode", "tp_size"), kv.size("decode", "dp_size")
    problems = [
        (kv.size("decode", "pp_size", 1) != 1, "AssertionError", "decode pp size must be 1"),
        (
            prefill_tp < decode_tp,
            "ValueError",
            f"prefill_tp_size: {prefill_tp} must be greater than or equal to the decode_tp_size: {decode_tp}",
        ),
        (
            not config.model.is_mla and prefill_tp % decode_tp != 0,
            "AssertionError",
            "Prefill TP size must be divisible by Decode TP size.",
        ),
        (config.pp > 1 and config.pcp > 1, "AssertionError", "pp and pcp cannot open in same time"),
        (
            ":" in host,
            "RuntimeError",
            "The backend of mooncake's Ascend Direct Xfer Library currently does not support IPv6.",
        ),
    ]
    for broken, kind, message in problems:
        if broken:
            raise StartupFailure(
                kind, message, frame=(RELEASE.source(kv.connector), 1125, "__init__"), stage="worker"
            )
