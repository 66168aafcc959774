"""What a model knows: questions, verdicts, labels, and rows that teach it to say what it does not know."""
