"""A real headless Chromium, and the report page in it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
CONTRAST = """
const seen = (colour) => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
  const context = canvas.getContext("2d");
  context.fillStyle = colour;
  context.fillRect(0, 0, 1, 1);
  return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3).map((part) => {
    const value = part / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
};
const light = (colour) => seen(colour).reduce((sum, part, i) => sum + part * [0.2126, 0.7152, 0.0722][i], 0);
const behind = (element) => {
  for (; element; element = element.parentElement) {
    const colour = getComputedStyle(element).backgroundColor;
    if (!colour.endsWith(", 0)")) return colour;
  }
  return "white";
};
const texts = [...document.querySelectorAll("body *:not(script):not(style):not(svg *)")].filter((element) =>
  element.checkVisibility() && [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()));
return texts.map((element) => {
  const [a, b] = [light(getComputedStyle(element).color), light(behind(element))].sort((x, y) => y - x);
  return [(a + 0.05) / (b + 0.05), element.outerHTML.slice(0, 80)];
}).filter(([ratio]) => ratio < 4.5);
"""


class Page:
    """The report page in a browser."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def cdp(self, command: str, **parameters: Any) -> Any:
        return self.driver.execute_cdp_cmd(command, parameters)

    def width(self, width: int, height: int = 800) -> None:
        phone = width < 600
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)

    def system(self, theme: str) -> None:
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])

    def open(self, file: Path) -> None:
        self.width(1280)
        self.system("light")
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        self.driver.get(file.as_uri())

    def names(self) -> list[str]:
        """Of the rows, from the top."""
        return self.run("return [...document.querySelectorAll('#results .name > button')].map((b) => b.textContent)")

    def column(self, place: int) -> list[str]:
        script = "return [...results.tBodies].map((body) => body.rows[0].cells[arguments[0]].dataset.sort)"
        return self.run(script, place)

    def head(self, place: int) -> Any:
        return self.driver.find_elements("css selector", "#results > thead th")[place]

    def shown(self) -> list[str]:
        """The ids of what is open."""
        return self.run("return [...document.querySelectorAll('.more')].filter((m) => m.offsetHeight).map((m) => m.id)")

    def colours(self) -> tuple[str, str, str]:
        """Of the page, of its text, and of the text in a figure."""
        return self.run(
            "const colour = (element, key) => getComputedStyle(element)[key];"
            "return [colour(document.body, 'backgroundColor'), colour(document.body, 'color'),"
            "colour(document.querySelector('#loss_steps svg use'), 'fill')]"
        )


def start(profile: Path) -> Any:
    """A browser with a profile of its own; None where Chromium or its driver is not installed."""
    if CHROMIUM is None or DRIVER is None:
        return None
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=Service(DRIVER))
