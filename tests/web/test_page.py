"""The page in a real browser, by clicks and typing."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import axe_playwright_python
import pytest
from playwright.sync_api import expect, sync_playwright

from tests.web.conftest import log_curve

# The headless shell draws the same pages with a third less CPU time.
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)
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
    expect(page.locator("#table tbody tr:not(.gap)").nth(1)).to_be_visible()
    expect(page.locator("[aria-busy]")).to_have_count(0)
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


def test_a_filter_is_typed_and_its_errors_are_shown_beside_it(page):
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
    assert page.locator("#table thead th").all_text_contents() == ["", "run_id", "history_rows", "third"]
    assert page.locator("#table tbody tr").nth(1).locator("td").all_text_contents()[1:-1] == ["run10", "20", "6.667"]
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
    row = page.locator("#table tbody tr", has_text="run 3")
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
    rows = page.locator("#table tbody tr", has_text="still training").locator("td:not(.rest)").last
    before = int(rows.text_content())
    log_curve(site.live, 7, start=before)
    site.pull()
    expect(rows).to_have_text(str(before + 7))
    expect(box).to_be_focused()
    expect(lines(page, "loss")).to_have_count(4)
    last = "() => Math.max(...document.querySelector('figure[data-key=loss] .plot').data[0].x)"
    site.until(lambda: page.evaluate(last) == before + 6)


def test_a_run_has_a_page_of_its_own_and_back_leads_to_the_same_list(page):
    page.get_by_label("Find runs").fill("run 3")
    expect(page.locator("#count")).to_have_text("1 of 13 runs")
    page.get_by_role("link", name="run 3", exact=True).click()
    shown = page.get_by_role("article")
    expect(shown.get_by_role("heading", name="run 3")).to_be_visible()
    assert page.url.endswith("#details=team/vision/run03")
    for part in ("opt.name", "node1", "epoch 2", "model.pt", "system.cpu"):
        expect(shown).to_contain_text(part)
    expect(shown.get_by_role("link", name="Open on W&B")).to_have_attribute("href", re.compile(r"/runs/run03$"))
    shown.get_by_label("Search config").fill("opt")
    expect(shown.locator("#run-config dt")).to_have_text(["opt.name"])
    page.reload()
    expect(shown.get_by_role("heading", name="run 3")).to_be_visible()
    shown.get_by_role("link", name="team/vision").click()
    expect(page.locator("#count")).to_have_text("1 of 13 runs")
    page.goto(page.url.replace("find=run+3", "details=team/vision/none"))
    expect(page.locator("#run-problem")).to_contain_text("no run team/vision/none in the mirror")


def test_runs_are_compared_differences_first(page):
    page.get_by_role("button", name="Clear selection").click()
    for name in ("run 2", "run 3"):
        page.get_by_role("checkbox", name=f"Draw {name}", exact=True).check()
    page.get_by_role("link", name="Compare 2 runs").click()
    assert page.url.endswith("#compare=team/vision/run02&compare=team/vision/run03")
    differing = page.locator("#compare-differing tr")
    expect(differing.filter(has_text="opt.name")).to_have_text("opt.namesgdadam")
    expect(differing.filter(has_text="model.pt")).to_have_count(0)
    expect(page.locator("#compare-same")).to_be_hidden()
    page.get_by_role("button", name=re.compile("Show .* the same")).click()
    expect(page.locator("#compare-same tr").filter(has_text="state")).to_have_text("statefinishedfinished")
    page.go_back()
    expect(page.get_by_role("list", name="Drawn runs").get_by_role("button")).to_have_text(["run 2", "run 3"])


def test_groups_are_drawn_as_means_over_any_key_and_stand_in_the_address(page, site):
    """Of all runs that were found, or of those that are ticked."""
    page.get_by_label("Group by").select_option("config.opt.name")
    legend = page.get_by_role("list", name="Drawn groups").get_by_role("listitem")
    expect(legend).to_have_text(["adam (6 runs)", "sgd (6 runs)", "not set (1 run)"])
    page.get_by_label("x axis").select_option("acc")
    last = "() => Math.max(...document.querySelector('figure[data-key=loss] .plot').data.at(-2).x)"
    site.until(lambda: page.evaluate(last) == 0.19)
    page.reload()
    expect(legend).to_have_text(["adam (6 runs)", "sgd (6 runs)", "not set (1 run)"])
    assert page.get_by_label("x axis").input_value() == "acc"
    page.get_by_role("button", name="Clear selection").click()
    page.get_by_role("checkbox", name="Draw run 2", exact=True).check()
    expect(legend).to_have_text(["sgd (1 run)"])
    page.get_by_role("checkbox", name="Draw all found runs").check()
    expect(legend).to_have_text(["adam (6 runs)", "sgd (6 runs)", "not set (1 run)"])
    page.get_by_label("Group by").select_option("nothing")
    expect(lines(page, "loss")).to_have_count(13)


def test_a_chart_is_enlarged_and_downloaded(page):
    page.get_by_role("checkbox", name="Draw still training").uncheck()
    page.get_by_role("button", name="Enlarge loss").click()
    dialog = page.get_by_role("dialog", name="loss")
    expect(dialog.locator(".scatterlayer .trace")).to_have_count(4)
    assert "chart=loss" in page.url
    with page.expect_download() as table:
        dialog.get_by_role("button", name="CSV").click()
    rows = list(csv.DictReader(table.value.path().read_text().splitlines()))
    assert len(rows) == 80
    assert rows[1] == {"run": "team/vision/run11", "name": "run 11", "step": "1", "loss": "0.5"}
    with page.expect_download() as picture:
        dialog.get_by_role("button", name="PNG").click()
    assert picture.value.path().read_bytes().startswith(b"\x89PNG")
    assert picture.value.suggested_filename == "loss_over_step.png"
    page.reload()
    expect(dialog.locator(".scatterlayer .trace")).to_have_count(4)
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page).not_to_have_url(re.compile("chart="))


def test_who_leaves_a_dialog_by_another_address_gets_there(page):
    """The dialog's end is an event of its own, which stores the view before the page has read the new address."""
    page.get_by_role("button", name="Enlarge loss").click()
    expect(page.get_by_role("dialog", name="loss")).to_be_visible()
    page.evaluate("document.querySelector('#enlarged').close(); location.hash = '#details=team/vision/run03'")
    expect(page.locator("#run-system .main-svg").first).to_be_visible()
    assert page.url.endswith("#details=team/vision/run03")


