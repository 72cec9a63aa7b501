"""The live page in a real browser under live load: it shows what is there, steers what it says it steers, and is safe and
usable by keyboard, by screen readers, on a phone and on a wall.

    tests/real/page.sh [--pictures FOLDER]
"""

import argparse
import contextlib
import http.client
import json
import os
import pathlib
import re
import subprocess
import sys
import threading
import time

import jsonschema  # Debian's python3-jsonschema

from browser import Browser
from harness import ROOT, Test, binary, fetch, free_ports, listening, until

TOKEN = "page-0123456789abcdef0123456789"
KEYS = {name: {"x-api-key": f"{name}-0123456789abcdef0123456789"} for name in ("webshop", "export", "hostile")}
HOSTILE_NAME = "<img src=x onerror=alert(1)>"
HOSTILE_PATH = "/strange/\"onmouseover=alert(1)%20x=\"%3Cimg%20src=x%20onerror=alert(1)%3E"
SIZES = {"phone": (360, 780), "desk": (1280, 900), "wall": (2560, 1440)}


class World:
    """Two boxes, Vaxel, and clients that never rest."""

    def __init__(self, test):
        self.test, self.stop, self.threads = test, threading.Event(), []
        self.erp, self.crm, self.plain, self.secure, self.admin = free_ports(5)
        certs = test.dir / "certs"
        subprocess.run([binary(), "certs", "--dir", str(certs)], check=True, capture_output=True)
        self.config = test.write("page.toml", (ROOT / "tests/real/page.toml").read_text())
        test.vaxel("sim", "--listen", f"127.0.0.1:{self.erp}", "--processes", "8", "--service", "60ms", name="erp")
        test.vaxel("sim", "--listen", f"127.0.0.1:{self.crm}", "--processes", "6", "--service", "40ms", "--seed", "7", name="crm")
        self.env = os.environ | {
            "PLAIN": f"127.0.0.1:{self.plain}", "SECURE": f"127.0.0.1:{self.secure}", "ADMIN": f"127.0.0.1:{self.admin}",
            "TOKEN": TOKEN, "CERTS": str(certs), "ERP": f"http://127.0.0.1:{self.erp}", "CRM": f"http://127.0.0.1:{self.crm}"}
        self.vaxel = test.vaxel("run", "--config", self.config, env=self.env)
        for port in (self.erp, self.crm, self.plain, self.admin):
            listening(port, self.vaxel)
        self.url = f"http://127.0.0.1:{self.admin}/"

    def ask(self, path, method="GET", body=None, token=TOKEN):
        """The admin API: (status, content type, JSON or text)."""
        fields = {"Authorization": f"Bearer {token}"} if token else {}
        body = None if body is None else json.dumps(body)
        status, fields, answer = fetch(self.admin, path, method, fields, body)
        kind = fields.get("content-type", "")
        return status, kind, json.loads(answer) if "json" in kind else answer.decode()

    def upstream(self, name="erp"):
        return next(one for one in self.ask("/upstreams")[2] if one["upstream"] == name)

    def command(self, *arguments):
        """A command of the binary against it: (exit code, output)."""
        env = self.env | {"VAXEL_ADMIN": f"http://127.0.0.1:{self.admin}", "VAXEL_ADMIN_TOKEN": TOKEN}
        done = subprocess.run([binary(), *arguments], env=env, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
        return done.returncode, done.stdout + done.stderr

    def load(self):
        """Clients of every kind, at about the capacity of the boxes."""
        for number in range(8):
            self.client("webshop", 0.06, lambda turn, number=number: f"/catalog/{(turn * 7 + number) % 60}")
        for number in range(6):
            self.client("webshop", 0.03, lambda turn, number=number: f"/account/{number}-{turn}")
        for number in range(10):
            self.client("export", 0.0, lambda turn, number=number: f"/account/export-{number}-{turn}")
        for number in range(3):
            self.client(None, 0.05, lambda turn, number=number: f"/catalog/{turn % 25}", host="crm.example")
        self.client(None, 0.6, lambda turn: "/report")
        self.client("hostile", 0.5, lambda turn: HOSTILE_PATH)

    def client(self, consumer, pause, path, host="erp.example"):
        def rounds():
            turn = 0
            while not self.stop.is_set():
                connection = http.client.HTTPConnection("127.0.0.1", self.plain, timeout=30)
                with contextlib.suppress(OSError, http.client.HTTPException):
                    while not self.stop.is_set():
                        turn += 1
                        connection.putrequest("GET", path(turn), skip_host=True)
                        for name, value in ({"Host": host} | KEYS.get(consumer, {})).items():
                            connection.putheader(name, value)
                        connection.endheaders()
                        answer = connection.getresponse()
                        answer.read()
                        self.stop.wait(pause if answer.status < 400 else pause + 0.5)
                connection.close()
                self.stop.wait(0.2)
        thread = threading.Thread(target=rounds, daemon=True)
        thread.start()
        self.threads.append(thread)

    def end(self):
        self.stop.set()
        for thread in self.threads:
            thread.join(5)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=pathlib.Path, help="where screenshots are left")
    parser.add_argument("--grow", type=float, default=0, metavar="SECONDS", help="how long curves may grow before")
    arguments = parser.parse_args()
    with Test("page") as test:
        world = World(test)
        world.pictures = arguments.pictures or test.dir
        world.pictures.mkdir(parents=True, exist_ok=True)
        world.grow = arguments.grow
        world.load()
        browser = Browser(test)
        try:
            for title, part in PARTS:
                with test.part(title):
                    part(test, world, browser)
        finally:
            browser.close()
            world.end()
    sys.exit(test.code)


