"""JSON schemas of tools, as chat templates list them: the same for training rows and for the tools that are called."""

from __future__ import annotations

from typing import Any


def schema_of(name: str, description: str, **texts: str) -> dict[str, Any]:
    """Schema of a tool whose arguments are texts that it must get. `texts`: argument -> description."""
    properties = {key: {"type": "string", "description": text} for key, text in texts.items()}
    parameters = {"type": "object", "properties": properties, "required": list(texts), "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


def python_schema() -> dict[str, Any]:
    """Of the tool that runs programs."""
    return schema_of("python", "Runs a Python program and returns what it prints.", code="The program.")


def search_schema(name: str = "search") -> dict[str, Any]:
    """Of the search tool, which a recipe's training rows may call by another name."""
    return schema_of(name, "Looks up documents and returns the passages that fit best.", query="What to look for.")


def calculator_schema() -> dict[str, Any]:
    """Of the tool that computes."""
    does = "Computes an arithmetic expression exactly, such as 12.5 * (3 + 4) ** 2."
    return schema_of("calculator", does, expression="The expression.")
