"""What the tests with real traffic share: free ports, processes that end with the test, checks, Vaxel's metrics.

Only the standard library is used, so that every script here also runs on a bare Debian.
"""

import collections
import contextlib
import ctypes
import http.client
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Test:
    """One test: its checks, its processes and its temporary directory; all gone when the block ends.

        with Test("nginx") as test:
            ...
        sys.exit(test.code)
    """

    def __init__(self, name):
        self.name = name
        self.passed = 0
        self.failed = 0
        self.processes = []
        self.began = time.monotonic()
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix=f"vaxel-{name}-"))

    def __enter__(self):
        # The shell script's trap sends TERM; so does CI when its time is over.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        return self

    def __exit__(self, kind, error, trace):
        if error is not None and not isinstance(error, SystemExit):
            traceback.print_exception(kind, error, trace, file=sys.stdout)
            self.failed += 1
            print(f"FAIL {self.name}: stopped by {kind.__name__}", flush=True)
        for process in reversed(self.processes):
            process.stop()
        if self.failed:
            for process in self.processes:
                process.show()
                process.show_refusals()
        shutil.rmtree(self.dir, ignore_errors=True)
        took = time.monotonic() - self.began
        print(f"{self.name}: {took:.1f} s", flush=True)
        print(f"{self.passed} passed, {self.failed} failed", flush=True)
        return not isinstance(error, SystemExit)

    @property
    def code(self):
        """What the script exits with."""
        return 1 if self.failed or not self.passed else 0

    def check(self, claim, holds, detail=""):
        """Prints and counts one claim; `detail` is shown where it does not hold."""
        if holds:
            self.passed += 1
            print(f"PASS {claim}", flush=True)
        else:
            self.failed += 1
            print(f"FAIL {claim}: {str(detail)[:2000]}", flush=True)
        return bool(holds)

    def equal(self, claim, found, expected):
        """Checks that two values are the same and shows both if not."""
        return self.check(claim, found == expected, f"found {found!r}, expected {expected!r}")

    @contextlib.contextmanager
    def part(self, title):
        """A group of checks; what breaks inside fails this part, and the others still run."""
        print(f"--- {title}", flush=True)
        try:
            yield
        except Exception as error:  # a broken part must not hide the others
            traceback.print_exc(file=sys.stdout)
            self.failed += 1
            print(f"FAIL {title}: stopped by {type(error).__name__}: {error}", flush=True)

    def start(self, name, argv, **options):
        """Starts a process that ends at the latest with the test."""
        process = Process(name, argv, self.dir / f"{name}.log", **options)
        self.processes.append(process)
        return process

    def vaxel(self, *arguments, name="vaxel", **options):
        """Starts the binary under test."""
        return self.start(name, [binary(), *arguments], **options)

    def write(self, name, text):
        """A file in the temporary directory."""
        path = self.dir / name
        path.write_text(text)
        return path


class Process:
    """A process of its own group, with its output in a file."""

    def __init__(self, name, argv, log, **options):
        self.name = name
        self.log = log
        with log.open("wb") as output:
            self.popen = subprocess.Popen(
                [str(argument) for argument in argv],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True, preexec_fn=_die_with_parent, **options)

    @property
    def pid(self):
        return self.popen.pid

    def text(self):
        """What it has printed."""
        return self.log.read_text(errors="replace")

    def kill(self, number):
        self.popen.send_signal(number)

    def wait(self, timeout):
        """Its exit code; None if it still runs after `timeout` seconds."""
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def stop(self):
        """TERM to the whole group, KILL after a while."""
        for number, patience in ((signal.SIGTERM, 5), (signal.SIGKILL, 5)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)
            if self.wait(patience) is not None:
                return

    def show(self):
        """The end of its output, for the reader of a failed run."""
        lines = self.text().splitlines()[-LINES_SHOWN:]
        print(f"--- the last {len(lines)} lines of {self.name} (exit code {self.popen.returncode})")
        print("\n".join(line[:400] for line in lines), flush=True)

    def show_refusals(self):
        """What it refused and why, where its output has access log lines of Vaxel's, and what it told about itself."""
        refused, counted, told = [], collections.Counter(), []
        for line in self.text().splitlines():
            found = _REASON.search(line)
            if found:
                counted[found["reason"]] += 1
                refused.append(line)
            elif " WARN " in line or " ERROR " in line:
                told.append(line)
        for title, lines in (("refusals", refused), ("warnings", told)):
            if lines:
                print(f"--- {len(lines)} {title} of {self.name}; the first {min(len(lines), LINES_SHOWN)}")
                print("\n".join(line[:600] for line in lines[:LINES_SHOWN]), flush=True)
        if counted:
            print(f"--- refusals of {self.name} by reason: {dict(counted)}", flush=True)


