"""What the model configuration imports."""


class VLLMCustomAPIChat:
    """Asks an OpenAI-compatible server."""
