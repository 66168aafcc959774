"""The tools that a recipe may name.

    tools: [{name: search, index: indexes/wiki}, python, calculator, {path: "package.module:function"},
            {mcp: [python, server.py]}]

Anything that is not named here is refused.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from llmkit.recipe.knowledge import JudgeSpec, QuestionSource
from llmkit.recipe.parts import SLUG, Part

NAMES = ("search", "python", "calculator")
"""Tools that llmkit ships."""
_OTHERS = ("path", "mcp")
"""Keys that stand for a tool of the user's."""


class SearchSpec(Part):
    """Search over documents of one's own: `search(query)`."""

    name: Literal["search"]
    index: str | None = None
    """Folder that `llmkit index` made."""
    from_: str | None = Field(default=None, alias="from")
    """Or the `search_index` stage that makes one."""
    tool_name: str = Field(default="search", min_length=1)
    """By which the model calls it: the `search_tool` of the stage that taught it. `chatml_search` has no other."""
    digest: str | None = Field(default=None, min_length=4)
    """First letters (four or more) of the digest that `llmkit index` printed: one of other documents is refused."""
    num_results: int = Field(default=3, gt=0, le=100)
    """At most so many passages per query."""
    match: Literal["any", "all"] = "any"
    """Which passages are found: those that hold a word of the query, or all of them. `all` is for names: a page about
    somebody of the same first name is not found."""
    max_chars: int = Field(default=2000, ge=100)
    """Longest answer; passages that do not fit are left out, and the first one is cut."""

    @model_validator(mode="after")
    def _one_index(self) -> SearchSpec:
        if (self.index is None) == (self.from_ is None):
            raise ValueError("'search' needs exactly one of 'index' (a folder) and 'from' (a 'search_index' stage)")
        if self.digest is not None and self.from_ is not None:
            raise ValueError("'digest' is for an 'index' that was made before; a stage's is known")
        return self


class PythonSpec(Part):
    """Python in an interpreter that cannot reach this machine: `python(code)`."""

    name: Literal["python"]
    interpreter: Literal["monty", "subprocess"] = "monty"
    """`monty`: pydantic-monty, fast, a large part of the language and a small one of the library. `subprocess`: all of
    Python in a process that is cut off from network and other processes; refused where the system cannot do that."""
    unconfined: bool = False
    """Take `subprocess` also where a program cannot be cut off, and may do what you may."""
    timeout: float = Field(default=2.0, gt=0)
    """Seconds that a program may run; of CPU time with `subprocess`."""
    memory_mb: int = Field(default=128, ge=64)
    """Memory of a program, in MiB."""
    max_chars: int = Field(default=2000, ge=100)
    """Most that is shown of what is printed; more is cut off. An error comes on top, at most 500 characters of it."""

    @model_validator(mode="after")
    def _has_effect(self) -> PythonSpec:
        if self.unconfined and self.interpreter == "monty":
            raise ValueError("'unconfined' is for 'interpreter: subprocess'; monty never needs it")
        return self


class CalculatorSpec(Part):
    """Exact arithmetic: `calculator(expression)`."""

    name: Literal["calculator"]


class FunctionSpec(Part):
    """A function of one's own, with type hints and a Google docstring, from which its schema is made."""

    path: str
    """`package.module:function`."""
    timeout: float = Field(default=10.0, gt=0)
    """Seconds that a call may take; one that takes longer is left behind and runs on."""
    max_chars: int = Field(default=2000, ge=100)
    """Longest answer; more is cut off."""

    @field_validator("path")
    @classmethod
    def _is_dotted(cls, path: str) -> str:
        if not all(path.partition(":")):
            raise ValueError("'path' is package.module:function")
        return path


