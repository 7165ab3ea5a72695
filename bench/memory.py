"""Memory of a long run: 2 GB of generated samples through a low-pass filter and a decimation, into a store."""
import json
import pathlib
import resource
import subprocess
import tempfile

from _report import arguments, show

CHANNELS, RATE_HZ, BYTES = 64, 1000, 2_000_000_000
PIPELINE = f"""
[input]
simulate = "noise"
channels = {CHANNELS}
rate_hz = {RATE_HZ}
duration_s = {BYTES / (4 * CHANNELS * RATE_HZ)}

[[stage]]
use = "fir"
pass = "low"
high_hz = 40.0
transition_hz = 100.0

[[stage]]
use = "decimate"
factor = 10
"""


def main():
    args = arguments(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "memory.toml"
        file.write_text(PIPELINE)
        done = subprocess.run([args.program, "run", file, "--json", "-o", pathlib.Path(folder) / "out"], check=True,
                              stdout=subprocess.PIPE)
        written = sum(f.stat().st_size for f in pathlib.Path(folder).rglob("*") if f.is_file())
    result = json.loads(done.stdout)
    figures = {"sample_bytes": BYTES, "written_bytes": written, "seconds": result["seconds"],
               "peak_rss_bytes": result["peak_rss_bytes"],
               "peak_rss_bytes by the kernel": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024}
    show(args.json, figures, bars={"peak_rss_bytes": (result["peak_rss_bytes"], 300e6)})


if __name__ == "__main__":
    main()
