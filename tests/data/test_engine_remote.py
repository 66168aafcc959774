"""The OpenAI-compatible engine against a server on this machine."""

from __future__ import annotations

import builtins
import logging
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace

import pytest
from fake_openai import (
    BROKEN_JSON,
    DROPPED,
    NO_CHOICES,
    NULL_CONTENT,
    REFUSAL,
    RUBBISH,
    FakeOpenAI,
    Reply,
    refused,
)

from llmkit.chat.ask import Answer, Ask
from llmkit.errors import UserError
from llmkit.generation import remote
from llmkit.generation.endpoint import Failed
from llmkit.generation.remote import OpenAIEngine

KEY = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(remote, "FIRST_PAUSE", 0.01)


def engine(fake: FakeOpenAI, **options) -> OpenAIEngine:
    return OpenAIEngine("judge", fake.base_url, **{"max_retries": 3, "timeout": 5.0, **options})


def user(text: str, **options) -> Ask:
    return Ask(({"role": "user", "content": text},), key=text, **options)


def first(fake: FakeOpenAI, asks: list[Ask] | None = None, **options) -> Answer:
    return next(engine(fake, **options).answer(asks or [user("hi")], max_new_tokens=8))[0]


def test_messages_are_answered_as_often_as_asked_in_one_request_per_temperature():
    with FakeOpenAI() as fake:
        ask = user("hi", temperatures=(0.0, 0.7, 0.7, 0.7))
        [answers] = engine(fake).answer([ask], max_new_tokens=8, top_p=0.9, stop_strings=["\n"], seed=5)
    assert [answer.text for answer in answers] == ["HI"] * 4
    assert answers[0] == Answer("HI", "stop", None, 3)
    assert [(r["n"], r["temperature"]) for r in fake.requests] == [(1, 0.0), (3, 0.7)]
    body = fake.requests[0]
    assert (body["model"], body["max_tokens"], body["top_p"], body["stop"]) == ("judge", 8, 0.9, ["\n"])
    assert body["messages"] == [{"role": "user", "content": "hi"}]
    assert fake.requests[0]["seed"] != fake.requests[1]["seed"]


def test_plain_text_goes_to_completions():
    with FakeOpenAI() as fake:
        answer = first(fake, [Ask("once upon", key="a")])
    assert (answer.text, fake.paths) == ("ONCE UPON", ["/v1/completions"])


def test_answers_keep_their_order_and_requests_their_bound():
    def slow_start(body):
        time.sleep(0.1 if body["messages"][-1]["content"] in ("0", "4") else 0.01)
        return body["messages"][-1]["content"]

    seen = []
    with FakeOpenAI(slow_start) as fake:
        asks = [user(str(number)) for number in range(20)]
        made = engine(fake, concurrency=3, on_progress=lambda *at: seen.append(at)).answer(asks, max_new_tokens=8)
        assert [answers[0].text for answers in made] == [str(number) for number in range(20)]
    assert 2 <= fake.most_at_once <= 3
    assert seen == [(number, 20) for number in range(1, 21)]


def test_a_million_asks_are_not_sent_ahead():
    class Many:
        read = 0

        def __len__(self) -> int:
            return 10**6

        def __getitem__(self, place: int) -> Ask:
            self.read = max(self.read, place)
            return user(str(place))

    many = Many()
    with FakeOpenAI() as fake:
        answers = engine(fake, concurrency=2).answer(many, max_new_tokens=8)
        assert [next(answers)[0].text for _ in range(3)] == ["0", "1", "2"]
        answers.close()
    assert many.read < 10


