"""The page in a real browser, by clicks and typing."""

from __future__ import annotations

import re
import shutil

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.web.conftest import log_curve

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: `apt-get install chromium`"),
    pytest.mark.xdist_group("page"),
]


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        # Chromium's own sandbox does not start as root, as which containers run.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def link(site):
    return site.mirror("open", "--print").stdout.strip()


@pytest.fixture
def page(browser, link):
    """The page, opened by the link that `mirror open` prints; it must raise no error."""
    context = browser.new_context(viewport={"width": 1300, "height": 900})
    page = context.new_page()
    page.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(link)
    expect(page.get_by_role("heading", name="team/vision")).to_be_visible()
    expect(page.get_by_role("button", name="Columns")).to_be_enabled()
    yield page
    context.close()
    assert errors == []


def names(page):
    """The names of the runs in sight, from the top."""
    return page.locator("tbody .open").all_text_contents()


def lines(page, key):
    """How many lines the chart of a key has."""
    return page.locator(f'figure[data-key="{key}"] .scatterlayer .trace')


def test_it_opens_with_projects_their_freshness_and_the_newest_runs(page):
    assert "token" not in page.url
    listed = page.get_by_role("navigation").get_by_role("button")
    assert [re.sub(r"mirrored.*", "", text) for text in listed.all_text_contents()] == [
        "team/language1 run",
        "team/vision13 runs · 1 running",
    ]
    expect(listed.nth(0)).to_contain_text("mirrored")
    expect(page.locator("tbody .open").first).to_have_text("still training")
    expect(page.locator("#count")).to_have_text("13 runs")
    expect(lines(page, "loss")).to_have_count(5)
    listed.nth(0).click()
    expect(page.get_by_role("heading", name="team/language")).to_be_visible()
    expect(page.locator("tbody .open")).to_have_text(["other"])
    assert "project=team/language" in page.url


def test_a_filter_is_typed_and_its_errors_are_told_beside_it(page):
    box = page.get_by_label("Find runs")
    box.fill('{"config.opt.name": "adam", "config.lr": {"$lt": 0.01}}')
    box.press("Enter")
    expect(page.locator("#count")).to_have_text("5 of 13 runs")
    assert sorted(names(page)) == ["run 11", "run 3", "run 5", "run 7", "run 9"]
    box.fill('{"stat": "running"}')
    page.get_by_role("button", name="Find").click()
    expect(page.locator("#problem")).to_contain_text("unknown field 'stat'; did you mean 'state'?")
    expect(box).to_have_attribute("aria-invalid", "true")
    box.fill("RUN 1")
    expect(page.locator("#count")).to_have_text("3 of 13 runs")
    expect(page.locator("#problem")).to_be_hidden()
    assert sorted(names(page)) == ["run 1", "run 10", "run 11"]


def test_sql_is_answered_as_a_table_whose_runs_can_be_drawn(page):
    box = page.get_by_label("Find runs")
    box.fill("select run_id, history_rows, history_rows / 3 as third from runs where run_id >= 'run10' order by 1")
    box.press("Enter")
    expect(page.locator("#count")).to_have_text("2 rows")
    assert page.locator("thead th").all_text_contents() == ["Draw", "run_id", "history_rows", "third"]
    assert page.locator("tbody tr").nth(1).locator("td").all_text_contents()[1:-1] == ["run10", "20", "6.667"]
    expect(lines(page, "loss")).to_have_count(2)
    box.fill("select nonsense from runs")
    box.press("Enter")
    expect(page.locator("#problem")).to_contain_text('column "nonsense" not found')


def test_the_order_is_changed_by_clicks_on_a_header(page):
    header = page.get_by_role("columnheader", name="acc")
    header.get_by_role("button").click()
    expect(header).to_have_attribute("aria-sort", "descending")
    expect(page.locator("tbody .open").first).to_have_text("run 11")
    header.get_by_role("button").click()
    expect(header).to_have_attribute("aria-sort", "ascending")
    expect(page.locator("tbody .open").first).to_have_text("run 0")
    assert "order=%2Bsummary_metrics.acc" in page.url


def test_columns_are_chosen_by_the_keyboard_and_stand_in_the_link(page):
    page.get_by_role("button", name="Columns").press("Enter")
    expect(page.get_by_placeholder("Search")).to_be_focused()
    page.keyboard.type("opt")
    page.keyboard.press("Tab")
    expect(page.get_by_label("config.opt.name")).to_be_focused()
    if not page.get_by_label("config.opt.name").is_checked():
        page.keyboard.press("Space")
    page.get_by_placeholder("Search").fill("history_rows")
    page.get_by_label("history_rows").check()
    page.get_by_role("button", name="Done").click()
    expect(page.get_by_role("columnheader", name="history rows")).to_be_visible()
    expect(page.get_by_role("columnheader", name="opt.name")).to_be_visible()
    row = page.locator("tbody tr", has_text="run 3")
    expect(row).to_contain_text("adam")
    expect(row).to_contain_text("20")
    again = page.context.new_page()
    again.goto(page.url)
    expect(again.get_by_role("columnheader", name="history rows")).to_be_visible()


