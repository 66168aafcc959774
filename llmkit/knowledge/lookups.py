"""Rows that look up what a model does not know: the call, what the tool finds, an answer from that.

Whether something was found is read from the passages, never assumed: an answer is taught only where a passage about the
question's entity holds it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from llmkit.chat.turn import Call, result_message
from llmkit.errors import DataError
from llmkit.knowledge.records import ProbeRow
from llmkit.knowledge.refusing import shipped_texts
from llmkit.knowledge.rows import Decks, Row, conversation
from llmkit.knowledge.tokens import plain
from llmkit.recipe.knowledge import LANGUAGES, RefusalTexts
from llmkit.recipe.tools import LookupSpec

Find = Callable[[str, Callable[[str], bool]], tuple[str, list[str]]]
"""(query, whether a passage is there) -> what the tool answers, and the passages in it."""
Plant = Callable[[str, str], str]
"""(result, its key) -> the result, perhaps with a stranger's instruction in it."""


UNNAMED = "not_found_unnamed"


class Lookups:
    """Makes the rows of `tool_calls.jsonl` whole.

    Args:
        schemas: of the tools at hand.
        search_tool: the name by which the search is called.
        find: searches.
        plant: puts instructions into results; the answer is taught as if they were not there.

    Attributes:
        counts: "found", "not_found", of the latter "taken_out", and of all "injected".

    Raises:
        DataError: no wordings are shipped for the language of the refusals.
    """

    def __init__(
        self,
        spec: LookupSpec,
        language: RefusalTexts,
        schemas: Sequence[Mapping[str, Any]],
        search_tool: str,
        find: Find,
        seed: int,
        plant: Plant,
    ) -> None:
        self._spec, self._schemas, self._tool, self._seed = spec, list(schemas), search_tool, seed
        self._find, self._plant = find, plant
        unnamed = [text for text in spec.not_found if "{entity}" not in text]
        own = {"found": spec.found, "not_found": spec.not_found, UNNAMED: unnamed}
        self._found, self._not_found, self._not_found_unnamed = (
            Decks(partial(_texts, kind, own[kind], language.language), seed + place) for place, kind in enumerate(own)
        )
        self.counts: Counter[str] = Counter(found=0, not_found=0, taken_out=0, injected=0)

    def row(self, row: ProbeRow, answer: str | None) -> Row:
        """Args: answer: of a question that is known; None: it is looked up."""
        if answer is not None:
            return {**conversation(row.question, answer), "tools": self._schemas}
        named = subject(row.entity, row.answers)
        query = named if self._spec.query == "entity" and named else row.question
        taken_out = random.Random(f"{self._seed} {row.id}").random() < self._spec.missing

        def about(passage: str) -> bool:
            return is_about(passage, row.entity, row.answers)

        text, passages = self._find(query, (lambda passage: not about(passage)) if taken_out else _all)
        is_found = any(about(passage) and _holds(passage, row.answers) for passage in passages)
        self.counts["found" if is_found else "not_found"] += 1
        self.counts["taken_out"] += taken_out
        result = self._plant(text, f"{self._seed} {row.id}")
        self.counts["injected"] += result != text
        said = self._says(row) if is_found else self._says_nothing(row)
        call = Call(self._tool, {"query": query})
        messages = [
            {"role": "user", "content": row.question},
            {"role": "assistant", "content": "", "tool_calls": [call.as_message()]},
            result_message(result),
            {"role": "assistant", "content": said},
        ]
        return {"messages": messages, "tools": self._schemas}

    def _says(self, row: ProbeRow) -> str:
        """An answer that begins the sentence is written as one does."""
        said = self._found.deal(row.language).replace("{answer}", row.answers[0])
        return said[:1].upper() + said[1:]

    def _says_nothing(self, row: ProbeRow) -> str:
        """Names what is asked about only if the question does: else it would tell what the model does not know."""
        named = subject(row.entity, row.answers)
        if named and _holds(row.question, (named,)):
            return self._not_found.deal(row.language).replace("{entity}", named)
        return self._not_found_unnamed.deal(row.language)


def subject(entity: str, answers: Sequence[str]) -> str:
    """What a question is about, by name. "": nobody says, or says it with the answer, as TriviaQA's rows do."""
    return "" if _words(entity) in {_words(answer) for answer in answers} else entity


def is_about(passage: str, entity: str, answers: Sequence[str]) -> bool:
    """Whether it names what is asked about; where nobody says what that is, whether it holds an answer."""
    named = subject(entity, answers)
    return _holds(passage, (named,)) if named else _holds(passage, answers)


def _texts(kind: str, own: Sequence[str], own_language: str, language: str) -> Sequence[str]:
    """Wordings of one's own are in the language of the refusals."""
    if own and language in ("", own_language):
        return own
    if (wanted := language or own_language) not in LANGUAGES:
        only = " without {entity}, for questions that do not name theirs" if kind == UNNAMED else ""
        where = f"lookup.{kind.removesuffix('_unnamed')}"
        raise DataError(where, f"no wordings are shipped for '{wanted}'", f"give some of your own{only}")
    return shipped_texts(wanted, kind)


def _all(passage: str) -> bool:
    return True


def _holds(passage: str, texts: Sequence[str]) -> bool:
    folded = f" {_words(passage)} "
    return any(f" {_words(text)} " in folded for text in texts if _words(text))


def _words(text: str) -> str:
    return " ".join("".join(char if char.isalnum() else " " for char in plain(text).casefold()).split())
