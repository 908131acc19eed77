"""The page: for any report well-formed, of known tags alone, nothing that runs or fetches; then opened in a real browser."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

import llmdoctor.report
from llmdoctor.core.document import Fold, Grid, Mark, MarkedToken, Note, Table, TokenStrip
from llmdoctor.core.finding import Finding, Location, Severity
from llmdoctor.core.report import Report, Verdict
from llmdoctor.report import Style, html, render
from tests.report.examples import EXAMPLE, RULES, reports
from tests.report.webdriver import Browser

TAGS = set(
    "html head meta title style body header footer main a p code h1 h2 h3 div span table thead tbody tr th td pre b article details summary ul li "
    "fieldset legend label input figure figcaption svg g rect text br wbr b script".split()
)
ATTRIBUTES = set(
    "lang charset http-equiv content name class href id tabindex role aria-label aria-hidden scope data-column type checked x y width height viewbox "
    "preserveaspectratio text-anchor transform fill-opacity open data-copy data-code data-file title".split()
)
STYLE = (Path(llmdoctor.report.__file__).parent / "page.css").read_text()
VOID = {"meta", "input", "br", "wbr"}


class Page(HTMLParser):
    """Holds every tag against what the renderer may write, and that they nest."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []
        assert len(set(self.ids)) == len(self.ids)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS, tag
        for name, value in attrs:
            assert name in ATTRIBUTES, name
            assert name != "href" or value == "#answer"
            if name == "id":
                self.ids.append(value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)


def page(report: Report) -> str:
    return render(report, "html", Style(), RULES)


@given(reports)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_any_report_is_a_page_of_known_tags(report: Report) -> None:
    text = page(report)
    assert text.isascii()
    Page(text)


def test_the_policy_allows_the_style_sheet_the_script_and_nothing_else() -> None:
    text = page(EXAMPLE)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert policy is not None
    assert style is not None
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)
    assert script is not None
    digests = [base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in (style[1], script[1])]
    assert policy[1] == (
        f"default-src 'none'; style-src 'sha256-{digests[0]}'; script-src 'sha256-{digests[1]}'; base-uri 'none'; form-action 'none'"
    )
    assert text.count("<script") == 1
    assert script[1] == Path(html.__file__).with_name("page.js").read_text()  # nothing of the report is in it
    assert "url(" not in style[1]


def test_every_finding_is_shown_once_in_its_place() -> None:
    first = EXAMPLE.findings[0]
    words = "".join(Page(page(Report("x", {}, {}, EXAMPLE.findings, document=(first, Note("Next", "go on")), verdict=Verdict("-")))).words)
    assert words.count(first.message) == 1
    assert words.count("of no catalogue") == 1
    assert words.index(first.message) < words.index("go on") < words.index("of no catalogue")


def test_a_block_without_a_drawing_is_shown_in_words() -> None:
    @dataclass(frozen=True)
    class Pie:
        label: str
        share: float

    words = "".join(Page(page(Report("x", {}, {}, document=(Pie("<pie>", 0.5),), verdict=Verdict("-")))).words)  # type: ignore[arg-type]
    assert "label: <pie>" in words
    assert "share: 0.5" in words


def test_a_picture_too_large_to_draw_falls_back_to_its_text() -> None:
    many = tuple("#" * 400 for _ in range(400))
    grid = Grid("mask", tuple(map(str, range(400))), many, (Mark("#", "seen"),), instead=(Note("", "a density map"),))
    text = page(Report("x", {}, {}, document=(grid,), verdict=Verdict("-")))
    assert "a density map" in text
    assert "<svg" not in text


