"""A real ERP behind Vaxel: Tryton's own server, driven by Tryton's own client library over its network protocol.

One script of a working day (company, chart of accounts, parties, products, a sale from draft to processing, stock,
invoice, report, many readers at once) runs against a fresh copy of the same database twice: directly, and through
Vaxel with four slots. Both must read back the same, and Vaxel must account for each request.
"""

import argparse
import base64
import collections
import concurrent.futures
import contextlib
import datetime
import http.client
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import time
import xmlrpc.client
import zipfile
from decimal import Decimal

import proteus
import proteus.config
from proteus import Model, Report
from trytond.modules.account.tests.tools import create_chart, create_fiscalyear, create_tax, get_accounts
from trytond.modules.account_invoice.tests.tools import create_payment_term, set_fiscalyear_invoice_sequences
from trytond.modules.company.tests.tools import create_company, get_company

from harness import ROOT, Test, fetch, free_ports, listening, scrape, settled

DATABASE = "erp"
PASSWORD = "a long enough passphrase"
SLOTS = 4
READERS = 12
READS = 5
BIN = pathlib.Path(sys.executable).parent


class Wire:
    """Counts what the client really sent, below the library's own retries and redirections."""

    def __init__(self):
        self.lock = threading.Lock()
        self.sent = 0
        self.statuses = collections.Counter()
        self._send = xmlrpc.client.Transport.send_request
        self._read = http.client.HTTPConnection.getresponse

    def __enter__(self):
        wire = self

        def send_request(transport, *arguments):
            connection = wire._send(transport, *arguments)
            with wire.lock:
                wire.sent += 1
            return connection

        def getresponse(connection, *arguments):
            response = wire._read(connection, *arguments)
            with wire.lock:
                wire.statuses[response.status] += 1
            return response

        xmlrpc.client.Transport.send_request = send_request
        http.client.HTTPConnection.getresponse = getresponse
        return self

    def __exit__(self, *_):
        xmlrpc.client.Transport.send_request = self._send
        http.client.HTTPConnection.getresponse = self._read


class Erp:
    """Tryton's server over its own copy of the database."""

    def __init__(self, test, name, prepared):
        directory = test.dir / name
        directory.mkdir()
        shutil.copy(prepared, directory / f"{DATABASE}.sqlite")
        self.port, = free_ports(1)
        config = test.write(f"{name}.conf", CONFIG.format(directory=directory, port=self.port))
        self.process = test.start(
            name, [BIN / "trytond", "-c", config, "-d", DATABASE, "-v"], env=environment())
        listening(self.port, self.process, timeout=60)

    def requests(self):
        """Requests in the server's own log."""
        return sum(" werkzeug " in line and " HTTP/1.1\"" in line for line in self.process.text().splitlines())


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--direct", action="store_true", help="leave Vaxel out")
    arguments = options.parse_args()
    with Test("tryton") as test:
        prepared = prepare(test)
        with test.part("directly"):
            erp = Erp(test, "tryton-direct", prepared)
            with Wire() as wire:
                direct = timed("directly", lambda: working_day(erp.port))
            test.equal("direct: every answer is a 200", dict(wire.statuses), {200: wire.sent})
            test.equal("direct: the server has logged each request", erp.requests(), wire.sent)
            verify(test, "direct", direct)
            erp.process.stop()
        if not arguments.direct:
            with test.part("through vaxel"):
                erp = Erp(test, "tryton-through", prepared)
                through_vaxel(test, erp, direct)
    sys.exit(test.code)


