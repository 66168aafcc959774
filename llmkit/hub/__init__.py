"""Publishing a run: what goes up, the cards, and the Hub."""
