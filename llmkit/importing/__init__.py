"""Recipes of other projects -> recipes of llmkit, with an account of every key."""
