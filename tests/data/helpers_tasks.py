"""A task of two choices, for evaluations that are asked by name."""

PICK = """
task: pick
dataset_path: me/on-the-hub
output_type: multiple_choice
test_split: test
doc_to_text: "{{question}}"
doc_to_choice: ["yes", "no"]
doc_to_target: 1
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
