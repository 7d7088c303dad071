"""The report in a real browser: sorted, filtered, leafed through, taken away, walked through.

Witness: Chromium, and the tables that the page was written from. What was seen in screenshots was
judged by eye, once.
"""
from __future__ import annotations

import io
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from test_figures import realistic_deviations

from normfuse import load_atlas
from normfuse.analyses import Report, compare_groups

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: the page is not opened here")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def comparison():
    """One group is called as a spreadsheet's formula."""
    made = realistic_deviations()
    groups = made.subjects["diagnosis"].replace({"AD": "=1+1"})
    controls = made.controls
    made = made.changed(subjects=made.subjects.assign(diagnosis=groups)).select(
        "diagnosis != 'MCI'")
    return made.changed(controls=controls), compare_groups(made, "diagnosis", adjust=["age"])


@pytest.fixture(scope="module")
def page(browser, comparison, tmp_path_factory):
    """Opened as a file; everything that is asked for or complained about is noted."""
    deviations, found = comparison
    path = Report(deviations, found, atlas=load_atlas("dk"), n_subjects=1).write(
        tmp_path_factory.mktemp("browser") / "report.html")
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    opened.asked, opened.complaints = [], []
    opened.on("request", lambda request: opened.asked.append(request.url))
    opened.on("pageerror", lambda error: opened.complaints.append(str(error)))
    opened.on("console", lambda message: opened.complaints.append(message.text)
              if message.type == "error" else None)
    opened.goto(path.as_uri())
    return opened


@pytest.fixture
def groups(page):
    page.reload()
    return page.locator("#g1-1-table")


def shown(table, column=None):
    rows = table.locator("tbody tr")
    cells = [row.locator("th, td").all_inner_texts() for row in rows.all()]
    return cells if column is None else [row[column] for row in cells]


def saved(page, table):
    with page.expect_download() as download:
        table.locator("[data-part=csv]").click()
    text = download.value.path().read_text(encoding="utf-8")
    assert download.value.suggested_filename.endswith(".csv")
    return pd.read_csv(io.StringIO(text), keep_default_na=False, na_values=[""]), text


def numbers(cells):
    return [float(cell.split(" ")[0].replace("−", "-").replace("<", "0")) for cell in cells]


def wanted(comparison):
    return comparison.table.xs("=1+1 - CN", level="contrast").reset_index()


def test_a_header_sorts_by_click_and_by_key(groups, comparison):
    table = wanted(comparison[1])
    head = groups.locator("thead th").nth(3)
    assert head.get_attribute("aria-sort") == "none"
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    np.testing.assert_allclose(numbers(shown(groups, 3)),
                               table["g"].sort_values().head(25), atol=0.0051)
    head.locator("button").focus()
    groups.page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    np.testing.assert_allclose(numbers(shown(groups, 3)),
                               table["g"].sort_values(ascending=False).head(25), atol=0.0051)
    assert groups.locator("thead th[aria-sort=none]").count() == 8


def test_a_script_shows_the_same_as_none(browser, page):
    page.reload()
    without = browser.new_context(java_script_enabled=False).new_page()
    without.goto(page.url)
    tables = page.locator("[data-table]")
    assert tables.count() == 3
    for k in range(3):
        rows = shown(tables.nth(k))
        assert rows == shown(without.locator("[data-table]").nth(k)) and len(rows) == 25
    assert without.locator("noscript").first.inner_text().startswith("The first 25 of 218 rows")
    without.context.close()


def test_filters_leave_what_they_say(groups, comparison):
    table = wanted(comparison[1])
    groups.locator("[data-part=modality]").select_option("pet")
    status = groups.locator("[data-part=status]")
    assert status.inner_text() == "rows 1 to 25 of 68 (218 in all)"
    groups.locator("[data-part=only]").check()
    hits = table[(table["q"] < 0.05) & (table["modality"] == "pet")]
    assert 0 < len(hits) < 25 and set(shown(groups, 1)) == {"pet"}
    assert len(shown(groups)) == len(hits)
    groups.locator("[data-part=only]").uncheck()
    groups.locator("[data-part=text]").fill("entorhinal")
    assert sorted(shown(groups, 0)) == ["L entorhinal", "R entorhinal"]
    groups.locator("[data-part=text]").fill("no such region")
    assert shown(groups) == [] and status.inner_text() == "no row of 218"