def through_vaxel(test, erp, direct):
    """The same day through Vaxel; then its books against the client's and the server's."""
    port, admin = free_ports(2)
    vaxel = test.vaxel("run", "--config", ROOT / "tests/real/tryton.toml", env=os.environ | {
        "LISTEN": f"127.0.0.1:{port}", "ADMIN": f"127.0.0.1:{admin}", "ERP": f"http://127.0.0.1:{erp.port}"})
    listening(port, vaxel)
    listening(admin, vaxel)
    with Wire() as wire:
        through = timed("through vaxel", lambda: working_day(port))
    verify(test, "through", through)
    test.equal("what was read back is the same as directly", through, direct)
    test.equal("through: every answer is a 200", dict(wire.statuses), {200: wire.sent})
    test.equal("through: the server has logged each request once", erp.requests(), wire.sent)

    metrics = settled(admin, "all counted", lambda found: found.sum("vaxel_requests_total") >= wire.sent)
    test.equal("vaxel accounts for every request", metrics.sum("vaxel_requests_total"), float(wire.sent))
    test.equal("all of them as 2xx of POST on the route",
               metrics.sum("vaxel_requests_total", route="erp", method="POST", code="2xx"), float(wire.sent))
    test.equal("no 5xx", metrics.sum("vaxel_requests_total", code="5xx"), 0.0)
    test.equal("no refusal", metrics.series("vaxel_refusals_total"), [])
    if test.failed:
        for name in ("vaxel_refusals_total", "vaxel_upstream_attempts_total", "vaxel_breaker_shifts_total"):
            print(f"    {name}: {metrics.series(name)}", flush=True)
    test.equal("each was one attempt", metrics.sum("vaxel_upstream_attempts_total", outcome="ok"), float(wire.sent))
    test.equal("no retry", metrics.sum("vaxel_upstream_retries_total"), 0.0)
    test.equal("four slots", metrics.sum("vaxel_slots"), float(SLOTS))
    metrics = settled(admin, "idle", lambda found: not (
        found.sum("vaxel_slots_busy") or found.sum("vaxel_slots_zombie")))
    for gauge in ("vaxel_slots_busy", "vaxel_slots_zombie", "vaxel_queue_length"):
        test.check(f"{gauge} is there and 0 afterwards",
                   metrics.has(gauge) and metrics.sum(gauge) == 0, metrics.series(gauge))
    test.check("the readers had to queue, and none was refused",
               metrics.sum("vaxel_queue_wait_seconds_count") > 0, "no queue wait was recorded")
    test.equal("the breaker is closed", metrics.sum("vaxel_breaker_state", state="closed"), 1.0)

    with test.part("what the ERP refuses stays its own answer"):
        status, _, _ = fetch(erp.port, f"/{DATABASE}/", method="POST", body=b"<broken/>",
                             headers={"Content-Type": "text/xml"})
        relayed, _, _ = fetch(port, f"/{DATABASE}/", method="POST", body=b"<broken/>",
                              headers={"Content-Type": "text/xml"})
        test.equal("an unauthorised call gets the ERP's status", relayed, status)
        with contextlib.suppress(xmlrpc.client.Fault, xmlrpc.client.ProtocolError):
            proteus.config.set_xmlrpc(f"http://admin:wrong@127.0.0.1:{port}/{DATABASE}/")
            test.check("a wrong password is refused", False, "it was accepted")

    with test.part("drain"):
        vaxel.kill(15)
        test.equal("TERM ends vaxel with exit code 0", vaxel.wait(20), 0)


def working_day(port):
    """Everything a small company does on its first day. Returns what it read back, free of ids that may differ."""
    url = f"http://127.0.0.1:{port}/{DATABASE}/"
    with proteus.config.set_xmlrpc_session(url, "admin", PASSWORD):
        create_company()
        company = get_company()
        fiscalyear = set_fiscalyear_invoice_sequences(create_fiscalyear(company))
        fiscalyear.click("create_period")
        create_chart(company)
        accounts = get_accounts(company)
        tax = create_tax(Decimal(".10"))
        tax.save()
        customers = parties()
        product, service = products(accounts, tax)
        stock(product)
        facts = sell(customers[0], product, service)
        facts["parties"] = sorted(
            (party.name, party.full_name, party.code) for party in Model.get("party.party").find([]))
        facts["long name"] = Model.get("party.party")(customers[1].id).name
    facts["basic"] = basic(url)
    facts["read"] = many_readers(url)
    return facts


def parties():
    Party = Model.get("party.party")
    made = []
    # Names that a proxy must not touch: UTF-8 beyond the BMP, and one that needs several TCP segments.
    for name in ("Müller & Söhne <GmbH> 雅 🏭", LONG_NAME):
        party = Party(name=name)
        party.save()
        made.append(party)
    return made


def products(accounts, tax):
    Category = Model.get("product.category")
    category = Category(name="Goods", accounting=True)
    category.account_expense = accounts["expense"]
    category.account_revenue = accounts["revenue"]
    category.customer_taxes.append(tax)
    category.save()
    unit, = Model.get("product.uom").find([("name", "=", "Unit")])
    made = []
    for name, kind, price in (("Gear", "goods", "10"), ("Fitting", "service", "30")):
        template = Model.get("product.template")(name=name, default_uom=unit, type=kind, salable=True)
        template.list_price = Decimal(price)
        template.account_category = category
        template.save()
        made.append(template.products[0])
    return made


def stock(product):
    storage, = Model.get("stock.location").find([("code", "=", "STO")])
    inventory = Model.get("stock.inventory")(location=storage)
    line = inventory.lines.new(product=product)
    line.quantity = 100.0
    line.expected_quantity = 0.0
    inventory.click("confirm")
    assert inventory.state == "done", inventory.state


