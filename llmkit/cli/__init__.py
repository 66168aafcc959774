"""The `llmkit` command: thin, quick to start, one module per command."""
