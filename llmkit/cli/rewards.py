"""`llmkit rewards`: the reward functions that a recipe may name."""

from __future__ import annotations

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from llmkit.recipe.reward_keys import describe


def list_rewards() -> None:
    """Name, what it pays for, columns that it reads, options with the values that they take."""
    console = Console(highlight=False)
    for each in describe():
        head = Text(each.name, style="bold").append(" (correctness)" if each.correctness else "", style="dim")
        console.print(head.append(f"  {each.summary}", style="not bold"))
        if each.columns:
            console.print(Padding(Text(f"reads {', '.join(each.columns)}"), (0, 4)))
        options = "; ".join(f"{key}: {option.values}" for key, option in each.options.items())
        if options:
            console.print(Padding(Text(f"args  {options}"), (0, 4)))
    console.print("\nA reward on correctness says whether a problem is solved. In a recipe:", markup=False)
    example = "{name: length, args: {target: 64, slack: 64}, weight: 0.1}"
    console.print(f"  rewards: [exact, {example}, my_package.my_module:my_function]", markup=False)
