"""The chat page in a real browser: streams, tools, hostile text, keys, a phone, what goes wrong."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from helpers_serve_page import ScriptedHost, called, page_of, text, thought, unreadable

HOSTILE = "<script>window.__x = 1</script><img src=x onerror='window.__x = 2'></div>\u202eabc\x1b[31m"


class Window:
    """The page and all that it should not say."""

    def __init__(self, browser: Any, url: str, width: int = 1100, **options: Any) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 760}, **options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(30_000)
        self.said: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.goto(url)
        self.page.locator("#about:not(:empty), #alert:not([hidden])").first.wait_for(state="attached")

    def ask(self, words: str, *, waits: bool = True) -> None:
        self.page.fill("#text", words)
        self.page.keyboard.press("Enter")
        if waits:
            self.page.wait_for_selector("#send:not([hidden])")

    def texts(self, selector: str) -> list[str]:
        return [each for each in self.page.locator(selector).all_inner_texts() if each]


@pytest.fixture
def host() -> ScriptedHost:
    return ScriptedHost()


@pytest.fixture
def url(host: ScriptedHost, browser: Any) -> Iterator[str]:
    with page_of(host) as url:
        yield url
        for context in browser.contexts:
            context.close()


def test_a_conversation_by_keys_alone(browser: Any, host: ScriptedHost, url: str) -> None:
    window = Window(browser, url)
    page = window.page
    assert page.evaluate("document.activeElement.id") == "text" and "search, python" in page.inner_text("#about")
    page.keyboard.type("First line")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("second")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=12 tokens")
    assert window.texts(".user .said") == ["First line\nsecond"] and window.texts(".assistant .said") == ["Hello."]
    window.ask("Again")
    assert host.asked[1].prompt == [
        {"role": "user", "content": "First line\nsecond"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Again"},
    ]
    page.keyboard.press("Control+Shift+O")
    assert window.texts(".turn") == [] and page.is_visible("#empty")
    window.ask("Anew")
    assert len(host.asked[2].prompt) == 1 and window.said == []


def test_answers_of_vllm_are_shown_whole(browser: Any, host: ScriptedHost, url: str) -> None:
    """Its usage has no details, and newer versions call reasoning `reasoning`."""
    head = {"id": "a", "object": "chat.completion.chunk", "created": 0, "model": host.name}
    deltas = [
        {"role": "assistant", "content": ""},
        {"reasoning": "2 and 3"},
        {"reasoning": " make 5"},
        {"content": "5."},
    ]
    chunks = [head | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append(head | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": None})
    usage = {"prompt_tokens": 9, "total_tokens": 16, "completion_tokens": 7, "prompt_tokens_details": None}
    chunks.append(head | {"choices": [], "usage": usage})
    body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    window = Window(browser, url)
    window.page.route(
        "**/v1/chat/completions", lambda route: route.fulfill(body=body, content_type="text/event-stream")
    )
    window.ask("2+3?")
    assert window.texts(".assistant > .said") == ["5."] and window.texts(".note") == ["7 tokens"]
    assert window.page.locator(".thought .said").text_content() == "2 and 3 make 5"
    assert not window.said


def test_settings_reach_the_request(browser: Any, host: ScriptedHost, url: str) -> None:
    window = Window(browser, url)
    window.page.click("#show-settings")
    window.page.fill("#system", "Be a pirate.")
    window.page.fill("#temperature", "0.7")
    window.page.fill("#max-tokens", "50")
    window.page.uncheck("#tools")
    window.ask("Hello")
    asked = host.asked[0]
    assert asked.prompt[0] == {"role": "system", "content": "Be a pirate."}
    assert (asked.sampling, asked.max_tokens, asked.own_tools) == ({"temperature": 0.7}, 50, False)


def test_tools_and_reasoning_are_folded_and_come_back(browser: Any, host: ScriptedHost, url: str) -> None:
    arguments = json.dumps({"code": "print(2 + 3)"})
    host.reply = lambda wanted: [
        *thought("2 and ", "3"),
        *text("I compute."),
        *called("python", arguments, "5"),
        *text("\n\nIt is 5."),
    ]
    window = Window(browser, url)
    window.ask("What is 2 plus 3?")
    assert window.texts(".assistant > .said") == ["I compute.", "It is 5."]
    assert window.texts("details.call > summary") == ["python print(2 + 3) \u2192 5"]
    assert not window.page.is_visible("details pre") and not window.page.is_visible(".thought .said")
    window.page.locator("details.call > summary").focus()
    window.page.keyboard.press("Enter")
    assert window.texts("details pre") == ["print(2 + 3)", "5"] and window.texts("details .label") == ["result, 0.02 s"]
    window.page.click(".thought summary")
    assert window.texts(".thought .said") == ["2 and 3"]
    window.ask("Sure?")
    roles = [message["role"] for message in host.asked[1].prompt]
    assert roles == ["user", "assistant", "tool", "assistant", "user"]
    assert host.asked[1].prompt[1]["tool_calls"][0]["function"]["arguments"] == {"code": "print(2 + 3)"}
    assert host.asked[1].prompt[3]["content"] == "It is 5."


def test_a_call_that_cannot_be_read_ends_no_conversation(browser: Any, host: ScriptedHost, url: str) -> None:
    host.reply = lambda wanted: [*unreadable("<tool_call>{no", "it cannot be read"), *text("I see.")]
    window = Window(browser, url)
    window.ask("What is 2 plus 3?")
    assert window.texts("details.call > summary") == ["A call that could not be read failed: it cannot be read"]
    window.ask("And now?")
    assert window.texts(".assistant > .said") == ["I see."] * 2 and not window.page.is_visible("#alert")
    assert [message["role"] for message in host.asked[1].prompt] == ["user", "assistant", "tool", "assistant", "user"]


def test_nothing_that_is_written_runs(browser: Any, host: ScriptedHost, url: str) -> None:
    host.reply = lambda wanted: [
        *thought(HOSTILE),
        *called(HOSTILE, json.dumps({"q": HOSTILE}), HOSTILE, failed=True),
        *text(HOSTILE),
    ]
    window = Window(browser, url)
    window.ask(HOSTILE)
    assert window.page.evaluate("window.__x") is None and window.page.locator("main img, main script").count() == 0
    shown = window.texts(".assistant > .said")[0]
    assert shown == "<script>window.__x = 1</script><img src=x onerror='window.__x = 2'></div>\ufffdabc\u241b[31m"
    assert "failed: <script>" in window.texts("details.call > summary")[0] and window.said == []


def test_stop_keeps_what_was_written(browser: Any, host: ScriptedHost, url: str) -> None:
    host.reply = lambda wanted: (
        text("One ") + [0.05] * 2 + ([*text("more "), 0.05] * 400 if len(wanted.prompt) == 1 else [])
    )
    window = Window(browser, url)
    window.ask("Count", waits=False)
    window.page.wait_for_selector(".said:has-text('more more')")
    assert window.page.is_visible("#stop") and not window.page.is_visible("#send")
    window.page.keyboard.press("Escape")
    window.page.wait_for_selector("#send:not([hidden])")
    assert host.left.wait(10) and window.texts(".note") == ["stopped"]
    window.ask("And?")
    assert host.asked[1].prompt[1]["content"].startswith("One more more")


def test_stop_in_a_call_leaves_no_call_without_a_result(browser: Any, host: ScriptedHost, url: str) -> None:
    begun = called("python", "{}", "5")[:1]
    host.reply = lambda wanted: [*begun, *[0.05] * 400] if len(wanted.prompt) == 1 else text("Fine.")
    window = Window(browser, url)
    window.ask("Compute", waits=False)
    window.page.wait_for_selector("details.call")
    window.page.keyboard.press("Escape")
    window.page.wait_for_selector("#send:not([hidden])")
    window.ask("Never mind")
    assert [message["role"] for message in host.asked[1].prompt] == ["user", "assistant", "tool", "user"]
    assert host.asked[1].prompt[2]["content"] == "not called: stopped before"


def test_more_calls_than_are_made_are_said(browser: Any, host: ScriptedHost, url: str) -> None:
    host.wants_calls, host.reply = True, lambda wanted: called("python", "{}", "5")
    window = Window(browser, url)
    window.ask("Compute")
    assert window.texts(".note") == ["12 tokens, it wants more calls than the server makes"]


def test_a_refusal_gives_the_text_back(browser: Any, host: ScriptedHost, url: str) -> None:
    window = Window(browser, url)
    window.ask("This is too long")
    assert "your prompt has 3000" in window.page.inner_text("#alert")
    assert window.page.input_value("#text") == "This is too long" and window.texts(".turn") == []
    window.ask("Short")
    assert host.asked[1].prompt == [{"role": "user", "content": "Short"}] and not window.page.is_visible("#alert")


def test_a_server_that_is_gone_is_said(browser: Any, host: ScriptedHost) -> None:
    with page_of(host) as url:
        window = Window(browser, url)
    window.ask("Anyone?")
    assert window.page.inner_text("#alert") == "The server cannot be reached."
    assert window.page.input_value("#text") == "Anyone?"
    window.context.close()


def test_a_key_is_asked_for_and_kept_for_the_window(browser: Any, host: ScriptedHost) -> None:
    with page_of(host, key="secret") as url:
        window = Window(browser, url)
        assert "Incorrect API key" in window.page.inner_text("#alert")
        window.page.fill("#key", "secret")
        window.page.keyboard.press("Tab")
        window.page.locator("#about:not(:empty)").wait_for(state="attached")
        window.page.reload()
        window.page.locator("#about:not(:empty)").wait_for(state="attached")
        window.ask("Hello")
        assert window.texts(".assistant .said") == ["Hello."]
        window.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone(browser: Any, host: ScriptedHost, url: str, scheme: str) -> None:
    long = "Supercalifragilistic" * 20
    host.reply = lambda wanted: [*called("python", json.dumps({"code": long}), long), *text(long), *text("\nline" * 60)]
    window = Window(browser, url, 360, color_scheme=scheme, has_touch=True)
    window.page.fill("#text", "Hello")
    window.page.tap("#send")
    window.page.wait_for_selector("text=12 tokens")
    window.page.tap("details.call summary")
    assert window.page.evaluate("document.documentElement.scrollWidth") <= 360
    send = window.page.locator("#send").bounding_box()
    assert send["height"] >= 38 and send["y"] + send["height"] <= 760  # in view, however long the talk
    colours = "getComputedStyle(document.body).backgroundColor"
    assert (window.page.evaluate(colours) == "rgb(253, 253, 251)") is (scheme == "light")


def test_the_page_may_run_nothing_else(url: str) -> None:
    import httpx2

    answer = httpx2.get(url)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert answer.text.count("<script>") == 1 and "http" not in answer.text


def test_two_windows_are_answered_at_once(browser: Any, host: ScriptedHost, url: str) -> None:
    both = threading.Barrier(2, timeout=20)

    def reply(wanted: Any) -> Any:
        both.wait()
        return text("Here.")

    host.reply = reply
    windows = [Window(browser, url), Window(browser, url)]
    for window in windows:
        window.ask("Hello", waits=False)
    for window in windows:
        window.page.wait_for_selector("text=12 tokens")
