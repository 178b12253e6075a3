"""One self-contained HTML page from the lines in bench/results: tables, curves, fronts, pictures.

    python bench/quality/report.py --data-dir DATA --work WORK --out report.html

Pictures of neighbours need the images (--data-dir) and the stored codes (--work); without them they are left out.
"""

import argparse
import io
import json
import re
import zlib
from pathlib import Path

import datasets
import jinja2
import matplotlib
import numpy as np
from datasets import title_of
from methods import BY_WEIGHTS, is_control, label, parse_spec, queries_of
from results import BENCH, codes_path, key_of
from run import Split

from aphash import HammingIndex
from aphash._command import page

matplotlib.use("Agg")
from matplotlib import pyplot as plt

LEAST_CONTROLS = 4  # with fewer there is no front to speak of
INK = "#010203"  # what becomes the page's own text colour, light or dark
COLUMNS = ("mAP", "P@10", "P@100", "P@1000", "recall10@10", "recall10@100", "rescored P@10", "P(r<=2)", "R(r<=2)",
           "empty(r<=2)")  # fmt: skip
OURS = {
    "aphash-semantic": "#2f81e0",
    "aphash-neighbors": "#17a072",
    "aphash-scores": "#8957e5",
    "aphash-paper": "#7d8590",
}
COLOURS = {"itq": "#e07b1a", "random": "#a1887f", "pq": "#d0487e", "opq": "#b23aa5", "rabitq": "#c0392b",
           "floats": INK}  # fmt: skip
STYLE = """
.pm { color: var(--soft); font-size: .78rem }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1rem }
figure { margin: 0; padding: .6rem; background: var(--card); border-radius: .5rem }
figure svg { width: 100%; height: auto; display: block } figcaption { font-size: .85rem; color: var(--soft) }
.strips { display: grid; grid-template-columns: minmax(5rem, 11rem) minmax(0, 1fr); gap: .15rem .7rem;
  align-items: center; max-width: 46rem; font-size: .85rem; margin-bottom: 1.2rem }
.strips img { width: 100%; max-width: 33rem; image-rendering: pixelated; display: block }
.strips img.query { max-width: 3rem }
"""
PICTURED = ("aphash-semantic", "aphash-neighbors", "control:n_rounds=8,rotation=random", "itq", "random", "floats")


def is_of_sweep(spec):
    """Whether this is one of the runs that differ from the preset in n_neighbors only."""
    name, params = parse_spec(spec)
    return name == "aphash-semantic" and set(params) == {"n_neighbors"}


class Table:
    """All lines, and means and spreads over seeds of them."""

    def __init__(self, folder):
        lines = [line for path in sorted(Path(folder).glob("*.jsonl")) for line in path.read_text().splitlines()]
        self.records = [r for r in map(json.loads, lines) if "measures" in r and r.get("protocol") != "validation"]
        self.records += [
            r | {"method": r["method"] + BY_WEIGHTS, "measures": r["by_weights"]}
            for r in self.records
            if "by_weights" in r
        ]
        self.groups = {}
        for r in self.records:
            self.groups.setdefault((r["dataset"], r["protocol"], r["n"], r["n_bits"], r["method"]), []).append(r)
        self.full = {}  # (dataset, protocol) -> n of the whole database: smaller ones are for growth
        for r in self.records:
            key = r["dataset"], r["protocol"]
            self.full[key] = max(self.full.get(key, 0), r["n"])

    def values(self, dataset, n_bits, method, measure, n=None):
        for (name, protocol, rows, bits, spec), records in self.groups.items():
            wanted = self.full[name, protocol] if n is None else n
            if (name, bits, spec, rows) == (dataset, n_bits, method, wanted):
                return np.array([r["measures"][measure] for r in records if measure in r["measures"]])
        return np.empty(0)

    def mean(self, *args, **more):
        values = self.values(*args, **more)
        return float(values.mean()) if values.size else None

    def methods(self, dataset, n_bits):
        found = {spec for (name, protocol, n, bits, spec) in self.groups
                 if (name, bits) == (dataset, n_bits) and n == self.full[name, protocol]}  # fmt: skip
        return sorted(found, key=order_of)

    def lengths(self, dataset):
        return sorted({bits for (name, protocol, n, bits, _) in self.groups
                       if name == dataset and n == self.full[name, protocol]})  # fmt: skip

    def one(self, dataset, n_bits, method):
        for (name, protocol, n, bits, spec), records in self.groups.items():
            if (name, bits, spec, n) == (dataset, n_bits, method, self.full[name, protocol]):
                return records
        return []


