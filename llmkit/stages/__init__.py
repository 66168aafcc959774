"""One worker per kind of stage: load, build, train, save, report."""
