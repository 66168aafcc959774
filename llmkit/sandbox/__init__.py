"""Work that may hang, swallow memory, crash or mean harm, kept away from the process that needs its result."""
