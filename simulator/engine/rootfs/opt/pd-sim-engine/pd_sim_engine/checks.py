"""What the engine needs of its container and server, and how the real one fails without it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from . import network, release, server_state
from .config.vllm import EngineConfig
from .log import StartupFailure
from .paths import on_server

ATB_LIBRARY = "libatb.so"
HAL_FOLDER = "/usr/local/Ascend/driver/lib64"
MANAGERS = ("davinci_manager", "devmm_svm", "hisi_hdc")
MAX_CHIPS = 64


def _library_found(name: str) -> bool:
    folders = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    return any(on_server(f"{folder}/{name}").exists() for folder in folders if folder.startswith("/"))


def visible_chips() -> list[int]:
    """Physical ids of the chips that the process sees: devices, narrowed by ASCEND_RT_VISIBLE_DEVICES, which
    counts a container's devices from 0."""
    present = [chip for chip in range(MAX_CHIPS) if on_server(f"/dev/davinci{chip}").exists()]
    chosen = os.environ.get("ASCEND_RT_VISIBLE_DEVICES")
    if chosen is None:
        return present
    places = [int(word) for word in chosen.split(",") if word.strip().isdigit()]
    return [present[place] for place in places if place < len(present)]


def check_imports() -> None:
    """`import torch_npu` and vllm-ascend's plugin: CANN's environment, the driver's libraries."""
    frame = ("/usr/local/python3.11.14/lib/python3.11/site-packages/torch_npu/__init__.py", 36, "<module>")
    hint = "cannot open shared object file: No such file or directory"
    driver = on_server(HAL_FOLDER)
    if not driver.is_dir() or not any(driver.iterdir()):
        raise StartupFailure("ImportError", f"libascend_hal.so: {hint}", frame=frame, stage="import")
    if not _library_found(ATB_LIBRARY):
        raise StartupFailure(
            "ImportError",
            f"{ATB_LIBRARY}: {hint}. Please check that the cann package is installed. Please run "
            "'source set_env.sh' "
            "in the CANN installation path.",
            frame=frame,
            stage="import",
        )
    missing = [name for name in MANAGERS if not on_server(f"/dev/{name}").exists()]
    if missing or not visible_chips():
        raise StartupFailure(
            "RuntimeError",
            "Failed to infer device type, please set the environment variable "
            "`VLLM_LOGGING_LEVEL=DEBUG` to turn on "
            "verbose logging to help debug the issue.",
            frame=("/vllm-workspace/vllm/vllm/config/device.py", 57, "__post_init__"),
            stage="import",
        )


def check_devices(config: EngineConfig) -> None:
    """Every worker takes the chip of its local rank."""
    count, needed = len(visible_chips()), config.chips
    if config.dp > 1 and config.nnodes == 1 and config.local_world_size > count:
        raise StartupFailure(
            "AssertionError",
            f"local_world_size ({config.local_world_size}) must be less than or equal to the number "
            "of visible "
            f"devices ({count}).",
            frame=("/vllm-workspace/vllm-ascend/vllm_ascend/worker/worker.py", 220, "_init_device"),
            stage="worker",
        )
    if needed > count:
        raise StartupFailure(
            "RuntimeError",
            "ExchangeDevice:build/CMakeFiles/torch_npu.dir/compiler_depend.ts:120 NPU function error: "
            "aclrtSetDevice(device), error code is 107001\n"
            f"[ERROR] (PID:{os.getpid()}, Device:-1, RankID:-1) ERR00100 PTA call acl api failed\n"
            "[Error]: Invalid device ID.\n"
            "        Check whether the device ID is valid.\n"
            "EE1001: The argument is invalid.Reason: Set device failed, invalid device, set "
            f"device={count}, valid device range is [0, {count})",
            frame=("/vllm-workspace/vllm-ascend/vllm_ascend/worker/worker.py", 209, "_init_device"),
            stage="worker",
        )
    here = "A3" if re.match(r"Ascend910_93|Ascend910C", server_state.driver_soc()) else "A2"
    built_for = release.hardware()
    if here != built_for:
        raise StartupFailure(
            "AssertionError",
            f"Current device type: AscendDeviceType.{here} does not match the installed version's device "
            f"type: AscendDeviceType.{built_for}, please check your installation package.",
            frame=("/vllm-workspace/vllm-ascend/vllm_ascend/utils.py", 690, "check_ascend_device_type"),
            stage="worker",
        )


