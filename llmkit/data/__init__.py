"""Sources, formats, mixtures and tokenised rows."""