def order_of(spec):
    names = [*OURS, "control", "itq", "pca", "random", "signs", "sh", "agh", "opq", "pq", "rabitq", "floats"]
    name, params = parse_spec(spec)
    number = params.get("n_rounds", params.get("n_components", 0))
    first = names.index(name) if name in names else len(names)
    return spec.endswith(BY_WEIGHTS), first, params.get("rotation") == "identity", number, spec


# -- the controls' front ----------------------------------------------------------------------------------------------


def has_front(specs):
    return sum(parse_spec(spec)[0] == "control" for spec in specs) >= LEAST_CONTROLS


def front(points):
    """The points (recall, mAP, P@100) that no other point beats in both recall and mAP, by ascending recall."""
    kept, best = [], -np.inf
    for point in sorted(points, key=lambda p: (-p[0], -p[1])):
        if point[1] > best:
            kept.append(point)
            best = point[1]
    return np.array(kept[::-1])


def at_recall(points, recall):
    """(mAP, P@100) of a front at a recall, between its points; beyond its ends, those of the end. None without points.

    Above its largest recall that favours the front, which falls there.
    """
    line = front(points)
    if not len(line):
        return None
    return tuple(float(np.interp(recall, line[:, 0], line[:, i])) for i in (1, 2))


def margins(table, datasets_):
    rows = []
    for dataset in datasets_:
        for bits in table.lengths(dataset):
            specs = table.methods(dataset, bits)
            if not has_front(specs):
                continue
            three = {s: [table.mean(dataset, bits, s, m) for m in ("recall10@100", "mAP", "P@100")] for s in specs}
            controls = [v for s, v in three.items() if is_control(s) and None not in v]
            for spec in OURS:
                if spec in ("aphash-paper", "aphash-scores") or None in three.get(spec, [None]):
                    continue
                recall, mAP, P = three[spec]
                other = at_recall(controls, recall)
                if other is None:
                    continue
                rows.append({"name": f"{title_of(dataset)}, {bits}, {label(spec).removeprefix('APHash ')}",
                             "dataset": dataset, "bits": bits, "spec": spec,
                             "recall": f"{recall:.3f}", "mAP": f"{mAP:.4f}", "front_mAP": f"{other[0]:.4f}",
                             "gain_mAP": mAP / other[0] - 1, "P": f"{P:.4f}", "front_P": f"{other[1]:.4f}",
                             "gain_P": P - other[1]})  # fmt: skip
    return rows


