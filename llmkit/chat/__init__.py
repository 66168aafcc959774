"""Chat templates, the one renderer of ids and loss masks, proofs of both, and preflight.

- template: load a template, put it on a tokenizer, read it back
- render: conversations, documents, prompt + completion -> ids and mask
- parse: ids or text -> messages, for the shipped templates
- turn: a turn that an assistant wrote, as text
- calls: the tool calls that an assistant wrote, out of its ids
- results: tools' results in the order of their calls
- schemas: JSON schemas of tools
- prove: properties of a tokenizer with its template, without a model
- preflight: properties of the rows of one stage, before its model loads
"""
