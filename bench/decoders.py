"""Decoders: single steps, and fits, predictions and training beside scikit-learn, NumPy, SciPy and Python's torch.

One thread each. Fits and predictions are compared by processor time, and of all rounds the least counts, so that what else
runs on the machine counts little. Both sides work on their own draw of the same distribution, since the cost does not
depend on the values; that the values are right is for the tests. Torch is Debian's (python3-torch), the very LibTorch that
percept trains with, on the same BLAS kernels.
"""
import os

THREADS = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
os.environ.update(THREADS)
for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):  # each side chooses its kernels itself
    os.environ.pop(name, None)

import pathlib
import resource
import statistics
import subprocess
import tempfile
import time

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial.distance import cdist
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from _report import arguments, google_benchmark, show

ROUNDS = 3
FRAMES, INPUTS, AT = 5000, 100, 1000
EPOCHS = 3
PIPELINE = """
[input]
data = "contdata95"

[[stage]]
use = "recurrent_network"
from = "activity"
target = "kinematics"
cell = "gru"
units = 128
chunk = 30
warm_up = 10
batch = 32
dropout = 0.3
input_noise = 0.3
learning_rate = 0.003
weight_decay = 0.02
epochs = {epochs}
validation = 0.0
covariance = "none"

[[split]]
train_rows = [0, 21988]
test_rows = [26700, 31412]
"""


def cpu_ms(work, repeat=1):
    start = time.process_time()
    for _ in range(repeat):
        work()
    return (time.process_time() - start) * 1e3 / repeat


class Task:
    """Squared exponential of length² = INPUTS and variance 1, noise 0.1."""

    def __init__(self):
        rng = np.random.default_rng(1)
        self.x, self.at = rng.standard_normal((FRAMES, INPUTS)), rng.standard_normal((AT, INPUTS))
        self.y = np.sin(self.x[:, 0])
        self.kernel = ConstantKernel(1.0) * RBF(INPUTS**0.5) + WhiteKernel(0.1)

    def matrix(self, a, b):
        """The kernel by one matrix product, in place."""
        k = a @ b.T
        k *= 2
        k -= np.square(a).sum(1)[:, None]
        k -= np.square(b).sum(1)
        k *= 0.5 / INPUTS
        return np.exp(k, out=k)

    def numpy_fit(self):
        k = self.matrix(self.x, self.x)
        k.flat[:: FRAMES + 1] += 0.1
        factor = cho_factor(k.T, lower=True, overwrite_a=True, check_finite=False)
        return cho_solve(factor, self.y, check_finite=False)

    def sklearn_fit(self):
        return GaussianProcessRegressor(self.kernel, alpha=0, optimizer=None).fit(self.x, self.y)

    def scipy_matrix(self):
        return np.exp(cdist(self.at, self.x, "sqeuclidean") * (-0.5 / INPUTS))

    def numpy_nadaraya_watson(self):
        k = self.matrix(self.at, self.x)
        return k @ self.y / k.sum(1)

    def scipy_nadaraya_watson(self):
        k = self.scipy_matrix()
        return k @ self.y / k.sum(1)


