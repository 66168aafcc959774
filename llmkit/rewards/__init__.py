"""Reward functions, one small pure file each."""