def test_runs_and_metrics_are_chosen_and_drawn(page):
    page.get_by_role("button", name="Clear selection").click()
    expect(page.get_by_text("Tick runs in the table")).to_be_visible()
    for name in ("run 2", "run 7"):
        page.get_by_role("checkbox", name=f"Draw {name}").check()
    expect(lines(page, "loss")).to_have_count(2)
    expect(page.get_by_role("list", name="Drawn runs").get_by_role("button")).to_have_text(["run 2", "run 7"])
    page.get_by_role("button", name="Metrics").click()
    page.get_by_role("checkbox", name=re.compile("^acc")).uncheck()
    page.get_by_role("button", name="Done").click()
    expect(page.locator("figure")).to_have_count(1)
    plot = page.locator("figure .nsewdrag")
    plot.hover()  # scrolls it into sight, which hides what is shown at the pointer
    plot.hover(position={"x": 40, "y": 40})
    expect(page.get_by_role("tooltip")).to_contain_text("step")
    expect(page.get_by_role("tooltip")).to_contain_text("run 7")
    page.get_by_label("x axis").select_option("run time")
    page.get_by_label("log scale").check()
    page.get_by_label("Smoothing").fill("0.5")
    expect(page.locator("#smoothing-shown")).to_have_text("0.50")
    # Every smoothed line has its values faintly behind it.
    expect(lines(page, "loss")).to_have_count(4)
    assert "x=_runtime" in page.url
    assert "log=y" in page.url
    page.get_by_role("button", name="Remove run 2 from the charts").click()
    expect(lines(page, "loss")).to_have_count(2)


def test_a_growing_run_grows_on_the_page_and_what_was_chosen_stays(page, site):
    page.get_by_role("button", name="Columns").click()
    page.get_by_placeholder("Search").fill("history_rows")
    page.get_by_label("history_rows").check()
    page.get_by_role("button", name="Done").click()
    expect(page.get_by_role("columnheader", name="history rows")).to_be_visible()
    box = page.get_by_role("checkbox", name="Draw still training")
    page.get_by_role("checkbox", name="Draw run 11").uncheck()
    box.focus()
    expect(lines(page, "loss")).to_have_count(4)
    rows = page.locator("tbody tr", has_text="still training").locator("td:not(.rest)").last
    before = int(rows.text_content())
    log_curve(site.live, 7, start=before)
    expect(rows).to_have_text(str(before + 7))
    expect(box).to_be_focused()
    expect(lines(page, "loss")).to_have_count(4)
    last = "() => Math.max(...document.querySelector('figure[data-key=loss] .plot').data[0].x)"
    site.until(lambda: page.evaluate(last) == before + 6)


def test_a_run_shows_all_of_itself(page):
    page.get_by_role("button", name="run 3", exact=True).click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading", name="run 3")).to_be_visible()
    expect(dialog).to_contain_text("opt.name")
    expect(dialog.get_by_role("link", name="Open on W&B")).to_have_attribute("href", re.compile(r"/runs/run03$"))
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


def test_the_cookie_opens_it_again_and_without_it_the_page_is_locked(page, browser, site):
    again = page.context.new_page()
    again.goto(site.served())
    expect(again.get_by_role("heading", name="team/vision")).to_be_visible()
    with browser.new_context() as stranger:
        locked = stranger.new_page()
        assert locked.goto(site.served()).status == 401
        expect(locked.get_by_role("heading", name="This page is locked")).to_be_visible()


def test_it_says_when_nothing_is_mirrored_yet_and_when_the_daemon_is_gone(page):
    empty = {
        "snapshot": "",
        "daemon": {"base_url": "x", "errors": ["cannot reach x"], "failed_runs": {}},
        "projects": [],
    }
    page.route("**/api/state?", lambda route: route.fulfill(json=empty))
    page.reload()
    expect(page.get_by_text("Nothing is mirrored yet")).to_be_visible()
    expect(page.get_by_text("cannot reach x")).to_be_visible()
    expect(page.get_by_label("Find runs")).to_be_hidden()
    page.route("**/api/state?", lambda route: route.abort())
    expect(page.get_by_role("status").filter(has_text="does not answer")).to_be_visible()
    page.unroute_all()
    expect(page.locator("tbody .open").first).to_be_visible()
    expect(page.get_by_text("does not answer")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_width_makes_the_page_scroll_sideways(page, scheme):
    page.emulate_media(color_scheme=scheme)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}[scheme]
    for width in (1600, 760, 360):
        page.set_viewport_size({"width": width, "height": 800})
        expect(lines(page, "loss")).to_have_count(5)
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    page.get_by_role("combobox", name="Project").select_option("team/language")
    expect(page.locator("tbody .open")).to_have_text(["other"])


def test_charts_over_different_axes_name_theirs(page, site):
    """As define_metric says; a chosen axis stands above them once."""
    defined = {"m": [{"1": "epoch"}, {"2": "val/*", "5": 1}]}
    run = site.world.add_run("team", "language", run_id="axes", name="over epochs", config={}, wandb_config=defined)
    for step in range(20):
        run.log({"loss": 1 / (step + 1), **({"epoch": step // 4, "val/loss": 2 / (step + 1)} if step % 4 == 0 else {})})
    run.finish()
    page.get_by_role("navigation").get_by_role("button").nth(0).click()

    def titles(key):
        return page.locator(f'figure[data-key="{key}"] .xtitle')

    expect(titles("val/loss")).to_have_text("epoch")
    expect(titles("loss")).to_have_text("step")
    page.get_by_label("x axis").select_option("step")
    expect(titles("val/loss")).to_have_count(0)
    expect(titles("loss")).to_have_count(0)
    page.get_by_label("x axis").select_option("as defined")
    expect(titles("val/loss")).to_have_text("epoch")
