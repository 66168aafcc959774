"""The split by entity: shares, stability, spellings."""

from __future__ import annotations

import pytest

from llmkit.knowledge.split import entity_key, fold, is_unicode, split_of, words

NAMES = [f"Person {index}" for index in range(5000)]


@pytest.mark.parametrize("heldout", [0.0, 0.2, 0.5, 1.0])
def test_the_share_is_met(heldout: float) -> None:
    share = sum(split_of(name, heldout, 7) == "heldout" for name in NAMES) / len(NAMES)
    assert abs(share - heldout) < 0.02


def test_it_is_a_function_of_name_and_seed_and_grows_with_the_share() -> None:
    sides = [split_of(name, 0.2, 7) for name in NAMES]
    assert sides == [split_of(name, 0.2, 7) for name in NAMES]
    assert sides != [split_of(name, 0.2, 8) for name in NAMES]
    assert all(
        split_of(name, 0.4, 7) == "heldout" for name, side in zip(NAMES, sides, strict=True) if side == "heldout"
    )
    # A recipe that ran once must split the same for ever after.
    assert [split_of(name, 0.5, 0) for name in ("Paris", "Mont Blanc", "Ida Falkberg", "1986")] == PINNED


PINNED = ["heldout", "heldout", "train", "heldout"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("São Paulo", "sao  paulo"),
        ("São Paulo", "Sa\u0303o Paulo"),
        ("ŁÓDŹ", "Lodz"),
        ("Straße", "STRASSE"),
        ("St. John's", "St Johns"),
        ("Jean-Luc Godard", "Jean Luc Godard"),
        ("\uff21\uff22\uff23", "abc"),
        ("\u0130zmir", "izmir"),
        ("Anna Berg", "“Anna Berg”"),
    ],
)
def test_spellings_of_one_name_fall_together(one: str, other: str) -> None:
    assert entity_key(one) == entity_key(other)
    assert {split_of(one, 0.5, seed) == split_of(other, 0.5, seed) for seed in range(20)} == {True}


def test_names_stay_apart() -> None:
    assert (
        len({entity_key(name) for name in ("Ida Berg", "Ida Borg", "Ida Berg II", "Ида", "東京", "京都", "!!!", "???")})
        == 8
    )


def test_hostile_names_do_not_stop_it() -> None:
    for name in ("", "\ud800", "a\x00b", "\n", "x" * 100_000):
        assert split_of(name, 1.0, 0) == "heldout"


def test_words_of_many_scripts() -> None:
    assert words(fold("It's 3.5 km — Ærø!")) == ["it", "s", "3", "5", "km", "aero"]
    assert words("巴黎是abc首都") == ["巴", "黎", "是", "abc", "首", "都"]
    assert is_unicode("東京 ok") and not is_unicode("a\udc80")
