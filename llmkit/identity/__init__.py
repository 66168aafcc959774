"""A sense of self: rows that teach a model who it is, questions that check it, a judge. Pure: no model library."""
