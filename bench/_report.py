"""What the scripts of this folder share: their arguments, the Google Benchmark programs, and how figures are shown."""
import argparse
import json
import os
import pathlib
import subprocess


def arguments(doc, **more):
    """more: name of an option -> (default, what it is)"""
    parser = argparse.ArgumentParser(description=doc)
    for name, (default, text) in more.items():
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"{text} (default {default})")
    parser.add_argument("--program", type=pathlib.Path, required=True, help="the percept program of a release build")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser.parse_args()


def google_benchmark(program, name, pattern=".*", env=None):
    """Counters of every benchmark of bench_NAME that matches, by benchmark name."""
    command = [program.parent / f"bench_{name}", "--benchmark_format=json", f"--benchmark_filter={pattern}"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          env={**os.environ, **(env or {})})
    return {b["name"].removesuffix("/manual_time"): b for b in json.loads(done.stdout)["benchmarks"]}


def show(as_json, figures, ratios=None, bars=None):
    """bars: name -> (value, the most it may be); of a ratio, which is the peer's time by percept's, the least."""
    ratios = ratios or {}
    bars = {name: {"value": value, "bar": bar, "ok": value >= bar if name in ratios else value <= bar}
            for name, (value, bar) in (bars or {}).items()}
    if as_json:
        print(json.dumps({"figures": figures, "ratios": ratios, "bars": bars}, indent=2))
        return
    for name, value in {**figures, **ratios}.items():
        print(f"{name:<44} {value:.6g}" if isinstance(value, (int, float)) else f"{name:<44} {value}")
    for name, b in bars.items():
        sign = "<=>"[(b["value"] >= b["bar"]) + (b["value"] > b["bar"])]
        print(f"{name:<44} {b['value']:.6g} {sign} {b['bar']:g}: {'ok' if b['ok'] else 'MISSED'}")
