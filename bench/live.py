"""From a sample to the decoded state, live: inside the program, and through UDP, Redis and Lab Streaming Layer.

Inside: LiveRunner::push() by bench_live.cpp, each packet by itself. Through a network: this process sends 192 counts 50
times a second and takes the decoded states back; the time is from before the sample is sent until its state has been read
here, both on this machine's steady clock, so it holds this interpreter's share of the way in and out. The program runs
with its loop, guard and outlets as a session does; its own part, from the packet's arrival to the state being handed
over, stands beside.
"""
import os

os.environ.setdefault("PYLSL_VERBOSITY", "0")

import json
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np

from _live import CHANNELS, HEAD, PIPELINE, RATE_HZ
from _report import arguments, google_benchmark, show

SECONDS, WARM_UP = 20, 50


def go_first(pid=0):
    """Sender, reader and server stand for other machines: where permitted they do not wait for a core, so that what is
    measured is percept's."""
    try:
        os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(10))
        return True
    except PermissionError:
        return False


def as_anybody():
    """In the child that becomes percept: it gets what it asks for itself, and no more."""
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def percentiles(seconds):
    us = np.sort(np.asarray(seconds)) * 1e6
    return {"median_us": float(np.median(us)), "p99_us": float(np.quantile(us, 0.99)), "max_us": float(us[-1])}


class Udp:
    """percept's own packet: realtime/wire.h."""
    def __init__(self, folder):
        self.into = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.back = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.back.bind(("127.0.0.1", 0))
        self.back.settimeout(5)
        probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        probe.bind(("127.0.0.1", 0))
        self.port = probe.getsockname()[1]
        probe.close()
        self.source = f"udp:port={self.port},rows={CHANNELS},rate_hz={RATE_HZ}"
        self.output = f"udp:port={self.back.getsockname()[1]}"

    def send(self, k, x):
        head = HEAD.pack(b"PLIV", 1, 0, 0, 0, CHANNELS, 1, k, float("nan"), RATE_HZ, 1.0, 0)
        self.into.sendto(head + x.astype("<f4").tobytes(), ("127.0.0.1", self.port))

    def take(self):
        while True:
            packet = self.back.recv(65536)
            if packet[5] == 0:  # frames; events say why the output is held
                return HEAD.unpack_from(packet)[7]

    def close(self):
        pass


class Redis:
    def __init__(self, folder):
        import redis

        path = str(pathlib.Path(folder) / "redis.sock")
        self.server = subprocess.Popen(["redis-server", "--port", "0", "--unixsocket", path, "--save", ""],
                                       stdout=subprocess.DEVNULL)
        while not os.path.exists(path):
            time.sleep(0.02)
        self.into, self.back = redis.Redis(unix_socket_path=path), redis.Redis(unix_socket_path=path)
        self.last = "0"
        self.source = (f'redis:socket="{path}",stream="counts",type="float32",rows={CHANNELS},rate_hz={RATE_HZ},'
                       'counter="i",from="0"')
        self.output = f'redis:socket="{path}",stream="cursor"'

    def send(self, k, x):
        self.into.xadd("counts", {"i": k, "ts": time.monotonic_ns().to_bytes(8, "little"),
                                  "samples": x.astype("<f4").tobytes()})

    def take(self):
        import redis

        while True:
            try:
                got = self.back.xread({"cursor": self.last}, count=1, block=5000)
            except redis.exceptions.ConnectionError as gone:  # not one of Python's own
                raise OSError("the server is gone") from gone
            if not got:
                raise TimeoutError
            self.last, fields = got[0][1][0]
            if fields[b"ts"] != b"\0" * 8:
                return int(fields[b"i"])

    def close(self):
        self.server.kill()


