"""The embedded world: a fictional place whose facts are known exactly, and a base model of 3.7 M parameters.

`world` (people and facts) -> `phrases`, `facts`, `problems`, `texts` (how they are worded) -> `documents`,
`conversations` (rows) -> `sources` (what recipes name). `make_evals` writes the data of the tasks in `evals/tiny`.
`base/` holds the model that `recipes/tiny/base.yaml` makes (`ship_base` puts it there); recipes name it
`llmkit.tiny:base`.
"""
