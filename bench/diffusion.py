"""The U-net of diffusion priors beside Python's torch: training step and sampling, on one thread each, taken in turn.

The peer is Debian's python3-torch, the same LibTorch underneath, with the same network and the same weights, which it
must show by the same output. It runs with images whose channels lie apart and beside each other; the faster of the two
counts. Then percept trains a prior on MNIST for 1300 steps of 32 images and fills in the half of the pixels that is
missing in others, with and without noise on the rest.
"""
import json
import os
import pathlib
import statistics
import subprocess
import tempfile

from _report import arguments, google_benchmark, show

THREADS = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
ROUNDS = 3


def peer(folder, beside):
    """Seconds of Debian's Python, which has its torch; the interpreter of build/peers does not."""
    script = pathlib.Path(__file__).with_name("_diffusion_torch.py")
    done = subprocess.run(["/usr/bin/python3", script, folder, "beside" if beside else "apart"], check=True,
                          stdout=subprocess.PIPE, env={**os.environ, **THREADS})
    return json.loads(done.stdout)


def main():
    args = arguments(__doc__)
    ours, theirs = [], {True: [], False: []}
    with tempfile.TemporaryDirectory() as folder:
        model = os.path.join(folder, "model")
        for _ in range(ROUNDS):
            ours.append(google_benchmark(args.program, "diffusion", "^(train_step|sample)/",
                                         {**THREADS, "PERCEPT_BENCH_MODEL": model}))
            for beside in theirs:
                theirs[beside].append(peer(model, beside))
    figures, ratios, bars = {}, {}, {}
    for what, unit in (("train_step", "batch of 64"), ("sample", "image, 20 steps")):
        own = [next(v for k, v in o.items() if k.startswith(what)) for o in ours]
        for clock in ("cpu_s", "wall_s"):
            mine = statistics.median(o[clock] for o in own)
            other = min(statistics.median(t[what][clock] for t in rounds) for rounds in theirs.values())
            figures[f"{what} percept {clock} per {unit}"] = mine
            figures[f"{what} torch {clock} per {unit}"] = other
            ratios[f"{what} torch / percept {clock}"] = other / mine
        bars[f"{what} percept / torch cpu_s"] = (1 / ratios[f"{what} torch / percept cpu_s"], 1)
    bars["sample percept cpu_s an image"] = (figures["sample percept cpu_s per image, 20 steps"], 0.06)
    filled = google_benchmark(args.program, "diffusion", "^inpaint/", THREADS)
    for name, least in (("ddnm", 22.5), ("daps", 22.6)):
        for noise in (0, 5):
            of = next(v for k, v in filled.items() if k.startswith(f"inpaint/{name}/noise:{noise}/"))
            figures[f"inpainting {name}, noise .{noise:02d}, dB"] = of["psnr_db"]
            figures["training cpu_s a step of 32 digits"] = of["training_step_cpu_s"]
            if noise == 0:
                figures[f"inpainting {name} cpu_s an image"] = of["cpu_s"]
                bars[f"inpainting {name} dB below {least}"] = (least - of["psnr_db"], 0)
    show(args.json, figures, ratios, bars)


if __name__ == "__main__":
    main()
