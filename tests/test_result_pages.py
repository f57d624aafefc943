"""Numbers on pages come from committed data: marked ones are what the data says, and others need a reason."""

import importlib.util

import pytest

from tests.paths import RESULTS, ROOT

spec = importlib.util.spec_from_file_location("result_pages", RESULTS / "pages.py")
pages = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pages)

MARKED = [page.relative_to(ROOT).as_posix() for page in pages.pages() if "<!-- from " in page.read_text()]


@pytest.mark.parametrize("page", MARKED)
def test_a_page_shows_its_data(page):
    """To renew it: python results/pages.py"""
    assert pages.renewed(ROOT / page) == (ROOT / page).read_text()
