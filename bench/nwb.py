"""A recorded live session, exported as NWB: pynwb's validator must have nothing to say, and pynwb must read the numbers,
times and intervals that percept wrote. One session of counts and one of 30 kHz voltages with gaps and a masked channel."""
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

from _report import arguments, show

COUNTS = """
[input]
simulate = "reach"
channels = 32
rate_hz = 50
duration_s = 120
seed = 1
[[stage]]
use = "zscore"
from = "activity"
[[stage]]
use = "kalman"
target = "kinematics"
regularisation = 0.001
"""
VOLTAGES = """
[[input.stream]]
name = "array"
file = "v.csv"
header = false
rate_hz = 1000
unit = "uV"
[[stage]]
use = "running_zscore"
[live.health]
amplitude_limit = 1000.0
recover_s = 0.1
"""


def session(program, folder, name, text, source):
    (folder / f"{name}.toml").write_text(text)
    run = lambda *words: subprocess.run([program, *words], check=True, cwd=folder, stdout=subprocess.PIPE).stdout
    if "target" in text:
        run("fit", f"{name}.toml", "--quiet")
    run("live", f"{name}.toml", "--source", source, "--record", name, "--quiet")
    start = time.monotonic()
    run("export", name, f"{name}.nwb", "--quiet")
    return folder / f"{name}.nwb", time.monotonic() - start


def main():
    import pynwb

    options = arguments(__doc__)
    program, figures, wrong = options.program.resolve(), {}, 0
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        v = np.random.default_rng(1).normal(0, 20, (20000, 4))
        v[5000:5200, 1] = 5e4
        np.savetxt(folder / "v.csv", v, delimiter=",", fmt="%.17g")
        for key, text, source in (("counts", COUNTS, "simulator:channels=32,rate_hz=50,duration_s=120,seed=1,speed=0"),
                                  ("voltages", VOLTAGES, "replay:speed=0,packet=10")):
            file, seconds = session(program, folder, key, text, source)
            complaints = pynwb.validate(path=str(file))
            for complaint in complaints:
                print(complaint, file=sys.stderr)
            wrong += len(complaints)
            with pynwb.NWBHDF5IO(str(file), "r") as io:
                nwb = io.read()
                series = nwb.acquisition["activity" if key == "counts" else "array"]
                decoded = nwb.processing["decoded"]
                counts = json.loads(nwb.notes)["counts"]
                all_series = [series, *decoded.data_interfaces.values()]
                checks = [s.data.shape[0] == counts["decoded_frames"] for s in all_series]
                if key == "counts":
                    checks += [len(nwb.intervals["events"]) > 50, np.isfinite(decoded["kalman_mean"].data[:]).all()]
                else:
                    masks = nwb.intervals["masks"].to_dataframe()
                    checks += [np.array_equal(series.data[:], v), series.conversion == 1e-6, series.rate == 1000,
                               len(series.electrodes) == 4, len(set(nwb.electrodes["channel_name"][:])) == 4,
                               list(masks["row"]) == [1], abs(masks["start_time"][0] - 5.0) < 0.02]
                wrong += sum(not good for good in checks)
                figures.update({f"{key}.seconds": seconds, f"{key}.bytes": file.stat().st_size,
                                f"{key}.complaints": len(complaints)})
    show(options.json, {**figures, "pynwb": pynwb.__version__}, bars={"wrong": (wrong, 0)})


if __name__ == "__main__":
    main()