def test_an_error_stands_alone_and_is_no_dead_daemon(page, site):
    """Nothing of the former answer stays beside it, and what the page dropped itself is no error."""
    box = page.get_by_label("Find runs")
    box.fill('{"config.lrr": 1}')
    box.press("Enter")
    expect(page.locator("#warnings")).to_contain_text("did you mean 'lr'?")
    box.fill('{"stat": "running"}')
    box.press("Enter")
    expect(page.locator("#problem")).to_contain_text("did you mean 'state'?")
    expect(page.locator("#count")).to_be_empty()
    expect(page.locator("#warnings")).to_be_empty()
    expect(page.locator("tbody .open")).to_have_count(0)
    expect(page.locator("figure")).to_have_count(0)
    # The mirror moves meanwhile; the second answer comes after all that the first one led to.
    log_curve(site.live, 2, start=60)
    with page.expect_response(lambda answer: "/api/state" in answer.url and answer.status == 200):
        site.pull()
    with page.expect_response(lambda answer: "/api/state" in answer.url):
        pass
    expect(page.locator("#connection")).to_be_empty()
    expect(page.locator("#problem")).to_contain_text("did you mean 'state'?")
    # Overtaken by the next one while it is answered: the first is dropped.
    page.route("**/api/runs?*", lambda route: route.continue_() if "run+1" in route.request.url else None)
    for text in ('{"state": "running"}', "run 1"):
        box.fill(text)
        box.press("Enter")
    expect(page.locator("#count")).to_have_text("3 of 13 runs")
    expect(page.locator("#problem")).to_be_hidden()
    expect(page.locator("#connection")).to_be_empty()
    page.unroute_all()


