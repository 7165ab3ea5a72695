"""Ridge with an alpha for each target beside scikit-learn: 784 pixels from 3092 voxels, 90 training images, seven alphas.

Both leave one image out to choose, which is what RidgeCV does fastest. The peer is the loop that an alpha for each target
usually means, one RidgeCV a pixel, and RidgeCV(alpha_per_target=True), which fits all pixels at once. Both sides work on
their own draw of the same distribution, since the cost does not depend on the values. One thread each, processor time, the
least of all rounds.
"""
import os

THREADS = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
os.environ.update(THREADS)
for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):  # each side chooses its kernels itself
    os.environ.pop(name, None)

import time

import numpy as np
from sklearn.linear_model import RidgeCV

from _report import arguments, google_benchmark, show

ROUNDS = 3
FRAMES, INPUTS, OUTPUTS = 90, 3092, 784
ALPHAS = [10, 30, 100, 300, 1000, 3000, 10000]


def cpu_ms(work):
    start = time.process_time()
    result = work()
    return (time.process_time() - start) * 1e3, result


def main():
    args = arguments(__doc__)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((FRAMES, INPUTS))
    y = rng.standard_normal((FRAMES, OUTPUTS)) + np.arange(OUTPUTS) % 8 * x[:, :OUTPUTS]

    def loop():
        return np.array([RidgeCV(ALPHAS).fit(x, y[:, k]).alpha_ for k in range(OUTPUTS)])

    def at_once():
        return RidgeCV(ALPHAS, alpha_per_target=True).fit(x, y).alpha_

    took = {}
    for _ in range(ROUNDS):
        for name, done in google_benchmark(args.program, "decoders", "^ridge_fit/", THREADS).items():
            folds = int(name.split("folds:")[1].split("/")[0])
            took.setdefault(f"percept, {folds} folds" if folds else "percept", []).append(done["cpu_time"] / 1e6)
        chosen = []
        for name, work in (("RidgeCV loop", loop), ("RidgeCV alpha_per_target", at_once)):
            ms, alphas = cpu_ms(work)
            took.setdefault(name, []).append(ms)
            chosen.append(alphas)
        if not np.array_equal(*chosen):
            raise SystemExit("the loop and alpha_per_target choose other alphas")
    figures = {f"{name} cpu_ms": min(values) for name, values in took.items()}
    ratios = {f"{name} / percept": min(took[name]) / min(took["percept"])
              for name in ("RidgeCV loop", "RidgeCV alpha_per_target")}
    show(args.json, figures, ratios, {"RidgeCV loop / percept": (ratios["RidgeCV loop / percept"], 5)})


if __name__ == "__main__":
    main()
