"""What a model can call. Nothing here reaches a network but what a recipe names of the user's: functions, MCP servers.

- tool: what a tool is, what a call gives back; errors are text for the model
- toolbox: the tools of a recipe, called by name, many at a time; failures: which of that failed, for people
- search, index, passages, words: search over documents
- python, shown: programs, and what their last line is worth
- calculator, function, mcp: the other tools
"""
