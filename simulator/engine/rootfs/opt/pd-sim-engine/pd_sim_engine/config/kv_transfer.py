"""KVTransferConfig: --kv-transfer-config."""

from __future__ import annotations

import argparse
import uuid
from dataclasses import dataclass, field
from typing import Any

from .. import RELEASE
from ..log import StartupFailure
from .failure import ARG_UTILS

CONNECTOR = RELEASE.source("MooncakeConnectorV1")
DEFAULT_PORT = 14579


@dataclass(frozen=True)
class KvTransfer:
    """The connector and what it is told."""

    connector: str
    role: str
    port: int
    engine_id: str
    extra: dict[str, Any] = field(default_factory=dict)
    """kv_connector_extra_config."""
    recomputes: bool = False
    """Whether blocks that could not be loaded are computed here, or else fail their request."""

    @property
    def is_producer(self) -> bool:
        return self.role in ("kv_producer", "kv_both")

    @property
    def is_consumer(self) -> bool:
        return self.role in ("kv_consumer", "kv_both")

    def size(self, side: str, key: str, default: int | None = None) -> int:
        """A size of one side (prefill, decode). Raises StartupFailure if it must be given and is not."""
        sizes = self.extra.get(side, {})
        if key not in sizes and default is None:
            raise StartupFailure(
                "AssertionError",
                "",
                frame=(CONNECTOR, 1177, "_get_prefill_decode_size"),
                stage="worker",
            )
        return int(sizes.get(key, default))


def make_kv_transfer(args: argparse.Namespace) -> KvTransfer | None:
    """The configuration of the connector, checked; None without one."""
    given = args.kv_transfer_config
    if given is None or given.get("kv_connector") is None:
        return None
    kv = KvTransfer(
        connector=given["kv_connector"],
        role=given["kv_role"],
        port=int(given.get("kv_port", DEFAULT_PORT)),
        engine_id=str(given.get("engine_id") or uuid.uuid4()),
        extra=given.get("kv_connector_extra_config") or {},
        recomputes=given.get("kv_load_failure_policy") == "recompute",
    )
    _check_sizes(kv, args.tensor_parallel_size, args.data_parallel_size)
    _check_class(given)
    return kv


def _check_sizes(kv: KvTransfer, tp: int, dp: int) -> None:
    """The own side's sizes must be the engine's own; the other side's are not looked at here."""
    sides = [("prefill", kv.is_producer), ("decode", kv.is_consumer)]
    for side, mine in sides:
        sizes = kv.extra.get(side, {}) if mine else {}
        for key, words, own in (("tp_size", "tensor", tp), ("dp_size", "data", dp)):
            if key in sizes and sizes[key] != own:
                raise StartupFailure(
                    "ValueError",
                    f"KV transfer '{side}' config has a conflicting {words} parallel size. "
                    f"Expected {own}, but got {sizes[key]}.",
                    frame=("/vllm-workspace/vllm-ascend/vllm_ascend/utils.py", 1120, "_check"),
                )


def _check_class(given: dict[str, Any]) -> None:
    """The factory finds the connector's class by its registered name, or in the module that is given."""
    frame = (ARG_UTILS, 1354, "create_engine_config")
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