def targets(table, margin_rows):
    """The project's figures to hold, from its issue, with what was found."""
    rows = []

    def add(what, found, hold, goal=None, form="{:.3f}"):
        if found is None:
            return
        ok = found >= hold
        met = goal is not None and found >= goal
        rows.append({"what": what, "found": form.format(found), "hold": form.format(hold), "ok": ok,
                     "goal": "" if goal is None else form.format(goal),
                     "verdict": "goal met" if met else "held" if ok else "missed"})  # fmt: skip

    for bits, mAP, P, goals in ((64, 0.39, 0.565, (0.42, 0.59)), (128, 0.40, 0.58, (0.43, 0.61))):
        found = table.mean("cnn", bits, "aphash-semantic", "mAP")
        add(f"CNN, {bits} bits, semantic: mAP", found, mAP, goals[0])
        add(f"CNN, {bits} bits, semantic: P@100", table.mean("cnn", bits, "aphash-semantic", "P@100"), P, goals[1])
        itq = table.mean("cnn", bits, "itq", "mAP")
        add(f"CNN, {bits} bits, semantic: mAP over ITQ's", found and itq and found / itq, 1.28)
    for row in margin_rows:
        if row["spec"] == "aphash-semantic" and row["bits"] in (64, 128) and row["dataset"] != "digits":
            name = f"{title_of(row['dataset'])}, {row['bits']} bits, semantic"
            add(f"{name}: mAP over the front at equal recall", 1 + row["gain_mAP"], 1.015, 1.05)
            add(f"{name}: P@100 over the front", row["gain_P"], -0.003, 0.0, "{:+.3f}")
    for dataset, minimum in (("cnn", 0.595), ("fashion", 0.64)):
        found = table.mean(dataset, 64, "aphash-neighbors", "recall10@100")
        add(f"{title_of(dataset)}, 64 bits, neighbors: recall10@100", found, minimum)
    for dataset in ("cnn", "gist", "fashion", "wordnet"):
        for bits in (64, 128):
            ours, itq = (table.mean(dataset, bits, m, "recall10@100") for m in ("aphash-neighbors", "itq"))
            gain = ours and itq and ours - itq
            add(f"{title_of(dataset)}, {bits} bits, neighbors: recall10@100 less ITQ's", gain, 0.0, form="{:+.3f}")
            for peer in ("pq", "rabitq", "rabitq:inside=False"):
                ours, other = (table.mean(dataset, bits, m, "mAP") for m in ("aphash-semantic", peer))
                words = label(peer) if peer != "rabitq:inside=False" else "RaBitQ's with 8 bytes more"
                add(f"{title_of(dataset)}, {bits} bits: mAP over {words}", ours and other and ours / other, 1.0)
    for dataset, figures in (("gist", (0.183, 0.19, 0.201, 0.203)), ("fashion", (0.5, 0.505, 0.535, 0.54))):
        for bits, minimum in zip((16, 32, 64, 128), figures):
            found = table.mean(dataset, bits, "aphash-semantic", "mAP")
            add(f"{title_of(dataset)}, {bits} bits, semantic: mAP", found, minimum, minimum * 1.05)
    return rows


# -- drawing ----------------------------------------------------------------------------------------------------------


def figure(width=5.6, height=3.9):
    plt.rcParams.update({"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9.5, "axes.edgecolor": INK,
                         "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
                         "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "aphash"})  # fmt: skip
    fig, axes = plt.subplots(figsize=(width, height), layout="constrained")
    axes.grid(color="#8888", linewidth=0.4)
    return fig, axes


def svg(fig, caption):
    text = io.StringIO()
    fig.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    plt.close(fig)
    text = text.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    prefix = f"f{zlib.crc32(caption.encode())}"  # ids are one page's
    text = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    return {"svg": jinja2.utils.markupsafe.Markup(text), "caption": caption}


def style(spec):
    if spec.endswith(BY_WEIGHTS):  # hollow
        return style(spec.removesuffix(BY_WEIGHTS)) | {"markerfacecolor": "none"}
    name, params = parse_spec(spec)
    if spec in OURS:
        return {"color": OURS[spec], "marker": "o", "markersize": 8, "zorder": 5}
    if name == "control":
        return {
            "color": "#8b949e",
            "marker": "s" if params.get("rotation") == "identity" else "^",
            "markersize": 5.5,
            "zorder": 3,
        }
    if name == "itq" and params:
        return {"color": "#e07b1a", "marker": "D", "markersize": 4.5, "zorder": 3}
    return {"color": COLOURS.get(name, "#6e7781"), "marker": "o", "markersize": 5.5, "zorder": 4}


def plane(table, dataset, bits):
    points = {}
    for spec in table.methods(dataset, bits):
        x, y = table.mean(dataset, bits, spec, "recall10@100"), table.mean(dataset, bits, spec, "mAP")
        if x is None or y is None or is_of_sweep(spec):
            continue
        points[spec] = (x, y)
    if not points:  # there are no labels
        return None
    fig, axes = figure()
    for spec, (x, y) in points.items():
        axes.plot(x, y, linestyle="none", **style(spec))
    drawn = has_front(points)
    if drawn:
        line = front([(x, y, 0) for spec, (x, y) in points.items() if is_control(spec)])
        axes.plot(line[:, 0], line[:, 1], color="#8b949e", linewidth=1.2, zorder=2, label="controls' front")
    low = min(y for _, y in points.values())
    for spec, (x, y) in points.items():
        if spec in OURS or spec in ("itq", "random", "pq", "opq", "rabitq", "floats", "sh", "agh"):
            words = label(spec).removeprefix("APHash ")
            weight = "bold" if spec in OURS else "normal"
            right = x > 0.8
            axes.annotate(words, (x, y), (-7 if right else 7, 3), textcoords="offset points", fontsize=8.5,
                          ha="right" if right else "left", color=style(spec)["color"], weight=weight)  # fmt: skip
        elif (params := parse_spec(spec)[1]).get("rotation") == "random" and not spec.endswith(BY_WEIGHTS):
            rounds = str(params["n_rounds"])
            axes.annotate(rounds, (x, y), (-3, -11), textcoords="offset points", fontsize=7.5, color="#8b949e")
    axes.set(xlabel="recall10@100: the true neighbours", ylabel="mAP: the same kind", ylim=(low - 0.01, None))
    caption = f"{title_of(dataset)}, {bits} bits: up and right is better. "
    caption += "Grey line: the controls' front. " if drawn else ""
    return svg(
        fig,
        caption + "Triangles: random rotation, with rounds; squares: identity; diamonds: PCA-p + projection. "
        "Hollow: the same codes asked by weights.",
    )


def curves(table, dataset, bits):
    drawn = {}
    for spec in ("aphash-semantic", "aphash-neighbors", "control:n_rounds=8,rotation=random", "itq", "pq", "random",
                 "floats"):  # fmt: skip
        records = table.one(dataset, bits, spec) or (table.one(dataset, 64, spec) if spec == "floats" else [])
        records = [r for r in records if "curve" in r["measures"]]
        if records:
            drawn[spec] = records
    if not drawn:
        return None
    fig, axes = figure()
    for spec, records in drawn.items():
        recall = np.linspace(0.002, 1, 200)
        all_ = [
            np.interp(recall, r["measures"]["curve"]["recall"], r["measures"]["curve"]["precision"]) for r in records
        ]
        look = style(spec)
        axes.plot(recall, np.mean(all_, axis=0), color=look["color"], label=label(spec),
                  linewidth=2 if spec in OURS else 1.2, linestyle=":" if spec == "floats" else "-")  # fmt: skip
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, None))
    axes.legend(frameon=False, fontsize=8)
    return svg(fig, f"{title_of(dataset)}, {bits} bits: precision and recall as the radius grows.")


