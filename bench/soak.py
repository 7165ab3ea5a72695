"""Eight hours of signal at twenty times its speed through a live session that is recorded and sent on: memory must not grow,
and every packet must be accounted for.

This process is the device: 192 counts 50 times a second of its own time, by UDP, of which it loses, repeats and exchanges
some and keeps count. What the session says at its end must agree with that count to the packet, and what it recorded must
run again bit for bit. Resident memory is that of the kernel, every five seconds, from a twentieth of the way on.
"""
import json
import os
import pathlib
import random
import socket
import struct
import subprocess
import tempfile
import time

from _live import CHANNELS, HEAD, PIPELINE, RATE_HZ
from _report import arguments, show

SPEED = 20
LOST, TWICE, EXCHANGED = 1000, 2000, 2000  # one in so many


def free_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def resident_bytes(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def send(port, packets, pid):
    """Sends packets 0 ... packets - 1 in time. What was done, and (packets so far, resident bytes) every five seconds."""
    rng = random.Random(1)
    bodies = [struct.pack(f"<{CHANNELS}f", *(min(rng.expovariate(1.0) // 1, 20) for _ in range(CHANNELS)))
              for _ in range(256)]
    device = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    done = {"datagrams": 0, "lost": 0, "twice": 0, "exchanged": 0}
    memory, look = [], 0.0

    def put(k):
        head = HEAD.pack(b"PLIV", 1, 0, 0, 0, CHANNELS, 1, k, k / (RATE_HZ * SPEED), RATE_HZ, 1.0, 0)
        device.sendto(head + bodies[k % len(bodies)], ("127.0.0.1", port))
        done["datagrams"] += 1

    start, kept = time.monotonic(), None
    for k in range(packets):
        now, due = time.monotonic(), start + k / (RATE_HZ * SPEED)
        if now >= look:
            memory.append((k, resident_bytes(pid)))
            look = now + 5
        if due > now:
            time.sleep(due - now)
        # the first says where counting begins and the last where it ends
        draw = rng.random() if 0 < k < packets - 2 and kept is None else 1.0
        if draw < 1 / LOST:
            done["lost"] += 1
        elif draw < 1 / LOST + 1 / EXCHANGED:
            kept = k
        else:
            put(k)
            if draw < 1 / LOST + 1 / EXCHANGED + 1 / TWICE:
                put(k)
                done["twice"] += 1
            if kept is not None:
                put(kept)
                done["exchanged"] += 1
                kept = None
    memory.append((packets, resident_bytes(pid)))
    return done, memory, time.monotonic() - start


def main():
    options = arguments(__doc__, minutes=(24.0, "how long; 24 are eight hours of signal"))
    packets = int(options.minutes * 60 * RATE_HZ * SPEED)
    load = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        program, models, port = options.program.resolve(), folder / "models", free_port()
        (folder / "soak.toml").write_text(PIPELINE + "[live]\nhold_packets = 4\n")
        subprocess.run([program, "fit", folder / "soak.toml", "-o", models, "--quiet"], check=True,
                       stdout=subprocess.DEVNULL)
        live = subprocess.Popen([program, "live", folder / "soak.toml", "--models", models, "--source",
                                 f"udp:port={port},rows={CHANNELS},rate_hz={RATE_HZ}", "--output",
                                 f"udp:port={free_port()}", "--record", folder / "session", "--json", "--quiet"],
                                stdout=subprocess.PIPE)
        time.sleep(3)
        done, memory, seconds = send(port, packets, live.pid)
        time.sleep(1)
        load.append(os.getloadavg()[0])
        live.send_signal(2)
        report = json.loads(live.communicate(timeout=60)[0])
        if "error" in report:
            raise SystemExit(f"percept live: {report['error']}")
        again = json.loads(subprocess.run([program, "rerun", folder / "session", "--json"], check=True,
                                          stdout=subprocess.PIPE).stdout)
        recorded = sum(f.stat().st_size for f in (folder / "session").rglob("*") if f.is_file())
    got = report["inputs"]["activity"]
    fates = ("packets", "duplicate_packets", "late_packets", "refused_packets")
    settled = [m for k, m in memory if k >= packets / 20]
    # each difference is zero where nothing is unaccounted for; a packet that comes too late was given as missing before
    differences = {"datagrams": done["datagrams"] - sum(got[f] for f in fates) - got["lost_in_system"],
                   "frames": packets - got["frames"] - got["missing_frames"],
                   "missing": got["missing_frames"] - done["lost"] - got["late_packets"] - got["lost_in_system"],
                   "exchanged": done["exchanged"] - got["reordered_packets"] - got["late_packets"],
                   "states": packets - report["decoded_frames"],
                   "recorded": report["recorder"]["lost_records"],
                   "repeated": report["decoded_frames"] - again["identical"]}
    unaccounted = sum(abs(d) for d in differences.values())
    growth = max(settled) - settled[0]
    figures = {"signal_hours": packets / RATE_HZ / 3600, "minutes": seconds / 60, "packets": packets, **done,
               **{f"session: {key}": got[key] for key in (*fates, "reordered_packets", "missing_frames", "lost_in_system")},
               "deadline_misses": report["deadline_misses"], "held_frames": report["held_frames"],
               "latency_p50_us": report["latency"]["p50_s"] * 1e6, "latency_p99_us": report["latency"]["p99_s"] * 1e6,
               "latency_p99.9_us": report["latency"]["p99.9_s"] * 1e6, "latency_max_us": report["latency"]["max_s"] * 1e6,
               "recorded_bytes": recorded, "identical_when_repeated": again["identical"],
               "resident_bytes": settled[0], "resident_growth_bytes": growth, "resident_end_bytes": settled[-1],
               **{f"unaccounted: {key}": d for key, d in differences.items()}, "load_first": load[0], "load_last": load[1]}
    show(options.json, figures, bars={"resident_growth_bytes": (growth, 5e6), "unaccounted": (unaccounted, 0)})


if __name__ == "__main__":
    main()
