"""The real vLLM with the real vllm-ascend on top, as far as they go without an accelerator.

    python tests/conformance/real_engine.py --vllm SOURCE --ascend SOURCE < requests > answers

Each line of the input is a request, a JSON object: ``argv`` (from `serve` on), ``env``, and ``ranks``, the
places of the worker processes whose connectors are made: [data, pipeline, prefill context, tensor] each, and
``peer``, the sizes that a prefiller's first request tells a decoder. Each line of the output is the answer:

    {"accepted": true, "ports": [36100, …], "block_size": 128, "world_size": 32}
    {"accepted": false, "by": "vLLM config", "type": "AssertionError", "message": "…"}

What a start does is done in its order: the parser of `vllm serve`, AsyncEngineArgs, VllmConfig with the
platform's checks, the executor's first checks, the workers' connectors. Code that needs silicon (torch_npu,
acl, Mooncake) stands as empty modules; everything else is the releases' own. Every request has a process of
its own, since both packages keep settings in globals.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import importlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import io
import json
import logging
import os
import sys
import traceback
import types
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest.mock import MagicMock

# Packages of the accelerator, and what only a running engine uses.
EMPTY = frozenset(
    {
        *("acl", "mooncake", "torch_npu", "torchair"),
        *("compressed_tensors", "einops", "ijson", "numba", "torchvision", "uvloop", "xgrammar"),
    }
)
# Made by vllm-ascend's build; patches of vLLM beyond its configuration.
EMPTY_PARTS = frozenset({"vllm_ascend._build_info", "vllm_ascend.patch.platform"})
# Patches of vLLM's configuration, where the release has them.
CONFIGURATION_PATCHES = ("patch_set_cudagraph_sizes", "patch_pp_mtp", "patch_speculative_config")
# Bytes of memory that vLLM may see: a server's, not this machine's.
SERVER_MEMORY = 2**41
# What a connector does first with the sizes of a peer.
FIRST_REQUEST_CHECKS = ("context_parallel_parameters_check", "_get_local_remote_cp_params")
MODEL = Path(__file__).parent / "models" / "mla"


class Empty(types.ModuleType):
    """A module that has whatever is asked of it."""

    __path__: ClassVar[list[str]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = MagicMock(name=f"{self.__name__}.{name}")
        setattr(self, name, value)
        return value


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the empty modules before anything else is looked for."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name.split(".")[0] in EMPTY or name in EMPTY_PARTS:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> types.ModuleType:
        return Empty(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing to run."""


