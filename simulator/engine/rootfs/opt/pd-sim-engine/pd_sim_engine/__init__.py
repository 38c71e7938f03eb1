"""The simulated engine: `vllm serve` of a release without the computation."""

from .release import current

RELEASE = current()
VLLM_VERSION = RELEASE.vllm
