"""The ranking page in a real browser: keys, mouse and fingers, hostile text."""

from __future__ import annotations

from typing import Any

from data.helpers_rank import ANSWERS, called_row, rollout_row
from helpers_rank_page import Window, rows

HOSTILE = (
    "<script>window.__x = 1</script>",
    "<img src=x onerror='window.__x = 2'></div></section>",
    "[a](javascript:window.__x=3) <a href='javascript:window.__x=4'>x</a>",
    "\u202egnirts desrever\u0000 \x1b[31m " + "x" * 400,
    "word " * 200_000,
)


def test_a_session_by_keys_alone(browser: Any, serve: Any) -> None:
    server = serve("anna", rows(), 0.25)
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
    assert row[:4] == ["anna", "5", "of", "5"] and row[-4:] == ["\u00b7", "1", "prompt", "\u2013"]
    assert window.said == []


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
    page.evaluate("document.getElementById('ranking').dispatchEvent(new PointerEvent('pointerup', {pointerId: 99}))")
    page.mouse.move(600, 610)
    assert window.formula() == "1 = 2 = 3 > 5 > 4"  # a second finger ends nothing
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

    window.press("1 2")
    page.mouse.move(*middle(page, "#order li[data-place='1'] .grip"))
    page.mouse.down()
    page.mouse.move(*middle(page, "#order li[data-place='0']"), steps=3)
    window.press("s")  # the prompt goes while a row is held
    window.wait(2)
    page.mouse.move(*middle(page, "#rest li[data-place='1']"), steps=3)
    page.mouse.up()
    assert window.formula() == "no order yet" and page.locator(".held").count() == 0
    assert window.said == []


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


def test_calls_and_results_are_folded_text(browser: Any, serve: Any) -> None:
    server = serve("anna", [called_row("".join(HOSTILE[:3]) + "word " * 50_000)])
    window = Window(browser, server.url)
    page = window.page
    steps = page.locator(".card .step")
    assert steps.locator(".kind").all_inner_texts() == ["thought", "said", "call", "result"]
    assert not page.locator(".step .said").first.is_visible() and page.locator(".whole > .said").count() == 2
    for width in (1280, 360):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.locator("[data-kind='result'] summary").focus()
    window.press("Enter")  # opens it, and saves nothing
    assert HOSTILE[1] in page.locator("[data-kind='result'] .said").inner_text() and server.decisions == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate("window.__x") is None and page.locator("main img, main a, main script").count() == 0
    window.press("1 2")
    page.click("#save")
    window.wait(1)
    assert window.said == [] and len(server.decisions) == 1


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
