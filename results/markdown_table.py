"""Tables of the pages in this folder; pages.py lets every script that a page names import this one."""


def table(header: list[str], rows: list[list[str]]) -> str:
    """As Markdown."""
    return "".join(f"| {' | '.join(line)} |\n" for line in [header, ["---"] * len(header), *rows])
