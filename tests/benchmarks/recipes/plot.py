"""Draws {tool: [[hosts, seconds], ...]}, read as JSON from standard input, to the PNG file named.

A second argument is what the y axis shows, on a linear scale, instead of seconds on a logarithmic one.
"""

import json
import sys

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot

figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
for tool, points in json.load(sys.stdin).items():
    axes.plot(*zip(*points, strict=True), marker="o", label=tool)
    ticks = [hosts for hosts, _ in points]
if sys.argv[2:]:
    axes.set(xlabel="hosts", ylabel=sys.argv[2], xticks=ticks, ylim=(0, None))
else:
    axes.set(xlabel="hosts", ylabel="seconds (median)", yscale="log", xticks=ticks)
axes.grid(visible=True, which="both", alpha=0.3)
axes.legend()
figure.savefig(sys.argv[1], dpi=150)
