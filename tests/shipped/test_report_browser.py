"""The report in a real browser: nothing runs, nothing is fetched, nothing sticks out."""

import pytest
from control.honest_runs import honest_run
from control.practice_runs import practice_run
from control.preference_runs import preference_run
from control.report_runs import HOSTILE, full_run

from llmkit.report.build import build_report

LONG = " unbroken" + "x" * 400


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("extra", ["", HOSTILE + LONG])
@pytest.mark.parametrize("make_run", [full_run, honest_run, practice_run, preference_run])
def test_a_page_is_quiet_inert_and_fits(browser, tmp_path, width, extra, make_run):
    path = build_report(make_run(tmp_path, extra))
    page = browser.new_page(viewport={"width": width, "height": 800})
    said, requested = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: requested.append(request.url))
    page.goto(path.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert said == []
    assert [url for url in requested if not url.startswith("data:")] == [path.as_uri()]
    assert page.title() == "assistant: report"
    assert page.locator("script, main img, iframe, object").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_a_box_of_the_chain_leads_to_its_stage(browser, tmp_path):
    path = build_report(full_run(tmp_path))
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(path.as_uri())
    page.click("svg.wide a[href='#stage-sft'] rect")
    assert page.url.endswith("#stage-sft")
    top = page.evaluate("document.getElementById('stage-sft').getBoundingClientRect().top")
    assert 0 <= top < 100
    page.close()
