"""The engine's configuration, a module for each of vLLM's configuration classes (vllm/config/*.py).

Each reads its part of the command line and checks what the class checks, with the message of the real one.
`vllm.make_config` calls them in the order of vLLM's create_engine_config. All of this happens in the first
process, after the imports and before any worker is started.
"""