@pytest.mark.parametrize(
    "reply",
    [
        refused(408),
        refused(409),
        refused(429),
        refused(500),
        refused(503),
        DROPPED,
        NO_CHOICES,
        NULL_CONTENT,
        REFUSAL,
        RUBBISH,
        BROKEN_JSON,
        Reply(body="[]", headers={"Content-Type": "application/json"}),
        Reply(body={"choices": ["x"]}),
        Reply(body={"choices": [{"message": "x"}]}),
        Reply(body="[" * 100_000),
    ],
)
def test_what_fails_is_tried_again_and_then_an_error(reply):
    with FakeOpenAI(script=[reply, reply]) as fake:
        assert first(fake).text == "HI"
        assert len(fake.requests) == 3
    with FakeOpenAI(always=reply) as fake:
        answer = first(fake)
        assert len(fake.requests) == 4
    assert (answer.finish_reason, answer.text) == ("error", "")
    assert "4 of 4 tries" in answer.error


def test_one_failed_ask_does_not_touch_its_neighbours():
    def answer(body):
        return body["messages"][-1]["content"]

    with FakeOpenAI(answer, script=[refused(400, "too long")]) as fake:
        made = list(engine(fake, concurrency=1).answer([user("a"), user("b")], max_new_tokens=8))
        assert len(fake.requests) == 2
    assert made[0][0].error == "HTTP 400: too long (1 of 4 tries)"
    assert made[1][0].text == "b"


def test_pauses_double_up_to_a_bound_and_retry_after_is_kept(monkeypatch):
    monkeypatch.setattr(remote, "FIRST_PAUSE", 0.5)
    pauses: list[float] = []
    ended = SimpleNamespace(wait=lambda seconds: pauses.append(seconds))
    tries = remote._Tries(9, ended)
    while tries.again(Failed("no")):
        pass
    assert len(pauses) == 8
    for pause, whole in zip(pauses, [0.5, 1, 2, 4, 8, 16, 30, 30], strict=True):
        assert 0.75 * whole <= pause <= whole
    assert len(set(pauses[-2:])) == 2
    assert remote._Tries(9, ended).again(Failed("no", retry_after=7.0))
    assert pauses[-1] == 7.0
    assert not remote._Tries(9, ended).again(Failed("no", retry_after=86400.0))
    assert not remote._Tries(9, ended).again(Failed("no", can_retry=False))


def test_retry_after_of_a_reply_is_kept():
    with FakeOpenAI(script=[refused(429, Retry_After="0.6")]) as fake:
        assert first(fake).text == "HI"
    assert fake.times[1] - fake.times[0] >= 0.6
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=86400), usegmt=True)
    for value in ("86400", later):
        with FakeOpenAI(always=refused(429, Retry_After=value)) as fake:
            assert first(fake).finish_reason == "error"
        assert len(fake.requests) == 1
    with FakeOpenAI(script=[refused(429, Retry_After="soon")]) as fake:
        assert first(fake).text == "HI"


@pytest.mark.parametrize("reply", [Reply(delay=3.0), Reply(drip=0.02)], ids=["silent", "dripping"])
def test_a_request_ends_in_time(reply):
    with FakeOpenAI(always=reply) as fake:
        answer = first(fake, timeout=0.3, max_retries=1)
        assert len(fake.requests) == 2
    assert answer.finish_reason == "error"
    assert "within 0.3 s" in answer.error


def test_an_endpoint_that_is_not_there_is_an_error_answer():
    with FakeOpenAI() as fake:
        gone = fake.base_url
    [[answer]] = OpenAIEngine("judge", gone, max_retries=1).answer([user("hi")], max_new_tokens=8)
    assert answer.finish_reason == "error"
    assert "cannot reach 127.0.0.1" in answer.error


def test_missing_choices_are_asked_for_again_with_another_seed():
    with FakeOpenAI(script=[Reply(texts=("a",)), Reply(texts=("b", "c"))]) as fake:
        [answers] = engine(fake).answer([user("hi", temperatures=(0.7, 0.7, 0.7))], max_new_tokens=8)
    assert [answer.text for answer in answers] == ["a", "b", "c"]
    assert [request["n"] for request in fake.requests] == [3, 2]
    assert fake.requests[0]["seed"] != fake.requests[1]["seed"]


