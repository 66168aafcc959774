"""Post-training for language models from one recipe."""