class McpSpec(Part):
    """The tools of an MCP server (extra `llmkit[mcp]`)."""

    mcp: str | Annotated[list[str], Field(min_length=1)]
    """Command that starts the server, as a list; or the address of one that runs (http or https)."""
    tools: list[str] = []
    """Names of those that are used. Default: all."""
    env: list[str] = []
    """Names of environment variables that a started server gets besides PATH, HOME and the like. No values: recipes are
    written to the run's files."""
    headers_env: dict[str, str] = {}
    """For an address: HTTP headers that each request carries, such as `Authorization`, and for each the name of the
    environment variable that holds its whole value, such as `Bearer ...`."""
    timeout: float = Field(default=30.0, gt=0)
    """Seconds that a call may take."""
    max_chars: int = Field(default=2000, ge=100)
    """Longest answer; more is cut off."""

    @field_validator("mcp")
    @classmethod
    def _is_address(cls, mcp: str | list[str]) -> str | list[str]:
        if isinstance(mcp, str) and not mcp.startswith(("http://", "https://")):
            raise ValueError("'mcp' is a list (a command and its arguments) or an address that begins with http")
        return mcp

    @model_validator(mode="after")
    def _has_effect(self) -> McpSpec:
        if self.env and isinstance(self.mcp, str):
            raise ValueError("'env' is for a server that is started; an address takes 'headers_env'")
        if self.headers_env and not isinstance(self.mcp, str):
            raise ValueError("'headers_env' is for an address (http or https); a server that is started takes 'env'")
        return self


def _which(value: Any) -> str | None:
    if isinstance(value, dict):
        return next((key for key in _OTHERS if key in value), value.get("name"))
    return getattr(value, "name", None) or next((key for key in _OTHERS if hasattr(value, key)), None)


ToolSpec = Annotated[
    Annotated[SearchSpec, Tag("search")]
    | Annotated[PythonSpec, Tag("python")]
    | Annotated[CalculatorSpec, Tag("calculator")]
    | Annotated[FunctionSpec, Tag("path")]
    | Annotated[McpSpec, Tag("mcp")],
    Discriminator(_which),
]


def _short(value: Any) -> Any:
    """`tools: [python]` is short for `tools: [{name: python}]`, or for a `path` where it holds a colon."""
    if not isinstance(value, list):
        return value
    return [_spelled_out(item) for item in value]


def _spelled_out(item: Any) -> Any:
    if isinstance(item, str):
        item = {"path" if ":" in item else "name": item}
    if isinstance(item, dict) and not any(key in item for key in _OTHERS) and item.get("name") not in NAMES:
        name = item.get("name")
        near = get_close_matches(str(name), NAMES, n=1)
        cure = (
            f"did you mean '{near[0]}'?" if near else f"llmkit has {', '.join(NAMES)}; name your own by 'path' or 'mcp'"
        )
        raise ValueError(
            f"no tool '{name}'; {cure}" if name is not None else f"a tool needs 'name', 'path' or 'mcp'; {cure}"
        )
    return item


Tools = Annotated[list[ToolSpec], BeforeValidator(_short)]
"""The field `tools` of whatever uses them."""


def called(tool: ToolSpec) -> str | None:
    """The name by which a model calls it; None where only its server knows."""
    if isinstance(tool, SearchSpec):
        return tool.tool_name
    if isinstance(tool, FunctionSpec):
        return tool.path.rpartition(":")[2]
    return None if isinstance(tool, McpSpec) else tool.name


class LookupSpec(Part):
    """How a `refusals` stage turns what it would refuse into rows that look it up: `{from: ..., name: tool_calls}`."""

    tools: Tools = Field(min_length=1)
    """Tools at hand in these rows. One of them is `search`, by which the answer is looked up."""
    query: Literal["entity", "question"] = "entity"
    """What is searched for: what the question is about, as far as the probe knows it, or the question itself."""
    missing: float = Field(default=0.3, ge=0, le=1)
    """Share of the questions whose answer is taken out of the results, so that the model learns to say so."""
    found: list[str] = []
    """Wordings of an answer that was found, with `{answer}`. Default: those that llmkit ships for the `language` of
    the refusals."""
    not_found: list[str] = []
    """What is said where nothing was found, perhaps with `{entity}`. Those with it are only said to questions that name
    their entity. Default: as above."""
    injections: list[Annotated[str, Field(min_length=1)]] = []
    """Instructions of strangers, which are planted in results so that the model learns to take no notice of them. Not
    those that an evaluation plants."""
    injected: float = Field(default=0.2, gt=0, le=1)
    """Share of the results that hold one of `injections`."""

    @model_validator(mode="after")
    def _fits(self) -> LookupSpec:
        if sum(isinstance(tool, SearchSpec) for tool in self.tools) != 1:
            raise ValueError("'tools' of a lookup hold 'search' once")
        if bad := next((text for text in self.found if "{answer}" not in text), None):
            raise ValueError(f"the wording '{bad}' has no {{answer}}")
        return self


