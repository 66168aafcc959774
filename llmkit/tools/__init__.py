"""What a model can call. Nothing here reaches a network but the MCP server that a recipe names.

- tool: what a tool is, what a call gives back; errors are text for the model
- toolbox: the tools of a recipe, called by name, many at a time
- search, index, passages: search over documents
- python, calculator, function, mcp: the other tools
"""