def test_all_rows_can_be_leafed_through(groups):
    seen = []
    after = groups.locator("[data-part=after]")
    for _ in range(9):
        seen += [tuple(row[:2]) for row in shown(groups)]
        if after.is_enabled():
            after.press("Enter")  # the mouse would miss it where a viewer just grew
    assert len(seen) == len(set(seen)) == 218 and after.is_disabled()
    groups.locator("[data-part=before]").click()
    assert len(shown(groups)) == 25


def test_the_csv_is_the_result_to_the_last_digit(page, groups, comparison):
    told, _ = saved(page, groups)
    table = wanted(comparison[1]).sort_values("p").reset_index(drop=True)
    assert list(told) == list(table) and len(told) == 218
    for column in table:
        if pd.api.types.is_numeric_dtype(table[column]):
            np.testing.assert_array_equal(told[column].astype(float), table[column].astype(float))
    assert told["feature"].tolist() == table["feature"].tolist()


def test_a_label_is_no_formula(page, groups):
    _, text = saved(page, page.locator("#people-table"))
    assert "'=1+1" in text and ",=1+1" not in text and "\n=" not in text


def test_the_viewer_goes_where_it_is_clicked(page, groups):
    box = page.locator("[data-viewer]").first
    box.scroll_into_view_if_needed()
    frame = box.frame_locator("iframe")
    canvas = frame.locator("canvas")
    canvas.wait_for()
    page.wait_for_function("document.querySelector('[data-viewer] iframe').srcdoc.length > 1e5")
    page.wait_for_timeout(800)  # until the slices are painted
    before = canvas.screenshot()
    size = canvas.bounding_box()
    canvas.click(position={"x": size["width"] * 0.2, "y": size["height"] * 0.5})
    page.wait_for_timeout(300)
    after = canvas.screenshot()
    assert before != after
    box.locator("select").select_option("2")
    page.wait_for_timeout(800)
    assert box.frame_locator("iframe").locator("canvas").screenshot() not in (before, after)


def test_it_prints_without_what_paper_cannot_do(page, groups):
    page.emulate_media(media="print")
    assert not page.locator("[data-viewer]").first.is_visible()
    assert not page.locator("nav").is_visible()
    assert not groups.locator("[data-part=csv]").is_visible()
    page.emulate_media(media="screen")
    assert page.pdf(format="A4")[:5] == b"%PDF-"


def test_a_phone_need_not_scroll_the_page_sideways(page, groups):
    page.set_viewport_size({"width": 420, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
    page.set_viewport_size({"width": 1280, "height": 900})


def test_nothing_that_somebody_wrote_is_run(browser, comparison, tmp_path):
    attack = "</script><img src=x onerror=\"window.hacked=1\"><script>window.hacked=1</script>"
    deviations, found = comparison
    first, modality = deviations.z.index[0], {"pet": f"pet{attack}"}
    tables = {name: table.rename(index={first: attack}) for name, table in
              deviations.tables().items()}
    for name in ("z", "observed", "expected"):
        tables[name] = tables[name].rename(columns=modality, level=0).rename(
            columns={"Left-Hippocampus": attack}, level=1)
    reference = replace(deviations.reference, notes=(attack,), fusion=attack, meaning=attack)
    odd = deviations.changed(**tables, controls=None, reference=reference)
    told = replace(found, notes=(attack,), family=attack, table=found.table.rename(
        index={"Left-Hippocampus": attack}, level=2))
    report = Report(odd, told, n_subjects=1, with_ids=True)
    path, opened = report.write(tmp_path / "report.html"), browser.new_page()
    opened.goto(path.as_uri())
    table = opened.locator("#people-table")
    table.locator("[data-part=text]").fill("onerror")
    assert shown(table, 0) == [attack]
    opened.locator("#g1-1-table [data-part=text]").fill("onerror")
    assert len(shown(opened.locator("#g1-1-table"))) == 1
    opened.wait_for_timeout(200)
    assert opened.evaluate("window.hacked") is None
    assert opened.locator("img[src=x]").count() == 0
    opened.close()


def test_nothing_was_asked_for_and_nothing_complained(page):
    here = page.url
    assert {url for url in page.asked if not url.startswith(("data:", "blob:"))} == {here}
    assert page.complaints == []
