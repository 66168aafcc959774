"""What a recipe will do, worked out before anything is loaded or written."""