class Lsl:
    def __init__(self, folder):
        import pylsl

        self.pylsl = pylsl
        info = pylsl.StreamInfo("bench", "counts", CHANNELS, RATE_HZ, "float32", "bench")
        channels = info.desc().append_child("channels")
        for i in range(CHANNELS):
            channels.append_child("channel").append_child_value("label", f"unit_{i}")
        self.outlet = pylsl.StreamOutlet(info)
        self.inlet = None
        self.source = 'lsl:stream="bench"'
        self.output = 'lsl:name="bench_cursor"'
        self.taken = -1

    def send(self, k, x):
        self.outlet.push_sample(x.tolist())

    def take(self):
        if self.inlet is None:
            found = self.pylsl.resolve_byprop("name", "bench_cursor", 1, 10)
            if not found:
                raise TimeoutError
            self.inlet = self.pylsl.StreamInlet(found[0])
            self.inlet.open_stream(5)
        sample, _ = self.inlet.pull_sample(5)
        if sample is None:
            raise TimeoutError
        self.taken += 1
        return self.taken  # one state for each sample; the order is kept

    def close(self):
        self.outlet = self.inlet = None


def through(kind, program, folder, models):
    way = kind(folder)
    env = dict(os.environ)
    if kind is Lsl:
        env["PERCEPT_LIBLSL"] = str(next(pathlib.Path(way.pylsl.__file__).parent.rglob("liblsl.so*")))
    live = subprocess.Popen([program, "live", folder / "bench.toml", "--models", models, "--source", way.source,
                             "--output", way.output, "--json", "--quiet"], stdout=subprocess.PIPE, env=env,
                            preexec_fn=as_anybody)
    rng = np.random.default_rng(1)
    sent, read = {}, {}

    def reader():
        try:
            while True:
                k = way.take()
                read.setdefault(k, time.monotonic_ns())  # the last is told once more when it is old
        except (TimeoutError, OSError):
            pass

    time.sleep(3)  # a source is waited for, an outlet is found
    thread = threading.Thread(target=reader, daemon=True)
    thread.start()
    time.sleep(2 if kind is Lsl else 0.5)
    due = time.monotonic()
    for k in range(WARM_UP + SECONDS * RATE_HZ):
        due += 1 / RATE_HZ
        time.sleep(max(0.0, due - time.monotonic()))
        sent[k] = time.monotonic_ns()
        way.send(k, rng.poisson(1.0, CHANNELS))
    time.sleep(1)
    live.send_signal(2)
    report = json.loads(live.communicate(timeout=30)[0])
    way.close()
    if "error" in report:
        raise SystemExit(f"percept live: {report['error']}")
    took = [(read[k] - sent[k]) * 1e-9 for k in sent if k >= WARM_UP and k in read]
    own = report["latency"]
    return {**percentiles(took), "states": len(took), "of": SECONDS * RATE_HZ,
            "in_program_median_us": own["p50_s"] * 1e6, "in_program_p99_us": own["p99_s"] * 1e6}


def main():
    options = arguments(__doc__)
    inside = google_benchmark(options.program, "live")
    figures = {}
    for name in ("counts_192", "broadband_1024"):
        for key in ("median_us", "p99_us", "max_us", "allocations"):
            figures[f"{name}.{key}"] = inside[name][key]
    figures["ends_go_first"] = go_first()
    bars = {"counts_192.median_us": (inside["counts_192"]["median_us"], 20),
            "counts_192.p99_us": (inside["counts_192"]["p99_us"], 100),
            "counts_192.allocations": (inside["counts_192"]["allocations"], 0),
            "broadband_1024.p99_us": (inside["broadband_1024"]["p99_us"], 1000),
            "broadband_1024.allocations": (inside["broadband_1024"]["allocations"], 0)}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "bench.toml").write_text(PIPELINE + '[live]\nnode = "dkf"\n')
        program, models = options.program.resolve(), folder / "models"
        subprocess.run([program, "fit", folder / "bench.toml", "-o", models, "--quiet"], check=True,
                       stdout=subprocess.DEVNULL)
        for key, kind in {"udp": Udp, "redis": Redis, "lsl": Lsl}.items():
            if kind is Redis and not shutil.which("redis-server"):
                print("redis-server is not installed: ./dev setup --tests", file=sys.stderr)
                continue
            for figure, value in through(kind, program, folder, models).items():
                figures[f"{key}.{figure}"] = value
            bars[f"{key}.p99_us"] = (figures[f"{key}.p99_us"], 2000)
    show(options.json, {**figures, "load": os.getloadavg()[0]}, bars=bars)


if __name__ == "__main__":
    main()
