"""The pages in results/ say what the committed records say."""

import importlib.util

import pytest

from tests.paths import RESULTS, committed

spec = importlib.util.spec_from_file_location("result_pages", RESULTS / "pages.py")
pages = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pages)


@pytest.mark.parametrize("page", pages.PAGES)
def test_a_page_shows_its_records(page):
    """To renew it: python results/pages.py"""
    for folder in pages.NEEDED[page]:
        committed(folder)
    assert pages.renewed(page) == (RESULTS / page).read_text()
