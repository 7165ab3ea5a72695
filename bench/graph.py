"""The graph's own cost: Graph::push beside the same stages called directly, in one run (bench_graph.cpp)."""
import statistics

from _report import arguments, google_benchmark, show

ROUNDS = 3


def main():
    args = arguments(__doc__)
    rounds = [google_benchmark(args.program, "graph") for _ in range(ROUNDS)]
    figures = {}
    for name in rounds[0]:
        for counter in ("pushed_ns", "direct_ns", "graph_ns", "share"):
            figures[f"{name} {counter}"] = statistics.median(r[name][counter] for r in rounds)
    bars = {}
    for name in rounds[0]:
        if name.endswith("block:1"):
            bars[f"{name} graph_ns"] = (figures[f"{name} graph_ns"], 100)
        elif not name.startswith("join/identity"):  # a join copies, as that stage does and no more: no share to speak of
            bars[f"{name} share"] = (figures[f"{name} share"], 0.02)
    show(args.json, figures, bars=bars)


if __name__ == "__main__":
    main()
