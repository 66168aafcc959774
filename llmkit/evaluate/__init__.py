"""lm-eval tasks with intervals and paired differences."""
