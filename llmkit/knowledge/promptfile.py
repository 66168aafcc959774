"""Prompt files: Jinja text with the variables that its reader fills in, one's own or one that llmkit ships."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import jinja2
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

from llmkit.errors import UserError

_FOLDER = Path(__file__).parent / "prompts"


@dataclass(frozen=True)
class PromptFile:
    """What a prompt of one kind is given.

    Attributes:
        shipped: file name of llmkit's own.
        setting: of the recipe, that names another file.
        variables: all that it may use.
        needed: those that it must show.
    """

    shipped: str
    setting: str
    variables: frozenset[str]
    needed: tuple[str, ...]

    def load(self, path: str | None) -> str:
        """Its text; `path` None: of the shipped one.

        Raises:
            UserError: no such file, no Jinja, a variable that does not exist, or a needed one left out.
        """
        file = Path(path).expanduser() if path else _FOLDER / self.shipped
        try:
            text = file.read_text(encoding="utf-8")
            used = find_undeclared_variables(_environment().parse(text))
        except (OSError, UnicodeDecodeError) as error:
            what = f"the prompt cannot be read ({getattr(error, 'strerror', None) or error})"
            raise UserError(str(file), what, f"name a text file in '{self.setting}'") from error
        except jinja2.TemplateSyntaxError as error:
            raise UserError(f"{file}:{error.lineno}", f"is no Jinja ({error.message})", "mend the prompt") from error
        if unknown := sorted(used - self.variables):
            cure = f"a prompt gets {', '.join(sorted(self.variables))}"
            raise UserError(str(file), f"it uses {', '.join(unknown)}", cure)
        if missing := [name for name in self.needed if name not in used]:
            cure = "write {{ %s }} where it is to stand" % missing[0]  # noqa: UP031 - braces
            raise UserError(str(file), f"it never shows {', '.join(missing)}", cure)
        return text


def compiled(prompt: str) -> jinja2.Template:
    return _environment().from_string(prompt)


def _environment() -> ImmutableSandboxedEnvironment:
    return ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined)
