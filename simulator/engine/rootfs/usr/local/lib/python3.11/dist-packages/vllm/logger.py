"""vLLM's logger: its format on its stream."""

import logging
import os
import sys


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        record.fileinfo = record.filename
        return super().format(record)


def init_logger(name: str) -> logging.Logger:
    """The logger of a module, printing as vLLM's do."""
    root = logging.getLogger("vllm")
    if not root.handlers:
        handler = logging.StreamHandler(sys.stdout)
        form = "%(levelname)s %(asctime)s [%(fileinfo)s:%(lineno)d] %(message)s"
        handler.setFormatter(_Formatter(form, "%m-%d %H:%M:%S"))
        root.addHandler(handler)
        root.setLevel(os.environ.get("VLLM_LOGGING_LEVEL", "INFO"))
        root.propagate = False
    return root if name == "vllm" else root.getChild(name)
