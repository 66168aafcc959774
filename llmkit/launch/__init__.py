"""Runs a plan: one worker group at a time, watched, and ended whole."""
