"""Loading, building and saving models."""
