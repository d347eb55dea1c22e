"""Takes the pictures of README.md and docs/ from the page, over the sample projects of `mirror demo`.

It needs the development requirements and Chromium. Writes page.png, page-run.png and page-compare.png beside itself.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from mirror.sandbox import Sandbox, sample

DOCS = Path(__file__).parent
MIRROR = Path(sys.executable).with_name("mirror")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SIZE = {"width": 1280, "height": 1010}

CONFIG = """projects = ["acme/vision", "acme/language", "acme/rl-control"]
[sync]
system_metrics = true
metadata = true
console = true
files = true
[http]
listen = "127.0.0.1:0"
"""


@contextmanager
def link() -> Iterator[str]:
    """The address of the page of a daemon that has mirrored the sample, with its token."""
    home = Path(tempfile.mkdtemp(prefix="m"))
    try:
        with Sandbox(sample.full()) as server:
            environ = os.environ | {"MIRROR_HOME": str(home), "HOME": str(home)}
            environ |= {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": server.key}
            (home / "config.toml").write_text(CONFIG)
            subprocess.run([MIRROR, "sync"], env=environ, check=True)
            with subprocess.Popen([MIRROR, "-q", "daemon"], env=environ) as daemon:
                try:
                    while not (home / "mirror.sock").exists():
                        if daemon.poll() is not None:
                            sys.exit("the daemon ended")
                        time.sleep(0.2)
                    # Goes through the daemon, and so waits until it serves.
                    subprocess.run([MIRROR, "sync"], env=environ, check=True)
                    shown = subprocess.run(
                        [MIRROR, "open", "--print"], env=environ, check=True, capture_output=True, text=True
                    )
                    yield shown.stdout.strip()
                finally:
                    daemon.terminate()
    finally:
        shutil.rmtree(home)


VIEWS = {
    # The mean of each group of runs with its band, below the runs that a line of terms finds.
    "page": (
        "project=acme/vision&find=config.lr%3C0.003&runs=all&key=val/acc&key=loss&group=config.optimizer.name",
        'figure[data-key="loss"] .js-line',
    ),
    "page-run": ("details=acme/vision/c99c94d4", "#run-config dt"),
    "page-compare": ("compare=acme/vision/c99c94d4&compare=acme/vision/f9a2cc63", "#compare-differing tr"),
}
"""Name of the picture: the view, as in the address of the page, and what is drawn last in it."""


def main() -> None:
    """Take all of them."""
    with link() as address, sync_playwright() as playwright:
        # Chromium's own sandbox does not start as root, as which containers run.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(viewport=SIZE, color_scheme="light")
        context.set_default_timeout(60_000)
        context.new_page().goto(address)
        for name, (view, last) in VIEWS.items():
            page = context.new_page()
            page.goto(f"{address.split('?')[0]}#{view}")
            page.locator(last).first.wait_for()
            _take(page, DOCS / f"{name}.png")
        browser.close()


def _take(page: Page, path: Path) -> None:
    """Save what is shown, with a palette: a fraction of the bytes, and no difference to be seen."""
    page.screenshot(path=path, animations="disabled")
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main()
