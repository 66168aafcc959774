"""`llmkit new`: the shipped recipes."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from llmkit.artifacts.files import write_text
from llmkit.artifacts.shipped import shipped
from llmkit.errors import UserError

MAIN = "assistant"
"""The recipe that stands for its folder."""


def recipes() -> dict[str, Path]:
    """Shipped recipes: `folder/name` -> file. Overlays and Accelerate configs are no recipes of their own."""
    folder = shipped("recipes")
    found = {str(path.relative_to(folder).with_suffix("")): path for path in sorted(folder.rglob("*.yaml"))}
    return {
        name: path for name, path in found.items() if not name.startswith("accelerate/") and "/overlays/" not in name
    }


def list_recipes() -> None:
    """Each name with the first line of its comment."""
    known = recipes()
    width = max(map(len, known), default=0)
    for name, path in known.items():
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        print(f"{name:<{width}}  {first.removeprefix('#').strip() if first.startswith('#') else ''}".rstrip())


def find(name: str) -> Path:
    """`tiny/assistant`, `assistant` where only one folder has it, or `tiny` for the folder's main recipe."""
    known = recipes()
    name = name.removesuffix(".yaml")
    if name in known:
        return known[name]
    by_folder = [key for key in known if key.startswith(name)]
    by_stem = [key for key in known if key.rpartition("/")[2] == name]
    main = [key for key in by_folder if key.endswith(f"/{MAIN}")]
    for found in (main, by_folder, by_stem):
        if len(found) == 1:
            return known[found[0]]
    several = by_folder or by_stem
    if several:
        raise UserError(name, "several recipes fit", f"choose one of {', '.join(several)}")
    near = get_close_matches(name, [*known, *(key.partition("/")[0] for key in known)], n=1)
    raise UserError(name, "no such recipe", f"did you mean '{near[0]}'?" if near else f"have: {', '.join(known)}")


def copy_recipe(name: str, dest: str | None) -> None:
    """Writes a copy; never over a file that is there."""
    source = find(name)
    target = Path(dest) if dest else Path(source.name)
    target = target / source.name if target.is_dir() else target
    if target.exists():
        raise UserError(str(target), "is there already", f"give another name: llmkit new {name} other.yaml")
    write_text(target, source.read_text(encoding="utf-8"))
    print(f"wrote {target}; try: llmkit plan {target}")