def state(browser):
    return browser.text("#state")


def confirm(browser, button="#dialog-do"):
    """Confirms the dialog that is open, and waits until it is closed."""
    until("a dialog is open", lambda: browser.run("return document.getElementById('dialog').open"))
    browser.click(button)
    until("the dialog is closed", lambda: not browser.run("return document.getElementById('dialog').open"))


def lever(gear, card=1):
    return f".card:nth-child({card}) .gate label[data-gear={gear}]"


def token(test, world, browser):
    browser.size(*SIZES["desk"])
    browser.media(color_scheme="dark")
    browser.open(world.url)
    until("it asks for the token", lambda: browser.run("return document.getElementById('dialog').open"))
    test.equal("nothing is shown before", browser.text("#cards"), "")
    browser.type("#dialog input", "not-the-token")
    browser.click("#dialog-do")
    until("a wrong one is refused", lambda: "not the token" in browser.text("#dialog-error"))
    browser.run("document.querySelector('#dialog input').value = ''")
    browser.type("#dialog input", TOKEN)
    confirm(browser)
    until("the page lives", lambda: state(browser) == "live")
    test.check("the token asked for once opens it", True)
    kept = browser.run("return [sessionStorage.length, localStorage.length, document.cookie, location.href]")
    test.equal("it is kept in the session's storage alone", kept, [1, 0, "", world.url])
    noise = [line for line in browser.console() if "401" not in line["message"]]
    test.equal("the console says nothing but that", noise, [])


def live(test, world, browser):
    figures = lambda: browser.text(".card .facts")
    first = until("an upstream is shown", figures)
    until("its figures move", lambda: figures() != first)
    until("curves are drawn", lambda: browser.run(
        "return [...document.querySelectorAll('.card:first-child svg')].every((one) => one.querySelectorAll('path[d^=M]').length > 0)"))
    label = browser.run("return document.querySelector('.card:first-child .slots').getAttribute('aria-label')")
    test.check("slots are told in words", label.startswith("8 slots: ") and "busy" in label, label)
    until("somebody is refused", lambda: browser.run("return document.querySelectorAll('#refused button').length"), 30)
    until("consumers have shares", lambda: "%" in browser.text("#consumers"))
    test.check("windows are shown", all(word in browser.text("#calendar") for word in ("month-end", "lunch", "open, ends in")))
    until("advice is shown, or that there is none", lambda: browser.text("#advice"))
    test.check("certificates are shown", "site.pem" in browser.text("#certificates"))
    browser.click("#config summary")
    until("the configuration is shown", lambda: "[upstream.erp]" in browser.text("#config-text"))
    test.check("without its secrets", "webshop-0123456789" not in browser.text("#config-text") and TOKEN not in browser.text("#config-text"))
    browser.click("#config summary")
    browser.click("#refused button")
    until("why is told", lambda: "upstream erp" in browser.text("#dialog-body"))
    browser.click("#dialog-cancel")
    test.equal("the console is silent", browser.console(), [])


