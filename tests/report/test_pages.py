"""The page of every command, from a real question, opened in a real browser: it fits, it answers to clicks and keys, nothing in it runs or fetches."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

from llmdoctor.report import Style, render
from llmdoctor.rules import all_rules
from tests.cli.screens import COMMANDS, make_inputs, report_of
from tests.conftest import run_command, write_model
from tests.report.webdriver import Browser

TAB = "\ue004"
NOTHING_RUNS = """
const bad = [...document.querySelectorAll('*')].filter(one => [...one.attributes].some(each => /^on|^style$|^src$|xlink/i.test(each.name)));
return document.scripts.length - 1 + bad.length + document.querySelectorAll('img,iframe,object,embed,link,base,form,foreignObject,animate,use').length
  + performance.getEntriesByType('resource').length"""
# What scrolls sideways and cannot be reached by the keyboard.
SIDEWAYS = """
return [...document.querySelectorAll('main *')].filter(one => one.scrollWidth > one.clientWidth + 1 && one.clientWidth
  && getComputedStyle(one).overflowX === 'auto' && one.tabIndex < 0).map(one => one.outerHTML)"""
STOPS = """
return [...document.querySelectorAll('a[href],button,select,input,summary,[tabindex]')].filter(one =>
  one.checkVisibility() && (one.type !== 'radio' || one.checked))"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of every command."""
    folder = tmp_path_factory.mktemp("pages")
    make_inputs(folder)
    out = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, arguments in COMMANDS.items():
            out[name] = folder / f"{name}.html"
            out[name].write_text(render(report_of(arguments), "html", Style(), all_rules()), encoding="ascii")
    return out


def test_a_page_is_one_that_can_be_mailed(pages: dict[str, Path]) -> None:
    sizes = {name: path.stat().st_size for name, path in pages.items()}
    assert max(sizes.values()) < 300_000, sizes


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("name", COMMANDS)
def test_it_fits_and_is_quiet(name: str, width: int, browser: Browser, pages: dict[str, Path]) -> None:
    for dark in (False, True):
        browser.open(pages[name], width, dark=dark)
        assert browser.run("return getComputedStyle(document.body).backgroundColor") == (
            "rgb(21, 24, 28)" if dark else "rgb(251, 251, 249)"
        )
    assert browser.run("return document.documentElement.scrollWidth <= window.innerWidth")
    browser.run("for (const one of document.querySelectorAll('details')) one.open = true")
    assert browser.run("return document.documentElement.scrollWidth <= window.innerWidth")
    assert browser.run(SIDEWAYS) == []
    assert browser.run(NOTHING_RUNS) == 0
    assert browser.console() == []


