"""How a configuration is refused."""

from __future__ import annotations

from ..log import Frame, StartupFailure

ARG_UTILS = "/vllm-workspace/vllm/vllm/engine/arg_utils.py"


def assert_that(condition: bool, message: str, frame: Frame) -> None:
    """Raise the AssertionError of the real engine, unless the condition holds."""
    if not condition:
        raise StartupFailure("AssertionError", message, frame=frame)


def invalid(cls: str, message: str, frame: Frame) -> StartupFailure:
    """A ValueError inside the configuration class `cls`, which comes out as pydantic's ValidationError."""
    text = (
        f"1 validation error for {cls}\n  Value error, {message} "
        "[type=value_error, input_value=ArgsKwargs((), {...}), input_type=ArgsKwargs]\n"
        "    For further information visit https://errors.pydantic.dev/2.12/v/value_error"
    )
    return StartupFailure("pydantic_core._pydantic_core.ValidationError", text, frame=frame)