def strangers(test, world, browser):
    until("the name of a consumer is text", lambda: HOSTILE_NAME in browser.text("#consumers"))
    until("a path is text", lambda: browser.run(
        "return [...document.querySelectorAll('.accounts')].some((one) => one.textContent.includes('onerror'))"), 40)
    test.equal("no markup came of them", browser.run("return document.querySelectorAll('img, main script, main iframe').length"), 0)
    policy = browser.later("""
        const done = arguments[arguments.length - 1];
        document.addEventListener("securitypolicyviolation", (event) => done(event.effectiveDirective), { once: true });
        try { document.getElementById("about").innerHTML = "<b>x</b>"; } catch { done("refused"); }
    """)
    test.check("and none could have", policy in ("refused", "require-trusted-types-for"), policy)
    browser.console()


def gears(test, world, browser):
    browser.click(lever("limp"))
    until("a dialog says what will happen", lambda: "half of its slots" in browser.text("#dialog-body"))
    browser.click("#dialog-cancel")
    test.equal("cancelled, nothing happens", world.upstream()["cause"] == "operator", False)
    browser.click(lever("limp"))
    confirm(browser)
    stand = world.upstream()
    test.equal("confirmed, the gear is shifted", (stand["gear"], stand["cause"]), ("limp", "operator"))
    until("the page shows it", lambda: "limp: held by hand" in browser.text(".card .stand"))
    until("and says it aloud", lambda: "limp" in browser.text("#spoken"))
    label = browser.run("return document.querySelector('.card:first-child .slots').getAttribute('aria-label')")
    test.check("slots are withheld", "4 withheld" in label, label)
    browser.click(lever("auto"))
    confirm(browser)
    test.check("let go, it drives by itself", world.upstream()["cause"] != "operator", world.upstream())


def keyboard(test, world, browser):
    browser.run("document.querySelector(arguments[0]).focus()", lever("auto") + " input")
    until("auto is chosen", lambda: browser.run("return document.querySelector(arguments[0]).checked", lever("auto") + " input"))
    browser.press("right", "right")
    chosen = browser.run("return document.activeElement.value")
    test.equal("arrows only choose", (chosen, world.upstream()["cause"] == "operator"), ("park", False))
    browser.press("enter")
    until("Enter asks", lambda: "Nothing is sent" in browser.text("#dialog-body"))
    browser.press("escape")
    until("Escape cancels", lambda: not browser.run("return document.getElementById('dialog').open"))
    until("and the choice is taken back", lambda: browser.run("return document.querySelector(arguments[0]).checked", lever("auto") + " input"))
    browser.run("document.querySelector(arguments[0]).focus()", lever("auto") + " input")
    browser.press("right", "right", "enter")
    until("asked again", lambda: browser.run("return document.getElementById('dialog').open"))
    focused = browser.run("return document.getElementById('dialog').contains(document.activeElement)")
    test.check("the focus is in the dialog", focused)
    browser.press("tab", "tab", "tab", "enter") if browser.run("return document.activeElement.tagName") == "BODY" else keys_to(browser, "dialog-do")
    until("confirmed by keyboard alone", lambda: world.upstream()["gear"] == "park")
    until("the page follows", lambda: "park" in browser.text(".card .stand"))
    browser.run("document.querySelector(arguments[0]).focus()", lever("park") + " input")
    until("park is held", lambda: browser.run("return document.querySelector(arguments[0]).checked", lever("park") + " input"))
    browser.press("left", "left", "enter")
    until("asked to let go", lambda: browser.run("return document.getElementById('dialog').open"))
    keys_to(browser, "dialog-do")
    until("let go", lambda: world.upstream()["cause"] != "operator")
    reached = set()
    browser.run("document.activeElement.blur(); scrollTo(0, 0)")
    for _ in range(60):
        browser.press("tab")
        reached.add(browser.run("return document.activeElement.id || document.activeElement.value || document.activeElement.className"))
    wanted = {"purge", "reload", "drain", "key", "small breaker"}
    test.check("Tab reaches every order", wanted <= reached, wanted - reached)
    until("a visible focus", lambda: browser.run(
        "document.getElementById('purge').focus(); return getComputedStyle(document.activeElement).outlineStyle") == "solid")


