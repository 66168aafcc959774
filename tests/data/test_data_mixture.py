"""Mixing: rejects, repeats, slices, num_rows, fractions, order."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import datasets
import pytest
from helpers_data import write_rows
from hypothesis import given
from hypothesis import strategies as st

from llmkit.data import sources
from llmkit.data.mixture import Mixture, mix, mixture_sizes
from llmkit.errors import DataError
from llmkit.recipe.parts import DataSource


def texts(folder: Path, name: str, num: int) -> str:
    return str(write_rows(folder / f"{name}.jsonl", [{"text": f"{name}{i}"} for i in range(num)]))


def mixed(tmp_path: Path, *wanted: dict[str, Any], seed: int = 0, **options: Any) -> Mixture:
    return mix([DataSource(**s) for s in wanted], seed=seed, folder=tmp_path, data_stages={}, **options)


def rows(mixture: Mixture) -> list[str]:
    return [placed.row["text"] for placed in mixture]


def test_all_rows_in_an_order_that_the_seed_decides(tmp_path: Path) -> None:
    wanted = [{"path": texts(tmp_path, name, 50)} for name in "ab"]
    first, again, other = (mixed(tmp_path, *wanted, seed=seed) for seed in (0, 0, 1))
    assert sorted(rows(first)) == sorted(f"{name}{i}" for name in "ab" for i in range(50))
    assert rows(first) == rows(again) and first.sha256 == again.sha256
    assert rows(first) != rows(other) and first.sha256 != other.sha256
    assert {text[0] for text in rows(first)[:10]} == {"a", "b"}
    assert all(placed.where.endswith(f":{int(placed.row['text'][1:]) + 1}") for placed in first)


def test_repeats_are_dropped_and_counted(tmp_path: Path) -> None:
    path = str(write_rows(tmp_path / "a.jsonl", [{"text": f"{i % 4}"} for i in range(10)]))
    (counted,) = mixed(tmp_path, {"path": path}).counts
    assert (counted.num_read, counted.num_duplicates, counted.num_used) == (10, 6, 4)
    (counted,) = mixed(tmp_path, {"path": path}, dedup=False).counts
    assert (counted.num_read, counted.num_duplicates, counted.num_used) == (10, 0, 10)


def test_num_rows_takes_a_seeded_sample(tmp_path: Path) -> None:
    path = texts(tmp_path, "a", 100)
    one, two = (set(rows(mixed(tmp_path, {"path": path, "num_rows": 30}, seed=seed))) for seed in (0, 1))
    assert len(one) == len(two) == 30 and one != two
    assert one != {f"a{i}" for i in range(30)}
    with pytest.raises(DataError, match="'num_rows' is 101, but there are 100 good rows; set it to 100 or less"):
        mixed(tmp_path, {"path": path, "num_rows": 101})


def test_slices_of_one_file_are_disjoint_and_whole(tmp_path: Path) -> None:
    path = str(write_rows(tmp_path / "a.jsonl", [{"text": f"{i % 50}"} for i in range(90)]))
    front, back = (set(rows(mixed(tmp_path, {"path": path, "split": s}))) for s in ("train[:90%]", "train[90%:]"))
    assert len(front) == 45 and len(back) == 5
    assert not front & back
    for split in ("test", "train[5:5]", "nonsense["):
        with pytest.raises(DataError, match="split"):
            mixed(tmp_path, {"path": path, "split": split})


def test_bad_rows_are_written_with_file_line_and_reason(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"text": str(i)} for i in range(8)] + ['{"text"', {"text": ""}])
    rejected = tmp_path / "out" / "rejected.jsonl"
    mixture = mixed(tmp_path, {"path": str(path)}, max_rejected=0.2, rejected_file=rejected)
    (counted,) = mixture.counts
    assert (counted.num_read, counted.num_rejected, counted.num_used) == (10, 2, 8)
    assert mixture.rejected_file == str(rejected)
    lines = [json.loads(line) for line in rejected.read_text().splitlines()]
    assert [(line["source"], line["file"], line["line"]) for line in lines] == [
        (str(path), str(path), n) for n in (9, 10)
    ]
    assert lines[0]["reason"].startswith("broken JSON") and lines[0]["row"] == '{"text"'
    assert lines[1]["reason"] == "text is empty" and lines[1]["row"] == '{"text": ""}'


def test_too_many_bad_rows_stop_with_the_first_three(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"text": str(i)} for i in range(95)] + [{"text": 1}] * 5)
    with pytest.raises(DataError) as caught:
        mixed(tmp_path, {"path": str(path)}, max_rejected=0.04)
    message = str(caught.value)
    assert message.startswith(f"{path}: 5 of 100 rows are bad (5.0%, allowed 4.0%): ")
    assert [f"{path}:{line}: text is int, not text" in message for line in (96, 97, 98, 99)] == [True] * 3 + [False]
    assert "'max_rejected'" in message
    mixed(tmp_path, {"path": str(path)}, max_rejected=0.05)


def test_a_small_broken_source_is_not_hidden_by_a_large_one(tmp_path: Path) -> None:
    bad = write_rows(tmp_path / "bad.jsonl", [{"text": "x"}, {"text": 1}])
    with pytest.raises(DataError, match=r"bad\.jsonl: 1 of 2 rows"):
        mixed(tmp_path, {"path": texts(tmp_path, "a", 1000)}, {"path": str(bad)})


def test_nothing_good_is_an_error_whatever_is_allowed(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"text": ""}] * 3)
    with pytest.raises(DataError, match="3 of 3 rows are bad"):
        mixed(tmp_path, {"path": str(path)}, max_rejected=1.0)
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(DataError, match=f"{tmp_path}/empty.jsonl: holds no rows"):
        mixed(tmp_path, {"path": str(tmp_path / "empty.jsonl")})


def test_a_lone_surrogate_is_a_bad_row(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"text": "good"}, '{"text": "\\ud800"}'])
    assert mixed(tmp_path, {"path": str(path)}, max_rejected=0.5).counts[0].num_rejected == 1


def test_unknown_columns_and_unfit_rows_are_refused(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"question": "a", "answer": "b"}])
    with pytest.raises(DataError, match=r"a.jsonl:1: the columns question, answer fit no known format"):
        mixed(tmp_path, {"path": str(path)})
    pairs = write_rows(tmp_path / "b.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "c"}])
    with pytest.raises(DataError, match="holds preference rows, and a 'sft' stage takes text or messages"):
        mixed(tmp_path, {"path": str(pairs)}, accept=("text", "messages"), stage_kind="sft")


def test_a_hopeless_source_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "llmkit_test_endless.py").write_text("def rows():\n    while True: yield {'text': 1}\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DataError, match="1000 of 1000 rows are bad"):
        mixed(tmp_path, {"path": "llmkit_test_endless:rows"})


def test_num_rows_of_a_stream_are_shuffled_and_the_rest_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless() -> Iterator[dict[str, str]]:
        yield from ({"text": str(number)} for number in count())

    monkeypatch.setattr(sources, "STREAM_BUFFER", 100)
    monkeypatch.setattr(sources, "_reach_hub", lambda path, revision: True)
    monkeypatch.setattr(sources, "_load_hub", lambda source, online: datasets.IterableDataset.from_generator(endless))
    stream = {"path": "org/rows", "streaming": True, "num_rows": 20}
    first, again, other = (set(rows(mixed(tmp_path, stream, seed=seed))) for seed in (0, 0, 1))
    assert len(first) == 20 and first == again != other
    assert max(map(int, first)) > 20


def test_fractions_hold_and_no_row_is_used_twice(tmp_path: Path) -> None:
    wanted = [
        {"path": texts(tmp_path, "a", 400), "fraction": 0.5},
        {"path": texts(tmp_path, "b", 100)},
        {"path": texts(tmp_path, "c", 200)},
    ]
    mixture = mixed(tmp_path, *wanted)
    assert [c.num_used for c in mixture.counts] == [300, 100, 200]
    assert len(set(rows(mixture))) == len(mixture) == 600


def test_training_sees_no_question_that_a_probe_holds_out(tmp_path: Path) -> None:
    (data := tmp_path / "probe" / "data").mkdir(parents=True)
    sides = [{"text": f"question {n}", "split": "heldout" if n % 3 == 0 else "train"} for n in range(30)]
    (data / "probe.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sides))
    (data / "heldout.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sides if row["split"] == "heldout"))

    def read(**source: str) -> set[str]:
        stages = {"probe": tmp_path / "probe"}
        return {raw.value["text"] for raw in sources.read_source(DataSource(**{"from": "probe"}, **source), stages, 0)}

    train, held = ({row["text"] for row in sides if row["split"] == side} for side in ("train", "heldout"))
    assert read() == read(name="probe") == train
    assert read(name="heldout") == held


def test_the_hash_is_of_the_rows_used_in_order(tmp_path: Path) -> None:
    path = texts(tmp_path, "a", 100)
    (some,) = mixed(tmp_path, {"path": path, "num_rows": 30}).counts
    (same,) = mixed(tmp_path, {"path": path, "num_rows": 30}).counts
    (more,) = mixed(tmp_path, {"path": path, "num_rows": 31}).counts
    assert some.sha256 == same.sha256 != more.sha256


PARTS = st.lists(st.tuples(st.integers(1, 10_000), st.none() | st.integers(1, 30)), min_size=1, max_size=6)


@given(PARTS)
def test_mixture_sizes_is_the_largest_mixture_without_repeats(parts: list[tuple[int, int | None]]) -> None:
    available = [num for num, _ in parts]
    weights = [weight for _, weight in parts]
    total_weight = sum(weight or 0 for weight in weights) + (10 if None in weights else 0)
    fractions = [weight / total_weight if weight else None for weight in weights]
    sizes = mixture_sizes(available, fractions)
    assert all(0 <= size <= num for size, num in zip(sizes, available, strict=True))
    if all(fraction is None for fraction in fractions):
        assert sizes == available
        return
    total = sum(sizes)
    for size, fraction in zip(sizes, fractions, strict=True):
        assert fraction is None or abs(size - fraction * total) <= 1
    rest = [(size, num) for size, num, f in zip(sizes, available, fractions, strict=True) if f is None]
    for size, num in rest:
        assert abs(size - num * sum(s for s, _ in rest) / sum(n for _, n in rest)) <= 2
    left = 1 - sum(fraction or 0 for fraction in fractions)
    larger = total + 1
    needed = [larger * f for f in fractions if f is not None] + ([larger * left] if rest else [])
    have = [num for num, f in zip(available, fractions, strict=True) if f is not None] + (
        [sum(num for _, num in rest)] if rest else []
    )
    assert any(need > num - 1e-6 for need, num in zip(needed, have, strict=True))