def kernel_maps(program, figures, ratios):
    task = Task()
    trained = task.sklearn_fit()
    alpha = task.numpy_fit()
    if not np.allclose(alpha, trained.alpha_.ravel(), rtol=1e-6, atol=1e-8):
        raise SystemExit("the NumPy form and scikit-learn fit something else")
    if not np.allclose(task.matrix(task.at, task.x), task.scipy_matrix(), atol=1e-10):
        raise SystemExit("the NumPy and SciPy forms of the kernel differ")
    # predictions go through percept's stage, a block of AT frames at a time; the SciPy form is scikit-learn's own
    peers = {
        "gaussian_process_fit": {"scikit-learn": (task.sklearn_fit, 1), "numpy": (task.numpy_fit, 1)},
        "gaussian_process_gradient": {
            "scikit-learn": (lambda: trained.log_marginal_likelihood(trained.kernel_.theta, eval_gradient=True), 1)},
        "gaussian_process_predict": {"scikit-learn": (lambda: trained.predict(task.at), 5),
                                     "scipy": (lambda: task.scipy_matrix() @ alpha, 5),
                                     "numpy": (lambda: task.matrix(task.at, task.x) @ alpha, 5)},
        "nadaraya_watson_predict": {"scipy": (task.scipy_nadaraya_watson, 5), "numpy": (task.numpy_nadaraya_watson, 5)},
    }
    ours, theirs = {}, {}
    for _ in range(ROUNDS):
        for name, others in peers.items():
            done = next(iter(google_benchmark(program, "decoders", f"^{name}/", THREADS).values()))
            ours.setdefault(name, []).append(done["cpu_time"] / 1e6)  # given in ns
            for peer, (work, repeat) in others.items():
                theirs.setdefault((name, peer), []).append(cpu_ms(work, repeat))
    for name, values in ours.items():
        figures[f"{name} percept cpu_ms"] = min(values)
    for (name, peer), values in theirs.items():
        figures[f"{name} {peer} cpu_ms"] = min(values)
        ratios[f"{name} {peer} / percept"] = min(values) / min(ours[name])


def fast_kernels():
    """What percept has OpenBLAS take where that does not know the processor (core/threads.h), for the peer that shares it."""
    flags = pathlib.Path("/proc/cpuinfo").read_text()
    if "avx2" not in flags:
        return {}
    return {"OPENBLAS_CORETYPE": "SkylakeX" if "avx512vl" in flags else "Haswell"}


def child_seconds(command):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def training(program, figures, ratios):
    rng = np.random.default_rng(2)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        # sizes of the recording; what the numbers are changes nothing
        np.savez(folder / "data.npz", x=rng.poisson(1, (21989, 95)).astype(float), y=rng.standard_normal((21989, 4)))
        ours, theirs = [], []
        for round_ in range(ROUNDS):
            took = {}
            for epochs in (1, 1 + EPOCHS):
                file = folder / f"{epochs}.toml"
                file.write_text(PIPELINE.format(epochs=epochs))
                took[epochs] = child_seconds([program, "fit", file, "--quiet", "--threads", "1",
                                              "-o", folder / f"{epochs}_{round_}"])
            ours.append((took[1 + EPOCHS] - took[1]) / EPOCHS)  # without start and loading
            done = subprocess.run(["/usr/bin/python3", pathlib.Path(__file__).with_name("_train_gru.py"),
                                   folder / "data.npz", str(1 + EPOCHS)], check=True, stdout=subprocess.PIPE, text=True,
                                  env={**os.environ, **fast_kernels()})
            theirs.append(statistics.mean(float(s) for s in done.stdout.split()[1:]))
    figures["gru epoch percept cpu_s"] = min(ours)
    figures["gru epoch torch cpu_s"] = min(theirs)
    ratios["gru epoch torch / percept"] = min(theirs) / min(ours)


def main():
    args = arguments(__doc__)
    figures, ratios, bars = {}, {}, {}
    steps = {"network_dkf_step/inputs:192/states:4": {"median_us": 10, "p99_us": 100},
             "recurrent_step/gru/inputs:95/units:128/before:0": {"median_us": 25}}
    rounds = [google_benchmark(args.program, "decoders", "_step", THREADS) for _ in range(ROUNDS)]
    for name in rounds[0]:
        for counter in ("median_us", "p99_us"):
            figures[f"{name} {counter}"] = min(r[name][counter] for r in rounds)
            if counter in steps.get(name, {}):
                bars[f"{name} {counter}"] = (figures[f"{name} {counter}"], steps[name][counter])
    kernel_maps(args.program, figures, ratios)
    training(args.program.resolve(), figures, ratios)
    least = {"gaussian_process_fit scikit-learn / percept": 3, "gaussian_process_fit numpy / percept": 1,
             "gaussian_process_gradient scikit-learn / percept": 3, "gaussian_process_predict scipy / percept": 5,
             "nadaraya_watson_predict scipy / percept": 5, "gru epoch torch / percept": 1}
    bars.update({name: (ratios[name], bar) for name, bar in least.items()})
    show(args.json, figures, ratios, bars)


if __name__ == "__main__":
    main()