def keys_to(browser, wanted):
    """Tab to a button of the dialog, and Enter."""
    for _ in range(8):
        if browser.run("return document.activeElement.id") == wanted:
            browser.press("enter")
            return
        browser.press("tab")
    raise RuntimeError(f"Tab does not reach {wanted}")


def breaker(test, world, browser):
    browser.click(".card .breaker")
    confirm(browser)
    test.equal("the breaker is held open", world.upstream()["breaker"], "forced_open")
    until("the page shows it", lambda: "forced open" in browser.text(".card .facts"))
    browser.click(".card .breaker")
    until("asked again", lambda: browser.run("return document.getElementById('dialog').open"))
    browser.click("#dialog input[value=release]")
    confirm(browser)
    test.check("and let go", world.upstream()["breaker"] != "forced_open", world.upstream())


def purge(test, world, browser):
    stored = lambda: next(route for route in world.ask("/cache")[2]["routes"] if route["route"] == "catalog")
    until("something is stored", lambda: stored()["entries"] > 0)
    before = metric(world, 'vaxel_cache_purges_total{extent="route"}')
    browser.click("#purge")
    until("asked", lambda: browser.run("return document.getElementById('dialog').open"))
    browser.run("document.querySelector('#dialog select').value = 'route'; document.querySelector('#dialog select').dispatchEvent(new Event('change'))")
    browser.type("#dialog input[name=value]", "nowhere")
    browser.click("#dialog-do")
    until("a mistake is told in the dialog", lambda: "no route nowhere" in browser.text("#dialog-error"))
    browser.run("document.querySelector('#dialog input[name=value]').value = 'catalog'")
    confirm(browser)
    test.equal("a route is purged", metric(world, 'vaxel_cache_purges_total{extent="route"}'), before + 1)


def metric(world, series):
    for line in world.ask("/metrics")[2].splitlines():
        if line.startswith(series + " "):
            return float(line.rsplit(" ", 1)[1])
    return 0.0


def reload(test, world, browser):
    good = world.config.read_text()
    world.config.write_text(good.replace("slots = 8", "slotz = 8"))
    browser.click("#reload")
    until("asked", lambda: browser.run("return document.getElementById('dialog').open"))
    browser.click("#dialog-do")
    until("mistakes are told", lambda: "slotz" in browser.text("#dialog-error"))
    test.check("and the old configuration stays", "slots = 8" in world.ask("/config")[2]["text"])
    browser.click("#dialog-cancel")
    until("the page says so", lambda: "last load" in browser.text("#notice"))
    code, output = world.command("reload")
    test.check("vaxel reload tells them too", code == 1 and "slotz" in output and "page.toml:" in output, (code, output))
    world.config.write_text(good.replace("slots = 8", "slots = 7"))
    browser.click("#reload")
    confirm(browser)
    until("a good one is in force", lambda: browser.run(
        "return document.querySelector('.card:first-child .slots').getAttribute('aria-label')").startswith("7 slots"))
    world.config.write_text(good)
    code, output = world.command("reload")
    test.check("vaxel reload reloads", code == 0 and "reloaded" in output, (code, output))
    code, output = world.command("status")
    test.check("vaxel status shows traffic and upstreams", code == 0 and "erp" in output and "from the store" in output, output)
    code, output = world.command("top", "--once")
    test.check("vaxel top prints a frame where there is no terminal", code == 0 and "erp" in output and "\x1b" not in output, output)
    code, output = world.command("drain")
    test.check("vaxel drain asks first", code == 1 and "--yes" in output, (code, output))


