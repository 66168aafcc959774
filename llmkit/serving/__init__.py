"""An OpenAI-compatible endpoint and its page. Knows requests and replies; what writes them is given to it.

- wanted: a request's body -> what is wanted, or an error as OpenAI words it
- replies: what was written -> JSON, whole or in chunks
- host: what the application asks of the model
- app, gate: routes, and who is let in
- forward: the same in front of another server, which writes
- page: the page to chat
"""
