"""The page to chat: one document."""
