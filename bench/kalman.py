"""One step of the Kalman filter beside FilterPy, pykalman and plain NumPy, on one thread each and taken in turn.

The peers filter generated frames of the model that bench_filters.cpp uses: z_t = A z_{t-1} + N(0, gamma),
x_t = C z_t + N(0, R) with full R. Plain NumPy comes twice: the textbook gain, which solves a system of all channels in
every step, and the information form that percept uses, where R is inverted once. Every peer must give the same means.
"""
import os

THREADS = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
os.environ.update(THREADS)

import statistics
import time

import numpy as np
from filterpy.kalman import KalmanFilter as FilterPy
from pykalman import KalmanFilter as PyKalman

from _report import arguments, google_benchmark, show

ROUNDS = 3
SIZES = {(96, 4): 400, (1024, 6): 6}  # (channels, states): steps that a slow peer is given in a round


def spd(rng, n):
    m = rng.standard_normal((n, n + 8))
    return m @ m.T / n + np.eye(n)


class Model:
    def __init__(self, channels, states):
        rng = np.random.default_rng(1)
        self.a = 0.95 * np.eye(states)
        self.gamma = 0.1 * spd(rng, states)
        self.c = rng.standard_normal((channels, states))
        self.r = spd(rng, channels)
        self.v0 = spd(rng, states)
        self.x = rng.standard_normal((64, channels))


def filterpy(m):
    f = FilterPy(dim_x=len(m.a), dim_z=len(m.r))
    f.x, f.P, f.F, f.Q, f.H, f.R = np.zeros(len(m.a)), m.v0.copy(), m.a, m.gamma, m.c, m.r

    def step(t, x):
        if t:
            f.predict()
        f.update(x)
        return f.x

    return step


def pykalman(m):
    f = PyKalman(m.a, m.c, m.gamma, m.r, initial_state_mean=np.zeros(len(m.a)), initial_state_covariance=m.v0)
    state = [None, None]

    def step(t, x):
        if t == 0:  # it has no first step of its own, and takes one frame for many of one channel
            means, covariances = f.filter(np.stack([x, x]))
            state[:] = means[0], covariances[0]
        else:
            state[:] = f.filter_update(*state, observation=x)
        return np.asarray(state[0])

    return step


def numpy_gain(m):
    mean, p = np.zeros(len(m.a)), m.v0

    def step(t, x):
        nonlocal mean, p
        if t:
            mean, p = m.a @ mean, m.a @ p @ m.a.T + m.gamma
        gain = np.linalg.solve(m.c @ p @ m.c.T + m.r, m.c @ p).T
        mean = mean + gain @ (x - m.c @ mean)
        p = p - gain @ m.c @ p
        p = (p + p.T) / 2
        return mean

    return step


def numpy_information(m):
    weights = np.linalg.solve(m.r, m.c).T
    information = weights @ m.c
    eye = np.eye(len(m.a))
    mean, p = np.zeros(len(m.a)), m.v0

    def step(t, x):
        nonlocal mean, p
        if t:
            mean, p = m.a @ mean, m.a @ p @ m.a.T + m.gamma
        h = weights @ x - information @ mean
        p = np.linalg.solve(eye + p @ information, p)
        p = (p + p.T) / 2
        mean = mean + p @ h
        return mean

    return step


PEERS = {"filterpy": (filterpy, 1), "pykalman": (pykalman, 1), "numpy_gain": (numpy_gain, 1),
         "numpy_information": (numpy_information, 50)}  # times as many steps


def main():
    args = arguments(__doc__)
    figures, ratios = {}, {}
    for (channels, states), steps in SIZES.items():
        size = f"{channels}x{states}"
        model = Model(channels, states)
        name = f"kalman_step/channels:{channels}/states:{states}/steady:0"
        ours, theirs = [], {peer: [] for peer in PEERS}
        for _ in range(ROUNDS):
            ours.append(google_benchmark(args.program, "filters", f"^{name}/", THREADS)[name])
            means = {}
            for peer, (make, more) in PEERS.items():
                step = make(model)
                for t in range(1 + steps * more):
                    x = model.x[t % len(model.x)]
                    start = time.perf_counter()
                    mean = step(t, x)
                    if t:
                        theirs[peer].append((time.perf_counter() - start) * 1e6)
                    if t == 5:
                        means[peer] = mean
            for peer, mean in means.items():
                if not np.allclose(mean, means["numpy_gain"], rtol=1e-6, atol=1e-9):
                    raise SystemExit(f"{peer} computes something else: {mean}, expected {means['numpy_gain']}")
        for counter in ("median_us", "p99_us"):
            figures[f"{size} percept {counter}"] = statistics.median(o[counter] for o in ours)
        own = figures[f"{size} percept median_us"]
        for peer, us in theirs.items():
            figures[f"{size} {peer} median_us"] = statistics.median(us)
            ratios[f"{size} {peer} / percept"] = statistics.median(us) / own
    dkf = [google_benchmark(args.program, "filters", "^dkf_step/robust/states:4/", THREADS) for _ in range(ROUNDS)]
    figures["dkf 4 states median_us"] = statistics.median(d["dkf_step/robust/states:4"]["median_us"] for d in dkf)
    show(args.json, figures, ratios, {"1024x6 percept median_us": (figures["1024x6 percept median_us"], 15),
                                      "1024x6 percept p99_us": (figures["1024x6 percept p99_us"], 100),
                                      "dkf 4 states median_us": (figures["dkf 4 states median_us"], 1)})


if __name__ == "__main__":
    main()