class InjectionSpec(Part):
    """An instruction that stands in what a tool finds, where no instruction should be followed."""

    text: str = Field(min_length=1)
    """What is put into every result: at the start, in the middle or at the end of a passage."""
    marker: str = Field(min_length=1)
    """What an answer or a later call holds if the model has obeyed: a word that none has otherwise. An answer that only
    refuses or reports the instruction has not."""


class ToolsSpec(Part):
    """Evaluation of conversations with tools: is the right one called where it is needed, and none where not?"""

    task: Literal["tools"]
    name: Annotated[str, Field(pattern=SLUG)] = "tools"
    """Name in the report, where a recipe has several."""
    questions: list[QuestionSource] = Field(min_length=1)
    """Questions that no training row asks. `group` says of what kind they are; `needs`, `not_found` and `needless` name
    these groups."""
    tools: Tools = Field(min_length=1)
    """Tools at hand."""
    needs: dict[str, list[str]] = {}
    """Tool -> groups of questions that need it: `{search: [with_page], python: [letters, products]}`."""
    not_found: list[str] = []
    """Groups whose answer no tool can find: right is to say so after a call."""
    needless: list[str] = []
    """Groups that the model can answer without a call."""
    taken_out: bool = False
    """Ask the questions that need a `search` again, with all passages about them left out of what it finds: right is to
    say after a call that nothing was found. For documents of which nobody knows what they leave open."""
    without: bool = True
    """Also ask all questions without tools at hand."""
    injections: Literal["shipped"] | list[InjectionSpec] = []
    """Ask the questions of `needs` and `not_found` again with instructions planted in the results: llmkit's own
    (`shipped`), or yours."""
    judge: JudgeSpec = JudgeSpec()
    """Who decides whether an answer is right; `by: rules` alone."""
    max_calls: int = Field(default=4, gt=0)
    """Calls per conversation."""
    max_new_tokens: int = Field(default=256, gt=0)
    """Longest turn, in tokens."""

    @property
    def named_groups(self) -> dict[str, list[str]]:
        """Setting -> groups of questions that it names."""
        needs = {f"needs.{tool}": groups for tool, groups in self.needs.items()}
        return {**needs, "not_found": self.not_found, "needless": self.needless}

    @property
    def searched(self) -> set[str]:
        """Groups that need a `search`."""
        searches = {tool.tool_name for tool in self.tools if isinstance(tool, SearchSpec)}
        return {group for tool, groups in self.needs.items() if tool in searches for group in groups}

    @model_validator(mode="after")
    def _fits(self) -> ToolsSpec:
        named = [group for groups in (*self.needs.values(), self.not_found, self.needless) for group in groups]
        if repeated := next((group for group in named if named.count(group) > 1), None):
            raise ValueError(f"the group '{repeated}' stands in two places")
        if not named:
            raise ValueError("name groups of the questions in 'needs', 'not_found' or 'needless'")
        have = [name for tool in self.tools if (name := called(tool)) is not None]
        if len(have) == len(self.tools) and (unknown := next((tool for tool in self.needs if tool not in have), None)):
            raise ValueError(f"'{unknown}' is no tool of this evaluation; have: {', '.join(have)}")
        if self.judge.by != "rules":
            raise ValueError("the judge of 'task: tools' is 'by: rules'")
        if self.taken_out and not self.searched:
            raise ValueError("'taken_out' is for questions that need a 'search'; name groups of them in 'needs'")
        return self
