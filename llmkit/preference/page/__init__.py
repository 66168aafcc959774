"""The page on which people rank: one document, served to this machine alone."""
