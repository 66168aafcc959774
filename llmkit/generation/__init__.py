"""Sampling from models."""