def sweep(table, dataset, bits=64):
    values = {}
    for spec in table.methods(dataset, bits):
        if is_of_sweep(spec):
            values[parse_spec(spec)[1]["n_neighbors"]] = spec
    if len(values) < 3:
        return None
    values[0.005] = "aphash-semantic"  # the default
    shares = sorted(values)
    fig, axes = figure()
    for measure, colour in (("mAP", "#2f81e0"), ("P@100", "#8957e5"), ("recall10@100", "#17a072")):
        means = [table.mean(dataset, bits, values[s], measure) for s in shares]
        axes.plot([100 * s for s in shares], means, marker="o", color=colour, label=measure)
    axes.set(xscale="log", xlabel="n_neighbors, % of the rows", ylabel="mean over seeds")
    axes.set_xticks([100 * s for s in shares], [f"{100 * s:g}" for s in shares], minor=False)
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize=8)
    return svg(fig, f"{title_of(dataset)}, {bits} bits, semantic.")


def growth(table, dataset="cnn", bits=64):
    series = {}
    for (name, _, n, length, spec), records in table.groups.items():
        if (name, length) == (dataset, bits) and spec in (
            "full",
            "aphash-semantic",
            "itq",
            "control:n_rounds=8,rotation=random",
        ):
            memory = [r["peak_memory_mib"] for r in records if r["peak_memory_mib"] is not None]
            fit = np.median([r["seconds"]["fit"] for r in records])
            series.setdefault(spec, []).append((n, fit, np.median(memory) if memory else np.nan))
    series = {spec: np.array(sorted(points)) for spec, points in series.items() if len(points) > 2}
    if "full" not in series:
        return []
    plots = []
    for column, words in ((1, "seconds of a fit"), (2, "MiB beyond the data")):
        fig, axes = figure()
        for spec, points in series.items():
            look = style(spec) if spec != "full" else {"color": "#c0392b", "marker": "x"}
            axes.plot(points[:, 0], np.maximum(points[:, column], 0.01), label=label(spec), **look)
        axes.set(xscale="log", yscale="log", xlabel="n", ylabel=words)
        axes.legend(frameon=False, fontsize=8)
        plots.append(svg(fig, f"{words.capitalize()} against n, CNN features, {bits} bits."))
    return plots


