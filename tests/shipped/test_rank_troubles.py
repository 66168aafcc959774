"""The ranking page in a real browser when things go wrong: kills, other programs, other windows, slow answers."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from data.helpers_rank import write_rollouts
from helpers_rank_page import Process, Window, foreign, rows


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


def test_reload_kill_and_start_again(browser: Any, processes: Any) -> None:
    server = processes("--repeat", "0")
    window = Window(browser, server.url, hurry=True)
    window.press("1 2 3 4 5 Enter")
    window.wait(1)
    shown = window.answers()
    window.press("4 2 = 1")
    window.page.reload()
    window.page.wait_for_selector(".card")
    assert window.answers() == shown and window.formula() == "4 > 2 = 1"  # the draft as well

    server.end()
    window.press("5 Enter")
    assert "what you decided is kept here and will be sent" in window.alert()
    window.page.close()  # the browser is closed before the server is back
    assert len(server.decisions) == 1

    again = processes("--repeat", "0")
    assert again.url == server.url
    window.page = window.open(again.url)
    window.wait(2)
    assert [len(each.groups) for each in again.decisions] == [5, 4]
    assert "anna: 2 of 4 done" in again.end(signal.SIGINT)
    assert all("ERR_CONNECTION_REFUSED" in each for each in window.said)


def test_whatever_else_answers_costs_no_decision(browser: Any, serve: Any) -> None:
    server = serve("anna", rows(6))
    window = Window(browser, server.url, hurry=True)
    server.stop()
    window.press("1 2 3 4 5 Enter")
    assert "The server does not answer" in window.alert()
    for status, kind, body in (
        (501, "text/html", "<h1>Unsupported method</h1>"),
        (502, "text/html", "<h1>Bad gateway</h1>"),
        (500, "text/plain", "Internal Server Error"),
        (400, "application/json", '{"error": "no"}'),
        (404, "application/json", '{"message": "no such route"}'),
        (200, "application/json", "{}"),
        (200, "text/html", "<h1>Welcome</h1>"),
    ):
        with foreign(server.port, status, kind, body):
            window.page.wait_for_selector(
                f"#alert:has-text('Something else answers in place of llmkit rank ({status}')"
            )
    server.start()  # and the open page goes on by itself
    window.wait(1)
    assert window.page.is_hidden("#alert") and len(server.decisions[0].groups) == 5
    window.press("s")
    window.wait(2)
    assert server.decisions[1].skipped


def test_two_windows_and_two_raters(browser: Any, serve: Any) -> None:
    server = serve("anna", rows(3))
    window = Window(browser, server.url)
    second = Window(browser, server.url)  # another profile: shares nothing with the first
    window.press("1 2 3 4 Enter")
    window.wait(1)
    second.press("5 4 3 2 Enter")
    second.wait(1)
    assert "decided in another window; nothing was saved twice" in second.alert()
    assert second.answers() == window.answers() and len(server.decisions) == 1
    second.press("s")
    second.wait(2)
    window.come_back()
    window.wait(2)
    assert "Another window has decided meanwhile" in window.alert()

    for each in (window, second):
        each.page.click("#rater")
        each.page.fill("#name", "  Ben   J. ")
        each.press("Enter")
        each.wait(0)
    for done in (1, 2, 3):
        window.press("1 2 3 4 Enter")
        window.wait(done)
    second.come_back()  # the name that is kept is the server's, with one blank
    second.wait(3)
    window.press("u")
    window.wait(2)
    window.press("2 2")
    window.page = window.open(server.url.replace("=anna", "=Ben%20J."))
    assert window.formula() == "1 > 3 > 4 > 5 > 2"  # and what was begun stands under it
    window.press("Enter")
    window.wait(3)
    window.page.reload()
    window.page.wait_for_selector("#between:not([hidden])")
    assert {each.rater for each in server.decisions} == {"anna", "Ben J."}
    assert re.search(r"Ben J., anna\s+\S+ \u00b7 1 prompt\s+\d+ of 10", window.page.inner_text("#between"))
    assert [each for each in second.said if "409" not in each] == window.said == []


def test_an_answer_that_comes_late_changes_nothing(browser: Any, serve: Any) -> None:
    server = serve("anna", rows())
    window = Window(browser, server.url, hurry=True)
    held: list[Any] = []
    window.page.route("**/state?*", lambda route: held.append(route))
    window.come_back()
    window.come_back()
    before = held[0].fetch()
    window.press("1 2 3 4 5 Enter")
    window.wait(1)
    shown = window.answers()
    for answer in (lambda: held[0].fulfill(response=before), lambda: held[1].continue_()):
        with window.page.expect_event("requestfinished", lambda request: "/state" in request.url):
            answer()
        window.press("3")
        assert window.page.is_hidden("#alert") and window.formula() == "3"  # its own save was no other window's
        window.press("3")
    assert window.answers() == shown


def test_the_last_rater_asked_for_is_the_one_who_ranks(browser: Any, serve: Any) -> None:
    server = serve("anna", rows())
    window = Window(browser, server.url, hurry=True)
    held: list[Any] = []
    window.page.route("**/state?*", lambda route: held.append(route))
    for name in ("Ben", "Cleo"):
        window.page.click("#rater")
        window.page.fill("#name", name)
        window.press("Enter")
        assert window.page.inner_text("#rater") == name and window.page.is_hidden("#main")
    for late in (1, 0):
        with window.page.expect_event("requestfinished"):
            held[late].continue_()
    window.page.wait_for_selector(".card")
    window.press("s")
    window.wait(1)
    assert window.page.inner_text("#rater") == "Cleo" and [each.rater for each in server.decisions] == ["Cleo"]


def test_undo_shows_what_it_takes_back(browser: Any, serve: Any) -> None:
    server = serve("anna", rows(2))
    window = Window(browser, server.url)
    for done in (1, 2):
        window.press("2 1 3 4 5 Enter")
        window.wait(done)
    last = server.decisions[-1]
    server.stop()
    server.add(rows(30)[2:])  # most of them come before the last one
    server.start()
    window.page.reload()
    window.page.wait_for_selector(".card")
    window.press("u")
    window.wait(1)
    assert window.formula() == "2 > 1 > 3 > 4 > 5"
    window.press("Enter")
    window.wait(2)
    assert (server.decisions[-1].item, server.decisions[-1].groups) == (last.item, last.groups)


def test_breaks_and_results_are_no_time_on_a_prompt(browser: Any, serve: Any) -> None:
    server = serve("anna", rows())
    window = Window(browser, server.url, clock=True)
    window.page.clock.fast_forward(600_000)  # nobody was there: it counts as two minutes
    window.press("1 2 3 4 r")
    window.page.wait_for_selector("#results:not([hidden])")
    window.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    window.page.clock.fast_forward(60_000)
    window.press("r Enter")
    window.wait(1)
    assert 120 <= server.decisions[0].seconds < 150


def test_a_foreign_name_for_this_machine_gets_nothing(browser: Any, serve: Any) -> None:
    server = serve("anna", rows())
    page = browser.new_context().new_page()
    answer = page.goto(server.url.replace("127.0.0.1", "evil.test"))  # DNS rebinding: its script would be of one origin
    assert answer.status == 403 and page.inner_text("body").startswith("refused")
    options = {"headers": {"X-Llmkit-Token": "t" * 43}}
    got = page.evaluate("async (options) => (await fetch('/state?rater=anna', options)).status", options)
    assert got == 403