class Engine:
    """One release, loaded once."""

    def __init__(self, vllm: Path, ascend: Path) -> None:
        self.folders = {"vLLM": str(vllm / "vllm"), "vllm-ascend": str(ascend / "vllm_ascend")}
        os.environ["VLLM_PLUGINS"] = ""
        sys.meta_path.insert(0, Finder())
        sys.path[:0] = [str(vllm), str(ascend)]
        logging.disable(logging.ERROR)
        # Asked for in every configuration, and read from a file each time.
        importlib.metadata.version = cache(importlib.metadata.version)
        import torch

        torch.utils.rename_privateuse1_backend("npu")
        torch.npu = MagicMock()
        import vllm.platforms
        from vllm.platforms.cpu import CpuPlatform

        vllm.platforms._current_platform = CpuPlatform()
        build = importlib.import_module("vllm_ascend._build_info")
        build.__dict__.update(__device_type__="A3", __soc_version__="ascend910_9391")
        from vllm_ascend.platform import NPUPlatform

        vllm.platforms._current_platform = NPUPlatform()
        from vllm.entrypoints.openai.cli_args import make_arg_parser
        from vllm.utils.argparse_utils import FlexibleArgumentParser

        parser = FlexibleArgumentParser(prog="vllm")
        make_arg_parser(parser.add_subparsers(required=False, dest="subparser").add_parser("serve"))
        self.parser = parser
        self.patches(ascend)
        self.models()
        import vllm.config.cache

        if hasattr(vllm.config.cache, "get_cpu_memory"):
            vllm.config.cache.get_cpu_memory = lambda: SERVER_MEMORY
        # Loaded before the first request, so that each need not.
        importlib.import_module("vllm.v1.executor.multiproc_executor")
        for path in ascend.glob("vllm_ascend/distributed/**/mooncake_*connector.py"):
            importlib.import_module(".".join(path.relative_to(ascend).with_suffix("").parts))
        importlib.import_module("vllm_ascend").register_connector()
        self.warm(NPUPlatform)

    def warm(self, platform: Any) -> None:
        """One configuration without the platform's checks, so that each request need not import what it
        takes."""
        from vllm.engine.arg_utils import AsyncEngineArgs

        checks = platform.__dict__["check_and_update_config"]
        platform.check_and_update_config = classmethod(lambda cls, config: None)
        try:
            args = self.parser.parse_args(["serve", str(MODEL), "--tensor-parallel-size", "16"])
            args.model = args.model_tag
            AsyncEngineArgs.from_cli_args(args).create_engine_config()
        finally:
            platform.check_and_update_config = checks

    def patches(self, ascend: Path) -> None:
        folder = ascend / "vllm_ascend" / "patch" / "platform"
        package: Any = importlib.import_module("vllm_ascend.patch.platform")
        package.__path__ = [str(folder)]
        for name in CONFIGURATION_PATCHES:
            if (folder / f"{name}.py").exists():
                importlib.import_module(f"vllm_ascend.patch.platform.{name}")

    def models(self) -> None:
        """What vLLM would learn from a model's class, which needs the compiled parts."""
        from vllm.model_executor.models import registry

        def inspect(model: Any) -> Any:
            known: dict[str, Any] = {
                "architecture": model.class_name,
                "is_text_generation_model": True,
                "supports_pp": True,
                "attn_type": "decoder",
                "default_pooling_type": "LAST",
                "default_seq_pooling_type": "LAST",
                "default_tok_pooling_type": "ALL",
                "score_type": "bi-encoder",
            }
            fields = dataclasses.fields(registry._ModelInfo)
            return registry._ModelInfo(**{field.name: known.get(field.name, False) for field in fields})

        registry._LazyRegisteredModel.inspect_model_cls = inspect

    def start(self, request: dict[str, Any]) -> dict[str, Any]:
        """As far as a start goes."""
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.entrypoints.openai.cli_args import validate_parsed_serve_args

        os.environ.update(request["env"])
        error_stream = io.StringIO()
        try:
            with contextlib.redirect_stderr(error_stream):
                args = self.parser.parse_args(request["argv"])
        except SystemExit as end:
            words = error_stream.getvalue() or str(end.code)
            return {"accepted": False, "by": "vLLM parser", "type": "SystemExit", "message": words}
        except Exception as error:
            return {**self.refusal(error), "by": "vLLM parser"}
        try:
            validate_parsed_serve_args(args)
            args.model = args.model_tag  # as the command does
            made = AsyncEngineArgs.from_cli_args(args).create_engine_config(headless=args.headless)
            self.executor(made)
            workers = [self.connector(made, *rank) for rank in request.get("ranks", [])]
            importlib.import_module("vllm_ascend.utils").enable_sp(made)  # as the model runner does
        except (Exception, SystemExit) as error:
            return self.refusal(error)
        ports = [int(worker.handshake_port) for worker in workers if worker is not None]
        if workers and workers[0] is not None and request.get("peer"):
            try:
                self.first_request(made, workers[0], request["peer"])
            except AssertionError as error:
                return {**self.refusal(error), "by": "vllm-ascend, at the first request"}
        return {
            "accepted": True,
            "ports": ports,
            "block_size": made.cache_config.block_size,
            "world_size": made.parallel_config.world_size,
            "local_world_size": made.parallel_config.local_world_size,
        }

    def executor(self, config: Any) -> None:
        """The checks that come before the worker processes."""
        from vllm.v1.executor import multiproc_executor as module

        class Reached(Exception):
            """The checks are over."""

        def reached() -> None:
            raise Reached

        module.set_multiprocessing_worker_envs = reached
        executor = module.MultiprocExecutor.__new__(module.MultiprocExecutor)
        executor.vllm_config, executor.parallel_config = config, config.parallel_config
        executor.shutdown = lambda: None
        try:
            executor._init_executor()
        except Reached:
            return

    def first_request(self, config: Any, worker: Any, peer: dict[str, int]) -> None:
        """The connector's look at the sizes of the prefiller that a first request comes from."""
        if not hasattr(worker, "_get_kv_split_metadata"):
            return
        worker.use_mla, worker.use_sparse = config.model_config.use_mla, False
        meta = MagicMock(**peer)
        try:
            worker._get_kv_split_metadata("first", meta)
        except Exception as error:
            names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
            if names[-1] in FIRST_REQUEST_CHECKS:
                raise
            # It goes on to the blocks of a request, and there is none.

    def connector(self, config: Any, data: int, pipeline: int, context: int, tensor: int) -> Any:
        """The connector of one worker."""
        if config.kv_transfer_config is None:
            return None
        from vllm.distributed.kv_transfer.kv_connector.factory import KVConnectorFactory

        cls = KVConnectorFactory.get_connector_class(config.kv_transfer_config)
        module: Any = sys.modules[cls.__module__]
        worker = getattr(module, f"{cls.__name__}Worker")
        parallel = config.parallel_config
        parallel.data_parallel_rank = data  # as each engine of a node has it
        groups = {
            "get_tensor_model_parallel_rank": tensor,
            "get_tp_group": SimpleNamespace(rank_in_group=tensor, world_size=parallel.tensor_parallel_size),
            "get_pp_group": SimpleNamespace(
                rank_in_group=pipeline, world_size=parallel.pipeline_parallel_size
            ),
            "get_pcp_group": SimpleNamespace(
                rank_in_group=context, world_size=parallel.prefill_context_parallel_size
            ),
            "get_decode_context_model_parallel_world_size": parallel.decode_context_parallel_size,
            "get_decode_context_model_parallel_rank": 0,
        }
        for name, value in groups.items():
            if hasattr(module, name):
                setattr(module, name, lambda value=value: value)
        # One group of layers, as models of one kind of attention have it.
        spec = SimpleNamespace(block_size=config.cache_config.block_size)
        layers = SimpleNamespace(kv_cache_spec=spec, layer_names=["0"])
        given = {
            "vllm_config": config,
            "engine_id": config.kv_transfer_config.engine_id,
            "kv_cache_config": SimpleNamespace(num_blocks=1, kv_cache_groups=[layers]),
        }
        code = worker.__init__.__code__
        names = code.co_varnames[1 : code.co_argcount]
        module.global_te.transfer_engine = MagicMock()  # Mooncake's own
        return worker(**{name: given[name] for name in names})

    def refusal(self, error: BaseException) -> dict[str, Any]:
        """Who refused, and the words."""
        inner: BaseException = error
        if hasattr(error, "errors"):  # pydantic wraps what a class's own check raises
            for row in error.errors():
                inner = row.get("ctx", {}).get("error", inner)
        by = "vLLM config"
        trace = inner.__traceback__
        while trace is not None:
            name = trace.tb_frame.f_code.co_filename
            for package, folder in self.folders.items():
                if name.startswith(folder + os.sep):
                    by = "vllm-ascend" if package == "vllm-ascend" else "vLLM config"
            trace = trace.tb_next
        return {"accepted": False, "by": by, "type": type(inner).__name__, "message": str(error)}


def answer(engine: Engine, request: dict[str, Any]) -> str:
    """In a process of its own: a line of JSON."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            text = json.dumps(engine.start(request))
        except BaseException as error:
            text = json.dumps({"accepted": False, "by": "this test", "type": type(error).__name__,
                               "message": traceback.format_exc()})  # fmt: skip
        with os.fdopen(writing, "w", encoding="utf-8") as pipe:
            pipe.write(text)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--vllm", type=Path, required=True)
    parser.add_argument("--ascend", type=Path, required=True)
    options = parser.parse_args()
    requests = [json.loads(line) for line in sys.stdin]
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the packages print is no answer
    engine = Engine(options.vllm.resolve(), options.ascend.resolve())
    gc.freeze()  # shared with the processes of the requests
    for request in requests:
        answers.write(answer(engine, request) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