def test_text_behind_a_stop_string_is_cut():
    with FakeOpenAI(lambda body: "Paris\nQ: and") as fake:
        [[answer]] = engine(fake).answer([user("hi")], max_new_tokens=8, stop_strings=["\n"])
    assert answer.text == "Paris"


@pytest.mark.parametrize(("status", "cure"), [(401, "MY_KEY"), (403, "MY_KEY"), (404, "base_url")])
def test_a_refused_key_or_unknown_model_stops_at_once_without_the_key(status, cure, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")
    with FakeOpenAI(always=refused(status, f"bad key {KEY}")) as fake:
        made = engine(fake, api_key_env="MY_KEY", concurrency=1)
        with pytest.raises(UserError, match=cure) as caught:
            list(made.answer([user(str(number)) for number in range(50)], max_new_tokens=8))
        assert len(fake.requests) < 5
    assert fake.keys[0] == f"Bearer {KEY}"
    assert caught.value.__cause__ is None
    assert KEY not in f"{caught.value} {caught.value!r} {made!r} {caplog.text}"
    assert "***" in str(caught.value)


def test_an_error_that_repeats_the_key_does_not_bring_it_into_the_rows(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with FakeOpenAI(always=refused(400, f"what is {KEY}?")) as fake:
        answer = first(fake)
    assert "what is ***?" in answer.error


def test_a_key_is_needed_beyond_this_machine(monkeypatch):
    with pytest.raises(UserError, match="MY_KEY: the environment holds no key; export MY_KEY"):
        OpenAIEngine("m", "https://example.org/v1", api_key_env="MY_KEY")
    with pytest.raises(UserError, match="OPENAI_API_KEY"):
        OpenAIEngine("m")
    for local in ("http://localhost:8000/v1", "http://127.0.0.2/v1", "http://[::1]:80/v1"):
        OpenAIEngine("m", local)
    for elsewhere in ("http://127.0.0.1.example.org/v1", "http://localhost.example.org/v1", "http://[::2]:80/v1"):
        with pytest.raises(UserError, match="OPENAI_API_KEY"):
            OpenAIEngine("m", elsewhere)
    monkeypatch.setenv("MY_KEY", "two words é")
    with pytest.raises(UserError, match="characters that no key has") as caught:
        OpenAIEngine("m", "https://example.org/v1", api_key_env="MY_KEY")
    assert "two words" not in str(caught.value)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x/v1", "http://", "http://x:port/v1", "/v1"])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(UserError, match="base_url: is no address"):
        OpenAIEngine("m", url)


def test_the_address_may_come_from_the_environment(monkeypatch):
    with FakeOpenAI() as fake:
        monkeypatch.setenv("OPENAI_BASE_URL", fake.base_url)
        [[answer]] = OpenAIEngine("m").answer([user("hi")], max_new_tokens=8)
    assert answer.text == "HI"


def test_without_the_client_the_cure_is_named(monkeypatch):
    imported = builtins.__import__

    def without(name, *rest, **options):
        if name == "openai":
            raise ImportError(name)
        return imported(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"pip install llmkit\[openai\]"):
        OpenAIEngine("m", "http://localhost/v1")


def test_leaving_early_does_not_wait_for_pauses(monkeypatch):
    monkeypatch.setattr(remote, "FIRST_PAUSE", 20.0)
    with FakeOpenAI(script=[Reply(), *[refused(503)] * 9]) as fake:
        answers = engine(fake, concurrency=1).answer([user(str(number)) for number in range(9)], max_new_tokens=8)
        assert next(answers)[0].text == "0"
        workers = [thread for thread in threading.enumerate() if thread.name.startswith("llmkit-openai")]
        assert workers
        answers.close()
        for thread in workers:
            thread.join(timeout=10)
            assert not thread.is_alive()