def colours(scheme: str) -> dict[str, tuple[float, ...]]:
    """The page's named colours as linear red, green and blue."""
    light, dark = re.findall(r":root \{ (?:color-scheme: light dark; )?(--ground.*?) \}", STYLE, re.DOTALL)
    named = dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{3,6});", light if scheme == "light" else light + dark))
    found = {name: [int(one, 16) / 255 for one in re.findall("..", value[1:] if len(value) == 7 else re.sub("(.)", r"\1\1", value[1:]))]
             for name, value in named.items()}  # fmt: skip
    return {
        name: tuple(one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in value) for name, value in found.items()
    }


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """WCAG 2.2's contrast ratio."""
    light, dark = sorted((0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in (one, other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_their_ground(scheme: str) -> None:
    named = colours(scheme)
    for ground in ("ground", "card", "tint-bad", "tint-warn"):
        for ink in ("ink", "soft", "good", "bad", "warn", "info"):
            assert contrast(named[ink], named[ground]) >= 4.5, (ink, ground)


# Machado, Oliveira and Fernandes (2009), severity 1.0, on linear RGB.
DEFICIENCIES = {
    "none": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
}


@pytest.mark.parametrize("seen_with", DEFICIENCIES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_are_told_apart_by_every_eye(scheme: str, seen_with: str) -> None:
    named, matrix = colours(scheme), DEFICIENCIES[seen_with]

    def eye(name: str) -> tuple[float, ...]:
        mixed = (sum(part * one for part, one in zip(line, named[name], strict=True)) for line in matrix)
        return tuple(255 * min(max(one, 0.0), 1.0) ** (1 / 2.2) for one in mixed)

    def far(one: str, other: str) -> float:
        return sum((a - b) ** 2 for a, b in zip(eye(one), eye(other), strict=True)) ** 0.5

    mask = ("p0", "leak", "pad", "hidden")
    assert min(far(one, other) for at, one in enumerate(mask) for other in mask[:at]) > 45
    assert min(far(f"p{at}", f"p{at + 1}") for at in range(9)) > 45  # neighbours in a bar


def test_what_only_a_page_has_room_for() -> None:
    table = Table(("field", "set by"), (("eos", "a trainer"),), (Table(("field",), (("eos in short",),)),))
    fold = Fold("more", (Note("LABEL", "inside"),), (Note("ALSO", "more on the page"),), open=True)
    report = Report("x", {}, {}, document=(table, fold, Fold("", instead=(Note("", "to a terminal alone"),))), verdict=Verdict("-"))
    text = page(report)
    assert "a trainer" in text
    assert re.search(r'<details class="fold" open><summary>more</summary>.*inside.*</details>', text)
    for word in ("eos in short", "more on the page", "to a terminal alone"):
        assert word not in text
        for other in ("text", "markdown"):
            assert word in render(report, other, Style(), RULES)
            assert "a trainer" not in render(report, other, Style(), RULES)


STRIP = TokenStrip(
    (MarkedToken("<|im_start|>", "id 1, label -100"), MarkedToken("a\n", "id 2, label 2", True), *(MarkedToken("x" * 60, '"'),) * 9),
    "a target",
    "ignored",
)


def test_tokens_have_words_of_their_own_on_a_page_and_are_text_elsewhere() -> None:
    report = Report("x", {}, {}, document=(Fold("row 0", (STRIP,), (Note("", "its table"),)), STRIP), verdict=Verdict("-"))
    text = page(report)
    Page(text)
    assert text.count('<span class="token marked" title="id 2, label 2">') == 2
    assert "its table" in render(report, "text", Style(), RULES)
    assert "<|im_start|>a" in render(report, "text", Style(), RULES)


def test_a_browser_shows_tokens_on_a_telephone(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "tokens.html"
    path.write_text(page(Report("x", {}, {}, document=(Fold("row 0", (STRIP,), open=True), Fold("row 1", (STRIP,))), verdict=Verdict("-"))))
    browser.open(path, 390)
    assert browser.run("return document.documentElement.scrollWidth <= window.innerWidth")
    shown = "return [...document.querySelectorAll('.strip .token.marked')].filter(one => one.checkVisibility()).length"
    assert browser.run(shown) == 1
    browser.click("details.fold:nth-of-type(2) summary")
    assert browser.run(shown) == 2
    assert browser.run("return getComputedStyle(document.querySelector('.strip .token.marked')).borderBottomWidth") == "3px"
    assert browser.console() == []


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(page(EXAMPLE))
    return path


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_a_browser_shows_it(browser: Browser, saved: Path, tmp_path: Path, width: int, dark: bool) -> None:
    browser.open(saved, width, dark=dark)
    browser.photograph(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 10_000
    assert browser.run("return document.documentElement.scrollWidth <= window.innerWidth")
    ground = browser.run("return getComputedStyle(document.body).backgroundColor")  # which also says that the policy let the style in
    assert ground == ("rgb(21, 24, 28)" if dark else "rgb(251, 251, 249)")
    assert browser.run("return document.scripts.length") == 1
    assert browser.console() == []


def test_boxes_zoom_and_details_answer_to_clicks(browser: Browser, saved: Path) -> None:
    browser.open(saved, 1440)
    shown = "return [...document.querySelectorAll('.finding')].filter(one => one.checkVisibility()).length"
    assert browser.run(shown) == 3
    browser.click("#show-error")
    assert browser.run(shown) == 2
    wide = "return document.querySelector('.grid .scroll svg').getBoundingClientRect().width"
    before = browser.run(wide)
    browser.click(".grid .zoom2")
    assert browser.run(wide) == pytest.approx(2 * before, rel=0.01)
    browser.click(".grid summary")
    assert browser.run("return document.querySelector('.grid li').checkVisibility()")
    assert browser.console() == []


def test_the_keyboard_reaches_everything(browser: Browser, saved: Path) -> None:
    browser.open(saved, 1440)
    seen: list[Any] = []
    for _ in range(30):
        browser.press("\ue004")
        seen.append(browser.run("const one = document.activeElement; return one.id || one.className || one.tagName"))
    assert seen[0] == "skip"
    boxes = ["show-error", "show-warning", "show-info"]
    assert [one for one in seen if one in boxes][:3] == boxes
    assert {"scroll", "zoom1", "SUMMARY"} <= set(seen)
    browser.open(saved, 1440)
    browser.press(*["\ue004"] * (1 + seen.index("show-error")), " ")
    assert browser.run("return !document.getElementById('show-error').checked")


def test_a_screen_reader_hears_pictures_and_controls(browser: Browser, saved: Path) -> None:
    browser.open(saved, 1440)
    nodes = browser.devtools("Accessibility.getFullAXTree")["nodes"]
    named = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node.get("ignored")]
    roles = {role for role, _ in named}
    assert {"main", "heading", "table", "rowheader", "columnheader", "checkbox", "radio", "figure"} <= roles
    for role, name in named:
        assert name or role not in ("checkbox", "radio", "image", "region", "link", "button", "DisclosureTriangle"), role


def test_a_fix_is_copied(browser: Browser, saved: Path) -> None:
    browser.open(saved, 1440)
    browser.devtools("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    fix = browser.run("return document.querySelector('.finding [data-copy]').textContent")
    browser.click(".finding button.copy")
    until = time.monotonic() + 10  # the browser answers the request for the clipboard when it can
    while (
        words := browser.run("return document.querySelector('.finding button.copy').textContent")
    ) == "Copy" and time.monotonic() < until:
        time.sleep(0.05)
    assert words in ("Copied", "Selected"), words
    kept = "navigator.clipboard.readText()" if words == "Copied" else "String(getSelection())"
    assert browser.run(f"return {kept}").strip() == fix.strip()


def test_many_findings_can_be_ordered(browser: Browser, tmp_path: Path) -> None:
    given = [
        ("b.json", "GEN002", Severity.INFO),
        ("a.json", "GEN008", Severity.ERROR),
        ("c.json", "GEN001", Severity.WARNING),
        ("a.json", "GEN003", Severity.INFO),
    ]
    findings = tuple(Finding(code, severity, f"message {file}", Location(file)) for file, code, severity in given)
    path = tmp_path / "many.html"
    path.write_text(page(Report("x", {}, {}, findings, verdict=Verdict("-"))))
    browser.open(path, 390)
    order = "return [...document.querySelectorAll('.finding')].map(one => one.dataset.code)"
    choose = "const box = document.querySelector('.order select'); box.value = '{}'; box.dispatchEvent(new Event('change'))"
    for name, expected in {
        "severity": ["GEN008", "GEN001", "GEN002", "GEN003"],
        "file": ["GEN008", "GEN003", "GEN002", "GEN001"],
        "rule": ["GEN001", "GEN002", "GEN003", "GEN008"],
        "as reported": ["GEN008", "GEN001", "GEN002", "GEN003"],
    }.items():
        browser.run(choose.format(name))
        assert browser.run(order) == expected
    assert browser.run("return document.documentElement.scrollWidth <= window.innerWidth")


def test_the_policy_stops_a_script_that_got_in(browser: Browser, saved: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.html"
    broken.write_text(saved.read_text().replace("</main>", '<script>document.title = "ran"</script></main>'))
    browser.open(broken, 1440)
    assert browser.run("return document.title") != "ran"
    assert any("Content Security Policy" in message["message"] for message in browser.console())