def renewed(test, world, browser):
    browser.run("sessionStorage.setItem('vaxel-token', 'an-old-one')")
    browser.click("#reload")
    until("asked", lambda: browser.run("return document.getElementById('dialog').open"))
    browser.click("#dialog-do")
    until("a token that is none any more is asked for", lambda: browser.text("#dialog-title") == "The admin token")
    browser.type("#dialog input", TOKEN)
    confirm(browser)
    test.equal("and taken", browser.run("return sessionStorage.getItem('vaxel-token')"), TOKEN)
    until("the page lives on", lambda: state(browser) == "live")
    browser.click("#reload")
    confirm(browser)
    test.equal("and acts again", browser.text("#dialog-error"), "")
    # Refused orders, of this part and those before, are in the console by Chromium's own hand.
    noise = [line for line in browser.console() if not re.search(r"status of 4(01|22)", line["message"])]
    test.equal("the console says nothing but that", noise, [])


def looks(test, world, browser):
    until("curves have grown", lambda: browser.run("return Math.max(...[...curves.values()].map((one) => one.busy.length))") > 20, 60)
    time.sleep(world.grow)
    axe = os.environ.get("AXE")
    for scheme in ("dark", "light"):
        browser.media(color_scheme=scheme)
        for name, (width, height) in SIZES.items():
            browser.size(width, height)
            until("it is laid out", lambda: browser.run("return innerWidth") == width)
            wide = browser.run("return document.documentElement.scrollWidth")
            test.check(f"{scheme}, {name}: nothing is wider than the window", wide <= width, wide)
            browser.run("scrollTo(0, 0)")
            browser.picture(world.pictures / f"{name}-{scheme}-window.png", whole=False)
            browser.picture(world.pictures / f"{name}-{scheme}.png")
            if name == "phone":
                for part in ("cards", "consumers-title", "refused-title"):
                    browser.run("document.getElementById(arguments[0]).scrollIntoView()", part)
                    browser.picture(world.pictures / f"{name}-{scheme}-{part}.png", whole=False)
        browser.size(*SIZES["desk"])
        if axe:
            accessible(test, browser, scheme, pathlib.Path(axe).read_text())
    browser.media(color_scheme="dark", reduced_motion="reduce")
    moves = browser.run("return getComputedStyle(document.querySelector('.lever')).transitionDuration")
    test.equal("who wants no motion gets none", moves, "0s")
    browser.media(color_scheme="dark")
    browser.click(lever("park"))
    until("a dialog is open", lambda: browser.run("return document.getElementById('dialog').open"))
    browser.picture(world.pictures / "dialog.png", whole=False)
    if axe:
        accessible(test, browser, "dialog", None)
    browser.click("#dialog-cancel")
    # A refused order is in the console as well, by Chromium's own hand.
    noise = [line for line in browser.console() if "status of 422" not in line["message"]]
    test.equal("the console is silent", noise, [])


def accessible(test, browser, what, axe):
    """axe-core's rules of WCAG 2.2 A and AA. Put in by the debugger: the page's policy admits no script of others."""
    if axe:
        browser.devtools("Runtime.evaluate", {"expression": axe})
    found = browser.later("""
        const done = arguments[arguments.length - 1];
        axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }).then(
          ({ violations }) => done(violations.map(({ id, nodes }) => [id, nodes.slice(0, 3).map((node) => node.html.slice(0, 160) + node.failureSummary)])),
          (error) => done(String(error)));
    """)
    test.equal(f"axe-core finds nothing ({what})", found, [])


def attackers(test, world, browser):
    events = lambda **fields: fetch(world.admin, "/status", headers=fields)[0]
    test.equal("without the token nobody looks", events(), 401)
    for path in ("/gear", "/breaker", "/purge", "/reload", "/drain"):
        test.equal(f"nor acts ({path})", fetch(world.admin, path, "POST", body="{}")[0], 401)
        status = fetch(world.admin, path, "POST", {"Authorization": f"Bearer {TOKEN}", "Origin": "http://evil.example"}, "{}")[0]
        test.equal(f"nor a page of another site ({path})", status, 403)
    status, fields, _ = fetch(world.admin, "/", headers={"Accept": "text/html"})
    test.check("no site may frame the page", status == 200 and "frame-ancestors 'none'" in fields["content-security-policy"])
    test.equal("no other origin may read", fetch(world.admin, "/status", headers={"Origin": "http://evil.example", "Authorization": f"Bearer {TOKEN}"})[1].get("access-control-allow-origin"), None)


