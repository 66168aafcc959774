"""The ranking page in a real browser: keys, mouse and fingers, reloads, a killed server, two windows, hostile text."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from data.helpers_rank import ANSWERS, rollout_row, write_rollouts

from llmkit.preference.page.app import make_app
from llmkit.preference.page.serve import Address
from llmkit.preference.rankings import Decision, Undo
from llmkit.preference.rollouts import item_of
from llmkit.preference.session import Session
from llmkit.preference.store import open_store, read_events

HOSTILE = (
    "<script>window.__x = 1</script>",
    "<img src=x onerror='window.__x = 2'></div></section>",
    "[a](javascript:window.__x=3) <a href='javascript:window.__x=4'>x</a>",
    "\u202egnirts desrever\u0000 \x1b[31m " + "x" * 400,
    "word " * 200_000,
)


@pytest.fixture(autouse=True)
def close_windows(browser: Any) -> Iterator[None]:
    yield
    for context in browser.contexts:
        context.close()


class Served:
    """A page's address and what was decided on it."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url

    @property
    def decisions(self) -> list[Decision]:
        events = read_events(self.folder / "rankings.jsonl")
        undone = {event.id for event in events if isinstance(event, Undo)}
        return [event for event in events if isinstance(event, Decision) and event.id not in undone]


class Process(Served):
    """`llmkit rank` as a process of its own, which can be killed."""

    def __init__(self, folder: Path, *words: str) -> None:
        argv = [sys.executable, "-m", "llmkit.stages.rank_page", str(folder), "--no-browser", "--rater", "anna", *words]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self.process.stdout is not None
        found = re.match(r"rank at (\S+)", self.process.stdout.readline())
        assert found, self.process.stdout.read()
        super().__init__(folder, found[1])

    def end(self, how: int = signal.SIGKILL) -> str:
        self.process.send_signal(how)
        return self.process.communicate(timeout=20)[0]


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Any]:
    started: list[Process] = []

    def start(*words: str) -> Process:
        started.append(Process(tmp_path, *words))
        return started[-1]

    write_rollouts(tmp_path / "rollouts.jsonl", rows())
    yield start
    for process in started:
        if process.process.poll() is None:
            process.end()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Any]:
    """The same server in a thread: it is there at once."""
    with ExitStack() as stack:

        def start(rater: str, data: list[dict[str, Any]]) -> Served:
            listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            store = stack.enter_context(open_store(tmp_path / "rankings.jsonl"))
            session = Session([item_of(row, "") for row in data], store, seed=0, repeat=0.0)
            address = Address(listening.getsockname()[1], "t" * 43)
            app = make_app(session, address.token, address.port, rater, str(tmp_path))
            server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
            thread.start()
            stack.callback(thread.join)
            stack.callback(setattr, server, "force_exit", True)
            stack.callback(setattr, server, "should_exit", True)
            return Served(tmp_path, address.url(rater))

        yield start


class Window:
    """A page and all that it should not say."""

    def __init__(self, browser: Any, url: str, width: int = 1280, **options: Any) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 800}, reduced_motion="reduce", **options)
        self.said: list[str] = []
        self.page = self.open(url)

    def open(self, url: str) -> Any:
        page = self.context.new_page()
        page.set_default_timeout(8000)
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("dialog", lambda dialog: self.said.append(dialog.message))
        page.goto(url)
        page.wait_for_selector(".card, #results:not([hidden])")
        return page

    def press(self, keys: str) -> None:
        for key in keys.split():
            self.page.keyboard.press(key)

    def wait(self, done: int) -> None:
        """Until so many are saved."""
        pace = self.page.locator("body[aria-busy='false'] #pace", has_text=re.compile(rf"^{done} of"))
        pace.wait_for(state="attached")

    def formula(self) -> str:
        return self.page.inner_text("#formula")

    def answers(self) -> list[str]:
        return self.page.locator(".card .said").all_inner_texts()


def rows(num: int = 4) -> list[dict[str, Any]]:
    return [rollout_row(index) for index in range(num)]


def test_a_session_by_keys_alone(browser: Any, processes: Any) -> None:
    server = processes("--repeat", "0.25")
    window = Window(browser, server.url)
    shown = window.answers()
    window.press("3 1 = 2 Backspace 2 5")
    assert window.formula() == "3 > 1 > 2 > 5"
    window.press("Backspace Backspace = 2")
    assert window.formula() == "3 > 1 = 2"
    window.press("Enter")  # two are left: not complete yet
    window.press("5 Enter")
    window.wait(1)
    (first,) = server.decisions
    assert first.groups == tuple(tuple(first.shown[n] for n in group) for group in ((2,), (0, 1), (4,), (3,)))
    assert [ANSWERS[int(id[1])] for id in first.shown] == shown and first.rater == "anna"

    window.press("s")
    window.wait(2)
    window.press("f")
    window.page.keyboard.type("says 12345 of a person")  # digits are no ranks here
    window.press("Enter")
    window.wait(3)
    assert [each.outcome for each in server.decisions] == ["ranked", "skipped", "flagged"]
    assert server.decisions[2].flagged == "says 12345 of a person"

    window.press("u")
    window.wait(2)
    window.press("u")
    window.wait(1)
    window.press("u")
    window.wait(0)
    assert window.formula() == "3 > 1 = 2 > 5 > 4" and window.answers() == shown and server.decisions == []

    window.press("Enter")
    window.wait(1)
    for done in range(2, 6):
        window.press("1 2 3 4 5 Enter")
        window.wait(done)
    window.page.wait_for_selector("#results:not([hidden])")
    assert "All done, thank you" in window.page.inner_text("#finished")
    assert len(server.decisions) == 5 and [each.repeat for each in server.decisions].count(1) == 1
    row = window.page.locator("#raters tbody tr").inner_text().split()
    assert row[:4] == ["anna", "5", "of", "5"] and re.fullmatch(r"\S+,", row[-2]) and row[-1] == "1"
    assert window.said == []
    assert "anna: 5 of 5 done" in server.end(signal.SIGINT)