# -- pictures ---------------------------------------------------------------------------------------------------------


def strip(images, right):
    """One row of images side by side, each in a frame: red where it is of another class."""
    framed = []
    for image, ok in zip(images, right):
        rgb = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
        cell = np.empty((rgb.shape[0] + 4, rgb.shape[1] + 4, 3), np.uint8)
        cell[:] = (200, 205, 210) if ok else (214, 40, 40)
        cell[2:-2, 2:-2] = rgb
        framed += [cell, np.full((cell.shape[0], 2, 3), 128, np.uint8)]
    return np.hstack(framed[:-1])


def pictures(dataset, work, bits, count=3):
    """For a few queries, the strip of the ten nearest by each method whose codes are stored."""
    split = Split(dataset, "auto", 0)
    found = {}
    for spec in PICTURED:
        if spec == "floats":
            found[spec] = split.truth.neighbors
            continue
        path = codes_path(work, split.key(spec, bits))
        if path.exists():
            with np.load(path) as stored:
                index = HammingIndex(64 * stored["database"].shape[1])
                index.add(stored["database"])
                found[spec] = index.search(stored["queries"], 10)[1]
    if len(found) < 2:
        return []
    out, y = [], dataset.y
    for q in np.linspace(0, len(split.queries) - 1, count + 2).astype(int)[1:-1]:
        row = split.queries[q]
        strips = []
        for spec, ids in found.items():
            rows = split.database[ids[q]]
            right = y[rows] == y[row]
            strips.append((label(spec), page.picture_of(strip(dataset.images[rows], right)), int(right.sum())))
        name = dataset.class_names[y[row]] if dataset.class_names else str(y[row])
        out.append(
            {"label": name, "query": page.picture_of(strip(dataset.images[row][None], [True])), "strips": strips}
        )
    return out


# -- the page ---------------------------------------------------------------------------------------------------------


def table_of(table, dataset, bits):
    specs = [s for s in table.methods(dataset, bits) if not is_of_sweep(s)]
    columns = [c for c in COLUMNS if any(table.values(dataset, bits, s, c).size for s in specs)]
    lowest = {"empty(r<=2)"}
    best = {}
    for c in columns:
        means = {s: table.mean(dataset, bits, s, c) for s in specs if s != "floats"}
        best[c] = (min if c in lowest else max)(v for v in means.values() if v is not None)
    rows = []
    for spec in specs:
        records = table.one(dataset, bits, spec)
        cells = []
        for c in columns:
            v = table.values(dataset, bits, spec, c)
            spread = f"{v.std(ddof=1):.3f}".lstrip("0") if v.size > 1 else ""
            cells.append({"mean": f"{v.mean():.4f}" if v.size else "", "spread": spread,
                          "best": bool(v.size) and abs(v.mean() - best[c]) < 5e-5})  # fmt: skip
        memory = [r["peak_memory_mib"] for r in records if r["peak_memory_mib"] is not None]
        rows.append({"name": label(spec), "queries": queries_of(spec),
                     "ours": spec.removesuffix(BY_WEIGHTS) in OURS, "bytes": f"{records[0]['bytes_per_item']:g}",
                     "cells": cells, "fit": f"{np.median([r['seconds']['fit'] for r in records]):.1f}",
                     "memory": f"{np.median(memory):.0f}" if memory else ""})  # fmt: skip
    seeds = sorted({r["seed"] for s in specs for r in table.one(dataset, bits, s)})
    return {"title": f"{bits} bits, {len(seeds)} seed{'s' if len(seeds) > 1 else ''}", "columns": columns, "rows": rows}