def described(test, world, browser):
    """Each answer of the running gateway fits what docs/openapi.json says of it."""
    api = json.loads((ROOT / "docs/openapi.json").read_text())
    refused = next(iter(world.ask("/status")[2]["refused"]), None)
    requests = [
        ("get", "/", "/", None), ("get", "/livez", "/livez", None), ("get", "/readyz", "/readyz", None), ("get", "/metrics", "/metrics", None),
        ("get", "/status", "/status", None), ("get", "/config", "/config", None), ("get", "/cache", "/cache", None),
        ("get", "/cache/entry", "/cache/entry?url=http%3A%2F%2Ferp.example%2Fcatalog%2F7", None),
        ("get", "/cache/entry", "/cache/entry", None), ("get", "/upstreams", "/upstreams", None),
        ("get", "/advice", "/advice", None), ("get", "/advice", "/advice?format=text", None), ("get", "/advice", "/advice?x=1", None),
        ("get", "/explain", "/explain?url=http%3A%2F%2Ferp.example%2Fcatalog%2F7", None),
        ("get", "/why", "/why", None), ("get", "/why", "/why?id=0000000000000000", None), ("get", "/why", "/why?id=" + (refused or {}).get("request_id", "0"), None),
        ("post", "/purge", "/purge", {"prefix": "http://nowhere.example/"}), ("post", "/purge", "/purge", {}), ("post", "/purge", "/purge", {"route": "nowhere"}),
        ("post", "/gear", "/gear", {"upstream": "crm"}), ("post", "/gear", "/gear", {"upstream": "none"}), ("post", "/gear", "/gear", {"gear": 1}),
        ("post", "/breaker", "/breaker", {"upstream": "crm"}), ("post", "/reload", "/reload", {}),
    ]
    seen = set()
    for method, path, target, body in requests:
        status, kind, answer = world.ask(target, method.upper(), body)
        fits(test, api, method, path, status, kind, answer)
        seen.add((method, path))
    untried = {(method, path) for path, item in api["paths"].items() for method in item if method in ("get", "post")} - seen
    test.equal("every operation was tried", untried - {("get", "/status/events"), ("post", "/drain"), ("get", "/page.css"), ("get", "/page.js")}, set())
    fits(test, api, "get", "/status", 401, *world.ask("/status", token=None)[1:])


def fits(test, api, method, path, status, kind, answer):
    said = api["paths"][path][method]["responses"].get(str(status))
    if not test.check(f"{method} {path}: {status} is described", said is not None, answer):
        return
    while "$ref" in said:
        said = resolved(api, said["$ref"])
    media = kind.split(";")[0]
    if not test.check(f"{method} {path}: {status} is {media}", media in said["content"], sorted(said["content"])):
        return
    schema = said["content"][media].get("schema")
    if schema and "json" in media:
        validator = jsonschema.Draft202012Validator(schema | {"components": api["components"]})
        errors = [f"{list(error.absolute_path)}: {error.message[:200]}" for error in validator.iter_errors(answer)]
        test.equal(f"{method} {path}: {status} fits its schema", errors[:5], [])


def resolved(api, reference):
    node = api
    for part in reference.removeprefix("#/").split("/"):
        node = node[part]
    return node


def drain(test, world, browser):
    browser.click("#drain")
    until("asked", lambda: browser.run("return document.getElementById('dialog').open"))
    browser.click("#dialog-do")
    until("a word is wanted", lambda: "Type the word" in browser.text("#dialog-error"))
    browser.type("#dialog input", "drain")
    confirm(browser)
    test.equal("the process ends in order", world.vaxel.wait(20), 0)
    until("the page says that it is gone", lambda: browser.run("return document.getElementById('state').dataset.state") == "lost")


PARTS = [
    ("who has the token may look", token),
    ("the page shows what is there, and moves", live),
    ("what strangers chose stays text", strangers),
    ("a gear is shifted by the lever", gears),
    ("a gear is shifted by the keyboard", keyboard),
    ("the breaker is held and let go", breaker),
    ("answers are purged", purge),
    ("the configuration is reloaded", reload),
    ("a token that was changed is asked for anew", renewed),
    ("it can be read: small, large, dark, light, aloud", looks),
    ("nobody else gets in", attackers),
    ("answers are as docs/openapi.json says", described),
    ("the process is drained", drain),
]

if __name__ == "__main__":
    main()