def middle(page: Any, selector: str) -> tuple[float, float]:
    box = page.locator(selector).bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def drag(page: Any, place: int, to: int, share: float) -> None:
    """Onto a share of another row's height: its upper edge, its middle, its lower edge."""
    page.mouse.move(*middle(page, f"#ranking li[data-place='{place - 1}'] .grip"))
    page.mouse.down()
    box = page.locator(f"#order li[data-place='{to - 1}']").bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + box["height"] * share, steps=4)
    page.mouse.up()


def test_an_order_by_mouse(browser: Any, serve: Any) -> None:
    server = serve("anna", rows())
    window = Window(browser, server.url)
    page = window.page
    for n in (1, 2, 3):
        page.click(f".card[data-place='{n - 1}'] .number")
    assert window.formula() == "1 > 2 > 3"
    for place, to, share, expected in (
        (3, 1, 0.1, "3 > 1 > 2"),
        (3, 2, 0.9, "1 > 2 > 3"),
        (3, 1, 0.5, "1 = 3 > 2"),
        (5, 2, 0.5, "1 = 3 > 2 = 5"),
        (4, 1, 0.1, "4 > 1 = 3 > 2 = 5"),
        (2, 1, 0.9, "4 > 1 = 2 = 3 > 5"),
    ):
        drag(page, place, to, share)
        assert window.formula() == expected, (place, to, share)
    page.mouse.move(*middle(page, "#order li[data-place='3'] .grip"))
    page.mouse.down()
    page.mouse.move(600, 600, steps=3)
    assert window.formula() == "1 = 2 = 3 > 5 > 4"  # what would come of it
    page.keyboard.press("Escape")
    page.mouse.up()
    assert window.formula() == "4 > 1 = 2 = 3 > 5"
    page.click("#order li[data-place='4'] [data-focus^='up']")
    page.click("#order li[data-place='2'] [data-focus^='tie']")
    page.focus("#order li[data-place='3'] [data-focus^='down']")
    page.keyboard.press("Alt+ArrowDown")
    page.click("#save")
    window.wait(1)
    (made,) = server.decisions
    assert [[made.shown.index(id) + 1 for id in group] for group in made.groups] == [[1, 4, 2, 5], [3]]
    assert window.said == []


def test_reload_kill_and_start_again(browser: Any, processes: Any) -> None:
    server = processes("--repeat", "0")
    window = Window(browser, server.url)
    window.press("1 2 3 4 5 Enter")
    window.wait(1)
    shown = window.answers()
    window.press("4 2 = 1")
    window.page.reload()
    window.page.wait_for_selector(".card")
    assert window.answers() == shown and window.formula() == "4 > 2 = 1"  # the draft as well

    server.end()
    window.press("5 Enter")
    window.page.wait_for_selector("#alert:not([hidden])")
    assert "what you decided is kept here and will be sent" in window.page.inner_text("#alert")
    window.page.close()  # the browser is closed before the server is back
    assert len(server.decisions) == 1

    again = processes("--repeat", "0")
    assert again.url == server.url
    window.page = window.open(again.url)
    window.wait(2)
    assert [len(each.groups) for each in again.decisions] == [5, 4]

    again.end()  # and an open page goes on by itself
    window.press("s")
    window.page.wait_for_selector("#alert:not([hidden])")
    third = processes("--repeat", "0")
    window.wait(3)
    assert window.page.is_hidden("#alert") and third.decisions[2].skipped
    assert all("ERR_CONNECTION_REFUSED" in each for each in window.said)


