"""The page in a browser: no error, no request, and readable on a telephone."""

import pytest

import mtbench
from mtbench.reports import write_report


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    tasks = {"tasks": ["RepeatFirstEasy", "PositionOnlyCartPoleEasy", "HigherLowerEasy"]}
    runs = [
        mtbench.evaluate("MTPOPGym-v0", policy, rollouts_per_task=5, audit=policy == "random", env_kwargs=tasks)
        for policy in ("random", "oracle")
    ]
    return write_report(runs, [], tmp_path_factory.mktemp("report") / "report")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_is_readable_and_asks_for_nothing(visit, report, width, scheme):
    page = visit(report, width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "tables scroll, the page does not"
    assert page.locator("figure svg").count() == 3
    for box in (figure.bounding_box() for figure in page.locator("figure svg").all()):
        assert box["width"] > 300
        assert box["height"] > 100
    seen = page.evaluate("[...document.querySelectorAll('td,p,li,h2')].map(e => getComputedStyle(e).fontSize)")
    assert min(float(size.removesuffix("px")) for size in seen) >= 14
    page.locator("nav a").last.click()
    assert page.evaluate("location.hash").startswith("#s")
