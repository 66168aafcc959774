"""People's rankings of completions: read, asked for, kept, measured, turned into pairs. No model library."""