def check_interfaces(config: EngineConfig) -> None:
    """Gloo and HCCL look for the interfaces and the address that the environment names."""
    if config.world_size * config.dp == 1:
        return
    names = network.interfaces()
    gloo = os.environ.get("GLOO_SOCKET_IFNAME")
    parallel_state = "/vllm-workspace/vllm/vllm/distributed/parallel_state.py"
    if gloo and not any(name in names for name in gloo.split(",")):
        raise StartupFailure(
            "RuntimeError",
            "[enforce fail at /pytorch/third_party/gloo/gloo/transport/tcp/device.cc:84] ifa != nullptr. "
            f"Unable to find address for: {gloo}",
            frame=(parallel_state, 1225, "init_distributed_environment"),
            stage="worker",
        )
    hccl = os.environ.get("HCCL_SOCKET_IFNAME")
    address = os.environ.get("HCCL_IF_IP")
    problem = None
    if address:
        # HCCL_IF_IP comes first; HCCL_SOCKET_IFNAME is looked at when it is not set.
        if not network.is_local(address):
            problem = ("HCCL_IF_IP", address, "the IP address of a network interface of this host")
    elif hccl and not network.matches_interface(hccl, names):
        problem = ("HCCL_SOCKET_IFNAME", hccl, "the name of a network interface of this host")
    if problem:
        variable, value, expected = problem
        raise StartupFailure(
            "RuntimeError",
            "create_config:build/CMakeFiles/torch_npu.dir/compiler_depend.ts:103 HCCL function error: "
            "HcclGetRootInfo(&hcclID), error code is 15\n"
            f"[ERROR] (PID:{os.getpid()}, Device:0, RankID:0) ERR02200 DIST call hccl api failed.\n"
            f"EI0001: Value [{value}] for environment variable [{variable}] is invalid. Expected "
            f"value: {expected}.",
            frame=(parallel_state, 1225, "init_distributed_environment"),
            stage="worker",
        )


def shards(directory: Path) -> list[Path]:
    """The files that the loader reads: every *.safetensors, without what an index leaves out."""
    files = sorted(directory.glob("*.safetensors"))
    index = directory / "model.safetensors.index.json"
    if index.exists():
        listed = set(json.loads(index.read_text(encoding="utf-8")).get("weight_map", {}).values())
        files = [path for path in files if path.name in listed]
    return files


def missing_shards(directory: Path) -> list[str]:
    """Shards that an index lists and the disk does not have."""
    missing = set()
    for index in directory.glob("*.safetensors.index.json"):
        try:
            listed = set(json.loads(index.read_text(encoding="utf-8")).get("weight_map", {}).values())
        except ValueError:
            continue
        missing |= {name for name in listed if not (directory / name).exists()}
    return sorted(missing)


LOADER = ("/vllm-workspace/vllm/vllm/model_executor/model_loader/default_loader.py", 180, "_prepare_weights")


def check_weights(config: EngineConfig) -> list[Path]:
    """The files to load. A file that a model without quantization misses ends the start; a quantized one
    loads on."""
    files = shards(config.model.directory)
    if not files:
        raise StartupFailure(
            "RuntimeError",
            f"Cannot find any model weights with `{config.model.path}`",
            frame=LOADER,
            stage="worker",
        )
    missing = missing_shards(config.model.directory)
    if missing and config.args.quantization is None:
        raise StartupFailure(
            "ValueError",
            f"Following weights were not initialized from checkpoint: those of {', '.join(missing[:3])}",
            frame=LOADER,
            stage="worker",
        )
    return files


def check_shard(path: Path) -> None:
    """What the safetensors library says of a file that is not whole."""
    try:
        with path.open("rb") as handle:
            head = handle.read(8)
            size = os.fstat(handle.fileno()).st_size
            length = int.from_bytes(head, "little")
            text = handle.read(length) if len(head) == 8 and 8 + length <= size else b""
    except OSError as error:
        raise StartupFailure("OSError", str(error), frame=LOADER, stage="worker") from None
    if len(head) < 8:
        problem = "HeaderTooSmall"
    elif not text:
        problem = "HeaderTooLarge" if length > 100_000_000 else "InvalidHeaderLength"
    else:
        try:
            tensors = json.loads(text)
            ends = [tensor["data_offsets"][1] for name, tensor in tensors.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            problem = "InvalidHeaderDeserialization"
        else:
            if size >= 8 + length + max(ends, default=0):
                return
            problem = "MetadataIncompleteBuffer"
    raise StartupFailure(
        "safetensors_rust.SafetensorError",
        f"Error while deserializing header: {problem}",
        frame=(
            "/vllm-workspace/vllm/vllm/model_executor/model_loader/weight_utils.py",
            672,
            "safetensors_weights_iterator",
        ),
        stage="worker",
    )


def has_hccn_conf() -> bool:
    """Whether the container sees /etc/hccn.conf: without it the transport finds no device address.

    Over HCCS chips that have no RoCE address need none (hixl v8.5.0, rank_table_generator.cc); then the file
    must only be there, since it is mounted.
    """
    path = on_server("/etc/hccn.conf")
    unused = server_state.fault("roce_unused")
    try:
        return path.is_file() and (
            "address" in path.read_text(encoding="utf-8") or (unused is not None and "chips" not in unused)
        )
    except OSError:
        return False