def test_two_windows_and_two_raters(browser: Any, serve: Any) -> None:
    server = serve("anna", rows(3))
    window = Window(browser, server.url)
    second = Window(browser, server.url)  # another profile: shares nothing with the first
    window.press("1 2 3 4 Enter")
    window.wait(1)
    second.press("5 4 3 2 Enter")
    second.wait(1)
    assert "decided in another window; nothing was saved twice" in second.page.inner_text("#alert")
    assert second.answers() == window.answers() and len(server.decisions) == 1
    second.press("s")
    second.wait(2)
    window.page.evaluate("window.dispatchEvent(new Event('focus'))")
    window.wait(2)
    assert "Another window has decided meanwhile" in window.page.inner_text("#alert")

    window.page.click("#rater")
    window.page.fill("#name", "  Ben ")
    window.press("Enter")
    window.wait(0)
    for done in (1, 2, 3):
        window.press("1 2 3 4 Enter")
        window.wait(done)
    window.page.reload()
    window.page.wait_for_selector("#between:not([hidden])")
    assert {each.rater for each in server.decisions} == {"anna", "Ben"}
    assert re.search(r"Ben, anna\s+\S+, 1\s+\d+ of 10", window.page.inner_text("#between"))
    assert [each for each in second.said if "409" not in each] == window.said == []


def test_hostile_answers_are_text(browser: Any, serve: Any) -> None:
    prompt = [{"role": "user", "content": HOSTILE[1]}, {"role": "<b>x", "content": HOSTILE[3]}]
    server = serve("<img src=x onerror=alert(1)>", [rollout_row(0, prompt, HOSTILE)])
    window = Window(browser, server.url)
    page = window.page
    shown = "\n".join(page.locator(".said").all_text_contents())
    for text in HOSTILE[:3]:
        assert text in shown
    assert "\ufffdgnirts desrever\u2400 \u241b[31m" in shown and "Show more: 980,000 characters are left" in shown
    assert page.evaluate("window.__x") is None and page.locator("script").count() == 1
    assert page.locator("img, a, iframe").count() == 0
    page.click("text=Show more")
    assert page.locator("text=960,000 characters are left").count() == 1
    window.press("1 2 3 4 5")
    for width in (1280, 360):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        window.press("r")
        page.wait_for_selector("#results:not([hidden])")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        window.press("r")
    assert window.said == []


def test_by_finger_on_a_phone(browser: Any, serve: Any) -> None:
    server = serve("anna", rows())
    window = Window(browser, server.url, 360, has_touch=True, is_mobile=True, color_scheme="dark")
    page = window.page
    for n in (2, 4, 1):
        page.tap(f".card[data-place='{n - 1}'] .number")
    page.locator("#rest").scroll_into_view_if_needed()
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    start, end = middle(page, "#rest li[data-place='2'] .grip"), middle(page, "#order li[data-place='3']")
    touch = page.context.new_cdp_session(page)
    for kind, points in (
        ("touchStart", [start]),
        *(("touchMove", [(start[0], start[1] + (end[1] - start[1]) * step / 4)]) for step in (1, 2, 3, 4)),
        ("touchEnd", []),
    ):
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y} for x, y in points]})
    assert window.formula() == "2 > 4 = 3 > 1"
    page.tap("#rest [data-focus^='next']")
    page.tap("#save")
    window.wait(1)
    (made,) = server.decisions
    assert [[made.shown.index(id) + 1 for id in group] for group in made.groups] == [[2], [4, 3], [1], [5]]
    assert page.evaluate("document.documentElement.scrollWidth") <= 360 and window.said == []


def test_another_site_gets_nothing(browser: Any, serve: Any) -> None:
    server = serve("anna", rows())
    port = int(re.search(r":(\d+)/", server.url)[1])
    token = re.search(r"token=([\w-]+)", server.url)[1]
    context = browser.new_context()
    page = context.new_page()
    page.route("http://evil.test/", lambda route: route.fulfill(body="<!doctype html>"))
    page.goto("http://evil.test/")
    body = json.dumps({"rater": "anna", "id": "0" * 16, "turn": "x", "skipped": True, "seconds": 1})
    for options in (
        {"method": "POST", "mode": "no-cors", "body": body},
        {"method": "POST", "headers": {"Content-Type": "application/json", "X-Llmkit-Token": token}, "body": body},
        {"headers": {"X-Llmkit-Token": token}},
    ):
        for path in ("decide", "state?rater=anna", f"?token={token}"):
            got = page.evaluate(
                "async ([url, options]) => { try { return await (await fetch(url, options)).text() }"
                " catch (error) { return '' } }",
                [f"http://127.0.0.1:{port}/{path}", options],
            )
            assert got == ""
    assert server.decisions == []


def test_keys_reach_everything_and_names_are_told(browser: Any, serve: Any) -> None:
    server = serve("anna", rows())
    window = Window(browser, server.url)
    page = window.page
    window.press("2 1")
    reached = []
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.dataset.focus || ''"))
    assert {"rater", "show-results", "show-help", "tie", "skip", "flag", "out-1", "down-1", "next-4"} <= set(reached)
    unnamed = (
        "[...document.querySelectorAll('button')].filter(b => !(b.getAttribute('aria-label') || b.textContent.trim()))"
    )
    assert page.evaluate(f"{unnamed}.length") == 0
    assert "Order: 2 > 1" in page.inner_text("#status")
    page.focus("#skip")
    page.keyboard.press("Enter")  # the button's own key, not Save
    window.wait(1)
    assert server.decisions[0].skipped
    page.click("#show-help")
    page.uncheck("#keys-on")
    page.click("#help-dialog button")
    window.press("s 1")
    assert window.formula() == "no order yet" and len(server.decisions) == 1
