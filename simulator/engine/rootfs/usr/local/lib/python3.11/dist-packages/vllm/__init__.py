"""As much of vLLM as the real proxy script imports."""

__version__ = "0.13.0"
