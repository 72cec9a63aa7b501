"""A headless Chromium for the tests, over the WebDriver protocol (https://www.w3.org/TR/webdriver2/); the standard library
alone.
"""

import base64
import contextlib
import json
import pathlib

from harness import fetch, free_ports, listening

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
KEYS = {"tab": "\ue004", "enter": "\ue007", "escape": "\ue00c", "space": " ", "left": "\ue012", "up": "\ue013", "right": "\ue014", "down": "\ue015"}


class Browser:
    """One window of Debian's chromium, driven by its chromedriver."""

    def __init__(self, test):
        [self.port] = free_ports(1)
        self.driver = test.start("chromedriver", ["chromedriver", f"--port={self.port}"])
        listening(self.port, self.driver)
        profile = test.dir / "chromium"
        options = {"args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
                            "--force-color-profile=srgb", f"--user-data-dir={profile}"]}
        capabilities = {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}}
        self.session = self.call("POST", "/session", {"capabilities": capabilities}, prefix="")["sessionId"]

    def call(self, method, path, body=None, prefix=None):
        prefix = f"/session/{self.session}" if prefix is None else prefix
        text = None if method == "GET" else json.dumps(body or {})
        status, _, answer = fetch(self.port, prefix + path, method, {"content-type": "application/json"}, text, timeout=60)
        value = json.loads(answer)["value"]
        if status != 200:
            raise RuntimeError(f"{method} {path}: {value['error']}: {value['message'][:500]}")
        return value

    def close(self):
        with contextlib.suppress(OSError, RuntimeError):
            self.call("DELETE", "")

    def open(self, url):
        self.call("POST", "/url", {"url": url})

    def run(self, script, *arguments):
        """The value of a function's body in the page."""
        return self.call("POST", "/execute/sync", {"script": script, "args": arguments})

    def later(self, script, *arguments):
        """The value that a function's body gives to its last argument, a function."""
        return self.call("POST", "/execute/async", {"script": script, "args": arguments})

    def find(self, selector):
        return self.call("POST", "/element", {"using": "css selector", "value": selector})[ELEMENT]

    def click(self, selector):
        self.call("POST", f"/element/{self.find(selector)}/click")

    def type(self, selector, text):
        self.call("POST", f"/element/{self.find(selector)}/value", {"text": text})

    def press(self, *keys):
        """Keys, one after the other, whatever has the focus."""
        actions = [action for key in keys for action in ({"type": "keyDown", "value": KEYS.get(key, key)}, {"type": "keyUp", "value": KEYS.get(key, key)})]
        self.call("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def text(self, selector):
        """The text of the first node that fits; empty if none does."""
        return self.run("return document.querySelector(arguments[0])?.textContent ?? ''", selector)

    def size(self, width, height, scale=1):
        self.devtools("Emulation.setDeviceMetricsOverride",
                      {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False})

    def media(self, **features):
        """Emulates media features: `color_scheme="dark"` is prefers-color-scheme."""
        features = [{"name": f"prefers-{name.replace('_', '-')}", "value": value} for name, value in features.items()]
        self.devtools("Emulation.setEmulatedMedia", {"features": features})

    def devtools(self, command, parameters):
        return self.call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def console(self):
        """What the console has said since it was last asked."""
        return self.call("POST", "/se/log", {"type": "browser"})

    def picture(self, path, whole=True):
        """A screenshot, of the whole page or of the window."""
        parameters = {"format": "png", "captureBeyondViewport": whole}
        if whole:
            size = self.run("return [innerWidth, document.documentElement.scrollHeight]")
            parameters["clip"] = {"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1}
        data = self.devtools("Page.captureScreenshot", parameters)["data"]
        pathlib.Path(path).write_bytes(base64.b64decode(data))