def test_unknown_names_in_a_link_are_answered_with_the_nearest(page):
    base = page.url.split("#")[0]

    def open_(view):
        page.goto(f"{base}#{view}")
        page.reload()

    open_("project=team/vision&column=config.opt.nam&key=loss&key=ac&run=team/vision/run03&run=team/vision/run99")
    expect(page.locator("#warnings")).to_contain_text("config key 'opt.nam' is in no run; did you mean 'opt.name'?")
    expect(page.locator("#charts-warning")).to_contain_text("under ac; did you mean acc?")
    expect(page.locator("#charts-warning")).to_contain_text("no run team/vision/run99 in the mirror")
    open_("project=team/vision&group=config.opt.nam")
    expect(page.locator("#charts-problem")).to_contain_text("did you mean 'opt.name'?")
    open_("project=team/vision&x=ac")
    expect(page.locator("#charts-problem")).to_contain_text("the x axis; did you mean acc?")
    expect(page.locator("figure")).to_have_count(0)
    open_("project=team/visio")
    expect(page.locator("#problem")).to_contain_text("no project team/visio in the mirror; did you mean team/vision?")


def test_the_keyboard_reaches_everything_in_a_few_stops(page):
    """The table is one of them; the arrow keys move within it, and links skip to runs and charts."""
    names_ = []
    page.locator("h1").click()
    for _ in range(30):
        page.keyboard.press("Tab")
        names_.append(
            page.evaluate(
                "document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent.trim()"
            )
        )
        if names_[-1] == "Metrics":
            break
    assert len(names_) <= 8, names_
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Control+Home")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#table tbody tr:not(.gap)").nth(1).locator(":focus")).to_have_count(1)
    page.keyboard.press("End")
    page.keyboard.press("Space")
    expect(lines(page, "loss")).to_have_count(4)
    page.keyboard.press("Control+Home")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Home")
    expect(page.get_by_role("checkbox", name="Draw all found runs")).to_be_focused()


def luminance(colour):
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nobody_is_kept_out(page, scheme):
    """axe finds nothing on any page and in any dialog, and each curve stands out from the ground."""
    axe = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
    page.emulate_media(color_scheme=scheme)

    def violations():
        expect(page.locator("[aria-busy]")).to_have_count(0)
        page.evaluate(axe)
        found = page.evaluate("axe.run().then((found) => found.violations)")
        return [(each["id"], [node["html"] for node in each["nodes"]]) for each in found]

    expect(lines(page, "loss")).to_have_count(5)
    assert violations() == []
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("checkbox", name="Draw all found runs").check()
    expect(lines(page, "loss")).to_have_count(13)
    strokes = page.locator('figure[data-key="loss"] .js-line').evaluate_all(
        "all => all.map(each => getComputedStyle(each).stroke)"
    )
    for stroke in strokes:
        dark, light = sorted([luminance(stroke), luminance(ground)])
        assert (light + 0.05) / (dark + 0.05) >= 3, stroke
    for button in ("Columns", "Metrics", "Enlarge loss"):
        page.get_by_role("button", name=button).click()
        expect(page.get_by_role("dialog")).to_be_visible()
        assert violations() == [], button
        page.keyboard.press("Escape")
    base = page.url.split("#")[0]
    for view, part in (
        ("details=team/vision/run03", "#run-system .main-svg"),
        ("compare=team/vision/run02&compare=team/vision/run03", "#compare-differing tr"),
    ):
        page.goto(f"{base}#{view}")
        expect(page.locator(part).first).to_be_visible()
        assert violations() == [], view


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
    site.pull()
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
