"""A report as a test sees it."""

import io
from html.parser import HTMLParser

from rich.console import Console

from analysis import report
from trainables.store import RunStore


class Page(HTMLParser):
    """The rows of every table by the id of its section, the text, and all addresses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.section, self.rows, self.cell = "", dict[str, list[list[str]]](), False
        self.text, self.tags, self.addresses = "", list[str](), list[str]()
        self.scripts, self.in_script = list[str](), False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self.tags.append(tag)
        self.in_script = tag == "script"
        self.addresses += [str(known[name]) for name in ("src", "href") if name in known]
        if tag == "section":
            self.section = str(known.get("id"))
        if tag == "tr":
            self.rows.setdefault(self.section, []).append([])
        if tag in ("td", "th"):
            self.rows[self.section][-1].append("")
            self.cell = True

    def handle_endtag(self, tag: str) -> None:
        self.in_script = False
        if tag in ("td", "th"):
            self.cell = False

    def handle_data(self, data: str) -> None:
        if self.in_script:
            self.scripts.append(data)
            return
        self.text += data
        if self.cell:
            self.rows[self.section][-1][-1] += data


def printed(run: RunStore, final: bool = False, width: int = 100) -> str:
    out = io.StringIO()
    report.report_run(run, Console(file=out, width=width), final)
    return out.getvalue()
