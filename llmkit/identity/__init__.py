"""A sense of self: rows that teach a model who it is, questions that check it, and the judge. Pure: no model library."""