@pytest.mark.parametrize("name", COMMANDS)
def test_a_screen_reader_hears_what_is_seen(name: str, browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages[name], 390)
    nodes = [node for node in browser.devtools("Accessibility.getFullAXTree")["nodes"] if not node.get("ignored")]
    named = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes]
    for role, said in named:
        assert said or role not in ("checkbox", "radio", "image", "region", "link", "button", "DisclosureTriangle", "figure", "heading"), (
            role
        )
    levels = browser.run("return [...document.querySelectorAll('h1,h2,h3')].map(one => Number(one.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    tables = browser.run("return document.querySelectorAll('table').length - document.querySelectorAll('details:not([open]) table').length")
    assert sum(role == "table" for role, _ in named) == tables  # also where a narrow screen lays them out as cards


@pytest.mark.parametrize("name", ["gencfg-diff", "mask-inspect", "mem-compare", "check"])
def test_the_keyboard_goes_through_a_page_in_its_order(name: str, browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages[name], 1440)
    count = browser.run(STOPS + ".length")
    assert count >= 3
    seen: list[Any] = []
    for _ in range(count):
        browser.press(TAB)
        seen.append(browser.run(STOPS + ".indexOf(document.activeElement)"))
        if name == "check":
            assert browser.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert seen == list(range(count))


def test_the_origin_table(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["gencfg-show"], 1440)
    first = browser.run("return [...document.querySelector('tbody tr').children].map(one => one.innerText.trim())")
    assert first[:4] == ["eos_token_id", "None", "an assignment", "trl 1.0.0 ppo_trainer.py:410"]
    assert first[4].split() == ["[11,", "10]", "generation_config.json:4"]
    assert browser.run("return document.querySelector('tbody tr').className") == "mark-bad"
    assert browser.run("return document.querySelectorAll('tr.mark-bad').length") == 1
    defaults = "return document.querySelector('details.fold table').checkVisibility({contentVisibilityAuto: true})"
    assert not browser.run(defaults)
    browser.click("details.fold summary")
    assert browser.run(defaults)
    browser.open(pages["gencfg-show"], 390)
    label = "return getComputedStyle(document.querySelectorAll('tbody tr td')[2], '::before').content"
    assert browser.run(label) == '"At"'


def test_a_mask_says_what_a_cell_is_and_grows(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["mask-test"], 1440)
    titles = browser.run("return [...document.querySelectorAll('.grid rect title')].map(one => one.textContent)")
    assert "query 3, key 0: seen, and must not be" in titles
    assert "query 3, key 3: seen" in titles
    assert "query 0, key 5: hidden" in titles
    assert len(titles) == 64
    assert browser.run("return document.querySelectorAll('.grid rect.t-bad').length") == 3 * 5 + 1  # and the key's
    cell = "document.querySelector('.grid rect.t-bad[x]')"
    x, y = browser.run(f"const place = {cell}.getBoundingClientRect(); return [place.x + place.width / 2, place.y + place.height / 2]")
    browser.devtools("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    assert browser.run(f"return {cell}.matches(':hover') && getComputedStyle({cell}).strokeWidth") == "2px"
    wide = "return document.querySelector('.grid .scroll svg').getBoundingClientRect().width"
    before = browser.run(wide)
    for times in (2, 4, 1):
        browser.click(f".grid .zoom{times}")
        assert browser.run(wide) == pytest.approx(times * before, rel=0.01)
    browser.click(".grid summary")
    rows = browser.run("return [...document.querySelectorAll('.rows li')].map(one => one.innerText)")
    assert rows[4] == "query 4: seen, and must not be: key 0 to 2; seen: key 3 to 4; hidden: key 5 to 7"
    assert browser.console() == []


def test_a_large_mask_is_shrunk_and_says_so(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["mask-map"], 1440)
    assert "shrunk from 32,768 x 32,768 pairs to 64 x 64 blocks" in browser.run("return document.querySelector('figcaption').innerText")
    titles = browser.run("return [...document.querySelectorAll('.grid rect title')].map(one => one.textContent)")
    # A window of 4: each query of a diagonal block of 512 x 512 sees 4 keys, the first three of a row fewer within the block.
    inside = 100 * (512 * 4 - 6) / 512**2
    assert f"queries 512..1,023, keys 512..1,023: seen in part: less than a third, {inside:.3g}% of 262,144 pairs" in titles
    assert browser.run("return document.querySelector('.grid .scroll svg').getBoundingClientRect().width") < 1100


def test_bars_are_as_long_as_their_numbers(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["mem-compare"], 1440)
    lengths = """
    return [...document.querySelector('figure.bars').querySelectorAll('tr')].slice(0, 2).map(row =>
      [row.querySelector('.value').innerText, [...row.querySelectorAll('rect:not(.limit)')].map(one => Number(one.getAttribute('width')))])"""
    (small, first), (large, second) = browser.run(lengths)
    assert sum(second) == pytest.approx(1000, abs=0.1)
    assert sum(first) / sum(second) == pytest.approx(float(small) / float(large), abs=0.04)
    limits = browser.run("return [...document.querySelectorAll('figure.bars .limit[x]')].map(one => Number(one.getAttribute('x')))")
    assert len(set(limits)) == 1
    assert limits[0] == pytest.approx(1000 * 1.073741824 / float(large), rel=0.03)
    said = browser.run("return document.querySelector('.key').innerText")
    assert "optimizer state" in said
    assert "a device's memory: 1.1 GB" in said
    browser.open(pages["sample-step"], 1440)
    chosen = browser.run("return document.querySelector('tr.chosen').innerText")
    assert chosen.split()[:3] == ["▸", "19", "drawn"]
    assert browser.run("return document.querySelectorAll('tr.chosen').length") == 1


def test_boxes_hide_findings_by_severity(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["check"], 390)
    shown = "return [...document.querySelectorAll('.finding')].filter(one => one.checkVisibility()).length"
    before = browser.run(shown)
    browser.click("#show-error")
    assert browser.run(shown) == before - 2
    browser.click("#show-error")
    assert browser.run(shown) == before


@pytest.mark.parametrize("name", ["gencfg-show", "mask-inspect", "mem-compare"])
def test_on_paper(name: str, browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages[name], 1440, dark=True)
    browser.devtools("Emulation.setEmulatedMedia", media="print")
    try:
        assert browser.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert browser.run("return [...document.querySelectorAll('fieldset')].every(one => !one.checkVisibility())")
        tall = "return [...document.querySelectorAll('details')].every(one => one.getBoundingClientRect().height > 40)"
        assert browser.run(tall)  # nothing of a page stays folded on paper
        paper = base64.b64decode(browser.devtools("Page.printToPDF", printBackground=True)["data"])
        assert paper.startswith(b"%PDF")
        assert 1 <= len(re.findall(rb"/Type\s*/Page\b", paper)) < 20
    finally:
        browser.devtools("Emulation.setEmulatedMedia", media="")


EVIL = (
    "<script>document.title='ran'</script>",
    '"><svg onload=document.title="ran">',
    "\u202egnp.exe\u2066",
    "\x1b[2J\x07\x00\x85",
    "</style></title><!--",
)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages of commands that were given the worst of names and values."""
    folder = tmp_path_factory.mktemp("hostile")
    make_inputs(folder)
    name = "model<script>alert(1)<" + "svg onload=1>\u202e\x1b[31m"
    bad = {"eos_token_id": 11, "pad_token_id": 10, "transformers_version": EVIL[0], **{text: list(EVIL) for text in EVIL}}
    tokens = [{"id": 12 + at, "content": text, "special": True} for at, text in enumerate(EVIL[:2])]
    tokenizer = {
        "version": "1.0",
        "added_tokens": tokens,
        "model": {"type": "BPE", "vocab": {EVIL[2]: 0, EVIL[3]: 1, EVIL[4]: 2}, "merges": []},
    }
    write_model(folder / name, generation_config={**bad, "eos_token_id": [12, 13]}, tokenizer=tokenizer)
    (folder / f"zero{EVIL[1].replace('/', '')}.json").write_text(
        json.dumps({"zero_optimization": {"stage": 2}, "bf16": {"enabled": True}, "optimizer": {"type": "AdamW"}})
    )
    (folder / "a<b>&'.py").write_text("model.generation_config.eos_token_id = None\n")
    (folder / "logits.json").write_text(json.dumps([[2.0, 1.5, 1.0] + [0.1] * 13] * 12))
    (folder / "tokens.json").write_text(json.dumps([0, 1, 2, 12, 13] * 2 + [2, 2]))
    strategy = f"zero{EVIL[1].replace('/', '')}.json"
    expected_keys = {
        "show": ("gencfg", "show", name),
        "diff": ("gencfg", "diff", "chat", name),
        "gencfg-check": ("gencfg", "check", name),
        "replay": (
            "sample",
            "replay",
            "logits.json",
            "--tokens",
            "tokens.json",
            "--model",
            name,
            "--engine",
            "transformers",
            "--top-k",
            "2",
            "--step",
            "3",
        ),
        "mem": ("mem", "compare", "llama-sized", "--strategy", strategy, "--static"),
        "check": ("check", "."),
    }
    pages = {}
    for key, arguments in expected_keys.items():
        pages[key] = folder / f"{key}.html"
        done = run_command(*arguments, "--format", f"html:{pages[key]}", cwd=folder)
        assert done.code in (0, 1), (key, done.err)
    return pages


@pytest.mark.parametrize("name", ["show", "diff", "gencfg-check", "replay", "mem", "check"])
def test_what_comes_from_data_stays_text(name: str, browser: Browser, hostile: dict[str, Path]) -> None:
    source = hostile[name].read_text(encoding="ascii")
    assert source.count("<script") == 1
    assert not re.search(r"<svg[^>]*onload|[\x00-\x08\x0b-\x1f]|&#(x?85|8238|0|7|27);", source)
    browser.open(hostile[name], 390)
    assert browser.run("return document.title") != "ran"
    assert browser.run(NOTHING_RUNS) == 0
    browser.run("for (const one of document.querySelectorAll('details')) one.open = true")
    assert browser.run("return document.documentElement.scrollWidth <= window.innerWidth")
    words = browser.run("return document.body.innerText")
    assert {"show": "<script>document.title='ran'</script>", "mem": "svg onload", "check": "a<b>&'.py"}.get(name, "script>") in words
    assert "\u202e" not in words
    assert browser.console() == []
