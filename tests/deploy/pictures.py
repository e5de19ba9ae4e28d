"""The dashboard as a picture: each panel's queries from Prometheus, plotted in the panel's unit and place.

No Grafana, but what a person sees of it: the same queries, legends, units, stacking and thresholds. Needs matplotlib.
"""

import math
import time

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.ticker import FuncFormatter

UNIT = 0.55  # inches of one grid unit


def draw(panels, query, query_range, begin, file):
    """`query(expression)` and `query_range(expression, begin, end)` give what Prometheus answers."""
    bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = pyplot.figure(figsize=(24 * UNIT, bottom * UNIT * 0.62), dpi=120)
    for panel in panels:
        place = panel["gridPos"]
        gap = 0.35
        left, width = (place["x"] + 1.4) / 24, (place["w"] - 1.8) / 24
        low, height = 1 - (place["y"] + place["h"] - 1.4) / bottom, (place["h"] - 2.6) / bottom
        if panel["type"] == "row":
            figure.text(gap / 24, 1 - (place["y"] + 0.7) / bottom, panel["title"], fontsize=9, weight="bold")
            continue
        axes = figure.add_axes((left, low, width, max(height, 0.5 / bottom)))
        axes.set_title(panel["title"], fontsize=7, loc="left", pad=3)
        defaults = panel.get("fieldConfig", {}).get("defaults", {})
        if panel["type"] == "timeseries":
            series(axes, panel, defaults, query_range, begin)
        else:
            words(axes, panel, defaults, query)
    figure.savefig(file)
    pyplot.close(figure)


def series(axes, panel, defaults, query_range, begin):
    any_value = False
    for target in panel["targets"]:
        for found in query_range(target["expr"], begin, time.time()):
            points = [(float(at) - begin, float(value)) for at, value in found["values"]]
            points = [(at, value) for at, value in points if math.isfinite(value)]
            any_value |= bool(points)
            label = renamed(legend(target, found["metric"]), panel)
            axes.plot(*zip(*points) if points else ([], []), lw=0.9, label=label)
    axes.tick_params(labelsize=6, length=2)
    axes.grid(lw=0.2)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, defaults)))
    if "min" in defaults:
        axes.set_ylim(bottom=defaults["min"], top=defaults.get("max"))
    if any_value:
        axes.legend(fontsize=5, loc="upper left", ncols=2, framealpha=0.5)
    else:
        axes.text(0.5, 0.5, "No data", transform=axes.transAxes, ha="center", color="red")


def words(axes, panel, defaults, query):
    axes.set_axis_off()
    for target in panel["targets"]:
        found = query(target["expr"])
        if panel["type"] == "table":
            lines = [" ".join(f"{key}={value}" for key, value in sorted(one["metric"].items())) for one in found]
            axes.text(0, 0.9, "\n".join(lines) or "No data", fontsize=5, va="top")
            return
        text = shown(float(found[0]["value"][1]), defaults) if found else "No data"
        axes.text(0.5, 0.3, text, fontsize=12, ha="center", color=color(found, defaults))


def legend(target, labels):
    text = target.get("legendFormat") or "{" + ", ".join(f"{key}={value}" for key, value in labels.items()) + "}"
    for key, value in labels.items():
        text = text.replace("{{" + key + "}}", value)
    return text


def renamed(label, panel):
    for override in panel.get("fieldConfig", {}).get("overrides", []):
        if override["matcher"]["id"] == "byName" and override["matcher"]["options"] == label:
            return next((one["value"] for one in override["properties"] if one["id"] == "displayName"), label)
    return label


def color(found, defaults):
    value = float(found[0]["value"][1]) if found else math.nan
    chosen = "black"
    for step in defaults.get("thresholds", {}).get("steps", []):
        if step["value"] is None or value >= step["value"]:
            chosen = step["color"]
    return chosen


def shown(value, defaults):
    """A value as Grafana writes it in the panel's unit."""
    for mapping in defaults.get("mappings", []):
        text = mapping["options"].get(f"{value:g}")
        if text:
            return text["text"]
    unit = defaults.get("unit", "short")
    if unit == "dateTimeFromNow":
        return f"{(time.time() - value / 1000):.0f} s ago"
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    if unit == "s":
        return next((f"{value * of:.3g} {name}" for of, name in [(1, "s"), (1e3, "ms")] if value * of >= 1), f"{value * 1e6:.3g} µs")
    if unit == "bytes":
        return next((f"{value / 2**power:.3g} {name}" for power, name in [(30, "GiB"), (20, "MiB"), (10, "KiB")] if value >= 2**power), f"{value:.0f} B")
    suffix = {"reqps": " req/s", "ops": " ops/s"}.get(unit, "")
    digits = defaults.get("decimals")
    return (f"{value:.{digits}f}" if digits is not None else f"{value:.4g}") + suffix