class Metrics:
    """One scrape of the Prometheus text format."""

    def __init__(self, text):
        self.samples = []
        for line in text.splitlines():
            found = _SAMPLE.match(line)
            if found:
                labels = dict(_LABEL.findall(found["labels"] or ""))
                self.samples.append((found["name"], labels, float(found["value"])))

    def sum(self, name, **labels):
        """The sum over all samples of `name` that carry these labels."""
        return sum(
            value for found, having, value in self.samples
            if found == name and all(having.get(key) == wanted for key, wanted in labels.items()))

    def has(self, name):
        """Whether there is any sample of that name."""
        return any(found == name for found, _, _ in self.samples)

    def series(self, name):
        """All samples of `name` that are not zero, for messages."""
        return [(labels, value) for found, labels, value in self.samples if found == name and value]


def binary():
    """The vaxel under test: $VAXEL, or what cargo has built last."""
    named = os.environ.get("VAXEL")
    if named:
        return named
    built = [ROOT / "target" / profile / "vaxel" for profile in ("release", "quick", "debug")]
    built = [path for path in built if path.exists()]
    if not built:
        sys.exit("no vaxel binary: run cargo build first, or set VAXEL")
    return str(max(built, key=lambda path: path.stat().st_mtime))


def free_ports(count):
    """Ports of 127.0.0.1 that nobody uses, all different."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def until(claim, condition, timeout=20.0):
    """Waits until `condition()` is true and returns what it gave; an error names the claim."""
    end = time.monotonic() + timeout
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise TimeoutError(f"not within {timeout} s: {claim}")
        time.sleep(0.02)


def listening(port, process=None, timeout=20.0):
    """Waits until something accepts on `port`; fails early if `process` has ended."""
    def accepts():
        if process is not None and process.popen.poll() is not None:
            raise RuntimeError(f"{process.name} ended with {process.popen.returncode}:\n{process.text()}")
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return True
        return False
    until(f"port {port} accepts", accepts, timeout)


def fetch(port, path, method="GET", headers=None, body=None, timeout=30.0):
    """One request over its own HTTP/1.1 connection: (status, header fields, body)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def scrape(admin):
    """Vaxel's metrics."""
    status, _, body = fetch(admin, "/metrics")
    if status != 200:
        raise RuntimeError(f"/metrics answered {status}: {body!r}")
    return Metrics(body.decode())


def settled(admin, claim, condition, timeout=20.0):
    """The first scrape for which `condition(metrics)` holds, or the last one when time is up.

    Counts are written when a body has ended, which a client may notice a moment earlier than Vaxel does.
    """
    end = time.monotonic() + timeout
    while True:
        metrics = scrape(admin)
        if condition(metrics) or time.monotonic() > end:
            return metrics
        time.sleep(0.05)


def _die_with_parent():
    # Even a test that is killed leaves nothing behind (PR_SET_PDEATHSIG).
    _LIBC.prctl(1, signal.SIGKILL)


_LIBC = ctypes.CDLL(None)
_SAMPLE = re.compile(r"(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_REASON = re.compile(r'"reason":"(?P<reason>[a-z_.]+)"')
LINES_SHOWN = 30