def section(table, dataset, options):
    one = next(r for r in table.records if r["dataset"] == dataset and r["n"] == table.full[dataset, r["protocol"]])
    text = (f"n = {one['n']:,}, {one['n_queries']:,} queries, {one['d']} features. "
            f"Split \"{one['protocol']}\": {datasets.PROTOCOLS[one['protocol']]}.")  # fmt: skip
    lengths = table.lengths(dataset)
    plots = [plane(table, dataset, bits) for bits in lengths if bits in (32, 64, 128)]
    main = 64 if 64 in lengths else lengths[-1]
    plots = [drawn for drawn in (*plots, curves(table, dataset, main)) if drawn]
    shown = []
    if options.work:
        try:
            data = datasets.load(dataset, options.data_dir, options.cache or Path(options.work) / "features")
            if data.images is not None and data.y is not None:
                shown = pictures(data, options.work, main)
        except datasets.MissingData as error:
            print(f"no pictures of {dataset}: {error}")
    return {"id": dataset, "title": title_of(dataset), "text": text, "plots": plots,
            "tables": [table_of(table, dataset, bits) for bits in lengths], "pictures": shown}  # fmt: skip


def render(options):
    table = Table(options.results)
    if not table.records:
        raise SystemExit(f"{options.results} holds no runs: python bench/quality/run.py first")
    names = [*datasets.REGISTRY, *sorted({r["dataset"] for r in table.records} - set(datasets.REGISTRY))]
    names = [name for name in names if any(r["dataset"] == name for r in table.records)]
    margin_rows = margins(table, names)
    sweeps = [d for d in (sweep(table, name) for name in names) if d]
    machines = {f"{r['machine']['cpu']}, {r['machine']['cores']} cores, {r['machine']['isa']}" for r in table.records}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    body = environment.get_template("report.html").render(
        table=lambda columns, rows, name: jinja2.utils.markupsafe.Markup(page.table(columns, rows, name)),
        n_runs=len({key_of(r) for r in table.records}),
        commits=sorted({r["commit"] for r in table.records}),
        machines=sorted(machines),
        when=max(r["when"] for r in table.records)[:16].replace("T", " "),
        versions=sorted({f"{name} {v}" for r in table.records for name, v in r["versions"].items()}),
        target_rows=[
            (b["what"], b["found"], b["hold"], b["goal"], (b["verdict"], "good" if b["ok"] else "bad"))
            for b in targets(table, margin_rows)
        ],
        margin_rows=[
            (
                m["name"],
                m["recall"],
                m["mAP"],
                m["front_mAP"],
                gain(m["gain_mAP"], 0, "{:+.1%}"),
                m["P"],
                m["front_P"],
                gain(m["gain_P"], -0.003, "{:+.3f}"),
            )
            for m in margin_rows
        ],
        sets=[section(table, name, options) for name in names],
        sweep=sweeps,
        growth=growth(table),
        speed=speed(Path(options.measurements)),
    )
    return page.document("aphash: measurements", body, STYLE)


def gain(value, worst, form):
    """Return a table's cell: a gain, a loss, or neither."""
    return form.format(value), "good" if value > 0.0005 else "bad" if value < worst else "soft"


def speed(folder):
    """The latest line of each row that kernels.py wrote there with --json, or None."""
    latest = {}
    for name in ("kernels_train.jsonl", "kernels_search.jsonl"):
        path = folder / name
        for r in map(json.loads, path.read_text().splitlines() if path.exists() else ()):
            if "case" in r:  # of kernels_train.py
                latest[r["case"], r["isa"], r["peer"]] = 1e3 * r["seconds"], r["ratio"]
            else:
                against = r.get("ratio_of", "faiss, the better of its modes / this")
                latest[r["row"], r["isa"], against] = r["ours_ms"], r["ratio"]
    rows = [(*key, f"{ms:,.1f}", f"{ratio:.2f}") for key, (ms, ratio) in latest.items()]
    return {"columns": ("what", "instructions", "beside", "ms", "ratio"), "rows": rows} if rows else None


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", default=BENCH / "results", metavar="DIR")
    parser.add_argument("--measurements", default=BENCH / "measurements", metavar="DIR", help="of kernels.py")
    parser.add_argument("--data-dir", metavar="DIR", help="for pictures; default: $APHASH_DATA, or data")
    parser.add_argument("--work", metavar="DIR", help="run.py's --work, for pictures")
    parser.add_argument("--cache", metavar="DIR", help="run.py's --cache; default: WORK/features")
    parser.add_argument("--out", default="report.html", metavar="FILE")
    options = parser.parse_args(argv)
    text = render(options)
    Path(options.out).write_text(text)
    print(f"{options.out}: {len(text) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