def sell(customer, product, service):
    """Draft, quotation, confirmation; then read it all back in new objects."""
    term = create_payment_term()
    term.save()
    Sale = Model.get("sale.sale")
    sale = Sale(party=customer, payment_term=term, invoice_method="order")
    for item, quantity in ((product, 2.0), (service, 3.0)):
        line = sale.lines.new()
        line.product = item
        line.quantity = quantity
    sale.click("quote")
    quoted = sale.state
    sale.click("confirm")
    invoice, = sale.invoices
    invoice.click("post")

    again = Sale(sale.id)
    extension, document, _, name = Report("sale.sale").execute([again], {})
    with zipfile.ZipFile(io.BytesIO(document)) as archive:
        assert archive.testzip() is None, "the report arrived damaged"
        content = archive.read("content.xml").decode()
    return {
        "quoted": quoted,
        "state": again.state,
        "number": again.number,
        "party": again.party.name,
        "lines": sorted((line.product.name, line.quantity, line.amount) for line in again.lines),
        "untaxed": again.untaxed_amount,
        "tax": again.tax_amount,
        "total": again.total_amount,
        "date": again.sale_date == datetime.date.today(),
        "shipments": [shipment.state for shipment in again.shipments],
        "invoices": [(invoice.state, invoice.number, invoice.total_amount) for invoice in again.invoices],
        "report": (extension, name, again.party.name.split()[0] in content, again.number in content),
    }


def basic(url):
    """Password in every request instead of a session."""
    with_password = url.replace("http://", f"http://admin:{PASSWORD.replace(' ', '%20')}@")
    config = proteus.config.set_xmlrpc(with_password)
    return config.server.model.res.user.search_count([("login", "=", "admin")], {})


def many_readers(url):
    """Three times as many sessions as slots, each with its own connection."""
    def read(_):
        server = xmlrpc.client.ServerProxy(url, allow_none=True, use_builtin_types=True)
        with server:
            session = server.common.db.login("admin", {"password": PASSWORD})
            token = ":".join(map(str, ["admin", *session]))
        headers = [("Authorization", "Session " + base64.b64encode(token.encode()).decode())]
        with xmlrpc.client.ServerProxy(url, allow_none=True, use_builtin_types=True, headers=headers) as server:
            return [tuple(sorted(row["name"] for row in server.model.party.party.search_read(
                [], 0, None, None, ["name"], {}))) for _ in range(READS)]
    with concurrent.futures.ThreadPoolExecutor(READERS) as pool:
        answers = [answer for answers in pool.map(read, range(READERS)) for answer in answers]
    return len(answers), sorted(set(answers))


def verify(test, name, facts):
    """What anybody who knows the ERP expects of that day."""
    for key, expected in {
        "quoted": "quotation",
        "state": "processing",
        "number": "1",
        "untaxed": Decimal("110.00"),
        "tax": Decimal("11.00"),
        "total": Decimal("121.00"),
        "lines": [("Fitting", 3.0, Decimal("90.00")), ("Gear", 2.0, Decimal("20.00"))],
        "invoices": [("posted", "1", Decimal("121.00"))],
        "report": ("odt", "Sale-1", True, True),
        "long name": LONG_NAME,
        "basic": 1,
    }.items():
        test.equal(f"{name}: {key}", facts[key], expected)
    count, different = facts["read"]
    test.equal(f"{name}: {READERS} readers at once read {READS} times, all the same",
               (count, len(different)), (READERS * READS, 1))


def prepare(test):
    """An initialised database with the module `sale` and all it needs."""
    directory = test.dir / "prepared"
    directory.mkdir()
    database = directory / f"{DATABASE}.sqlite"
    database.touch()
    password = test.write("password", PASSWORD)
    config = test.write("prepared.conf", CONFIG.format(directory=directory, port=0))
    timed("initialising the database", lambda: subprocess.run(
        [BIN / "trytond-admin", "-c", config, "-d", DATABASE, "-u", "sale", "--activate-dependencies",
         "--email", "admin@example.com"],
        env=environment() | {"TRYTONPASSFILE": str(password)}, check=True, timeout=300))
    return database


def environment():
    return {key: value for key, value in os.environ.items() if not key.startswith("TRYTON")}


def timed(what, action):
    began = time.monotonic()
    result = action()
    print(f"    {what}: {time.monotonic() - began:.1f} s", flush=True)
    return result


LONG_NAME = "A name of many words " * 600

CONFIG = """
[web]
listen = 127.0.0.1:{port}
[database]
uri = sqlite://
path = {directory}
[session]
max_age = 86400
"""

if __name__ == "__main__":
    main()
