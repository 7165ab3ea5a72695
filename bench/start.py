"""Time from the shell to the end of commands that do next to nothing: 20 runs each, taken in turn."""
import statistics
import subprocess
import time

from _report import arguments, show

RUNS, COMMANDS = 20, ("--help", "stages")


def main():
    args = arguments(__doc__)
    taken = {command: [] for command in COMMANDS}
    for run in range(RUNS + 1):
        for command in COMMANDS:
            start = time.perf_counter()
            subprocess.run([args.program, command], check=True, stdout=subprocess.DEVNULL)
            if run > 0:  # the first one reads the disk
                taken[command].append((time.perf_counter() - start) * 1e3)
    figures, bars = {}, {}
    for command, ms in taken.items():
        figures[f"percept {command} median_ms"] = statistics.median(ms)
        figures[f"percept {command} max_ms"] = max(ms)
        bars[f"percept {command} median_ms"] = (statistics.median(ms), 30)
    show(args.json, figures, bars=bars)


if __name__ == "__main__":
    main()
