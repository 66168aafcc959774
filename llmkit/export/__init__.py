"""Folders in which other programs find a model: GGUF for llama.cpp and Ollama, and what vLLM loads."""
