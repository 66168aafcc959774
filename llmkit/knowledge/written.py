"""Checks of questions that a model wrote about a snippet. Those of pronouns and pointing words know English only."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from llmkit.knowledge.records import Question
from llmkit.knowledge.snippets import Snippet
from llmkit.knowledge.split import WORD, fold, is_unicode, words

MAX_QUESTION_CHARS = 300
MAX_ANSWER_WORDS = 10
"""Longer answers are sentences, which no judge can compare."""

_QUESTION, _ANSWER = re.compile(r"Q:\s*(\S.*)"), re.compile(r"A:\s*(\S.*)")
_QUESTION_MARKS = ("?", "\uff1f", "\u061f", "\u037e")
_ARTICLE = re.compile(r"\A(?:the|an?) (?=.)")
_POINTING = re.compile(
    r"\b(?:this|these|(?:mentioned|described) (?:above|here|in the)|(?:the|that|given|following|above) (?:text|"
    r"passage|snippet|paragraph|excerpt|piece|document|article|section|sentence|context))\b",
    re.IGNORECASE,
)
_PRONOUN = re.compile(r"\b(?:he|she|it|they|him|her|them|his|hers|its|their)\b", re.IGNORECASE)
# Words that begin a question with a capital letter and are no names.
_OPENERS = frozenset(
    words(
        "what who whom whose when where which why how is are was were do does did has have had can could will would "
        "should in on at of to by for from with within into under over after before during since until as about "
        "according name the a an and or if"
    )
)
_JOINING = frozenset(words("of the de da do di du del la le van von der den bin ibn al"))
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")


def parse_pairs(text: str, cut_off: bool) -> tuple[list[tuple[str, str]], Counter[str]]:
    """Questions and answers from lines `Q: ...`, `A: ...`, and a count of what is not of this form.

    Args:
        cut_off: the text ends at its limit of tokens, so that its last line is not whole.
    """
    pairs: list[tuple[str, str]] = []
    dropped: Counter[str] = Counter()
    asked = ""
    strayed = False
    lines = [line for line in map(str.strip, text.splitlines()) if line]
    if cut_off and lines:
        lines.pop()
        dropped["cut off"] += 1
    for line in lines:
        question, answer = _QUESTION.fullmatch(line), _ANSWER.fullmatch(line)
        fits = bool(question and not asked) or bool(answer and asked)
        if answer and asked:
            pairs.append((asked, answer[1]))
        if not fits and not strayed:
            dropped["not in the form Q: A:"] += 1
        strayed = not (fits or question)
        asked = question[1] if question else ""
    if asked and not cut_off:
        dropped["not in the form Q: A:"] += 1
    if not pairs and not dropped:
        dropped["nothing written"] += 1
    return pairs, dropped


def sound(question: str, answer: str, snippet: Snippet, kept: Sequence[Question]) -> Question | str:
    """The question, if the snippet answers it and it can be asked without the snippet; else why not.

    Args:
        kept: questions about the same snippet, which it must not repeat.
    """
    question, answer = " ".join(question.split()), bare_answer(answer)
    asked, told, said = (_words(text) for text in (question, snippet.text, _ARTICLE.sub("", answer.casefold())))
    entity = entity_of(question, snippet.text)
    checks = {
        "broken text": not is_unicode(question + answer),
        "question too long": len(question) > MAX_QUESTION_CHARS,
        "no question mark": not question.endswith(_QUESTION_MARKS),
        "empty answer": not said.strip(),
        "answer too long": len(said.split()) > MAX_ANSWER_WORDS,
        "answer not in the snippet": said not in told,
        "answer in the question": said in asked,
        "not self-contained": not _stands_alone(question),
        "duplicate": any(_words(other.question) == asked for other in kept),
    }
    if reason := next((name for name, is_so in checks.items() if is_so), None):
        return reason
    return Question(question, (answer,), entity or question, "", snippet.text, snippet.where)


def bare_answer(answer: str) -> str:
    """Without quotes around it and without a full stop that ends no abbreviation."""
    answer = " ".join(answer.split())
    if len(answer) > 2 and answer[0] + answer[-1] in ('""', "\u201c\u201d", "''", "``", "**"):
        answer = answer[1:-1]
    return answer[:-1] if answer.endswith(".") and answer.count(".") == 1 else answer


def entity_of(question: str, snippet: str) -> str:
    """The longest name (capitalised words) of the question that the snippet has too, else number, else ""."""
    told = f" {' '.join(words(snippet))} "
    names = [name for run in _runs(question) for name in _inside(run, question, told)]
    numbers = [number for number in _NUMBER.findall(question) if number in _NUMBER.findall(snippet)]
    return max(names or numbers, key=len, default="")


def _words(text: str) -> str:
    """Folded words with a space on each side, so that `in` compares whole words."""
    return f" {' '.join(words(fold(text)))} "


Run = list[re.Match[str]]


def _runs(question: str) -> list[Run]:
    """Capitalised words next to each other, with numbers and short words that join them."""
    runs: list[Run] = []
    end = -1
    for index, word in enumerate(WORD.finditer(question)):
        opens = index == 0 and word[0].casefold() in _OPENERS
        follows = bool(runs) and end >= 0 and question[end : word.start()].strip(" -.'\u2019&") == ""
        capital = word[0][0].isupper() and not opens
        joins = follows and (word[0] in _JOINING or word[0].isdigit())
        if capital and not follows:
            runs.append([])
        if capital or joins:
            runs[-1].append(word)
        end = word.end() if capital or joins else -1
    return runs


def _inside(run: Run, question: str, told: str) -> list[str]:
    """Parts of a run, beginning with a capital and ending with no joining word, that the snippet has word by word."""
    found = []
    for first in range(len(run)):
        for last in range(first, len(run)):
            name = " ".join(word[0] for word in run[first : last + 1])
            whole = run[first][0][0].isupper() and run[last][0] not in _JOINING and len(name) > 1
            if whole and f" {name} " in told:
                found.append(question[run[first].start() : run[last].end()])
    return found


def _stands_alone(question: str) -> bool:
    """No word that points at the text, and no pronoun before the first name."""
    if _POINTING.search(question):
        return False
    pronoun, runs = _PRONOUN.search(question), _runs(question)
    return pronoun is None or (bool(runs) and runs[0][0].start() < pronoun.start())
