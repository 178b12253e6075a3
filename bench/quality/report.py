"""One self-contained HTML page from the lines in bench/results: tables, curves, fronts, pictures.

    python bench/quality/report.py --data-dir DATA --work WORK --out report.html

Pictures of neighbours need the images (--data-dir) and the stored codes (--work); without them they are left out.
"""

import argparse
import io
import itertools
import json
import re
import zlib
from pathlib import Path

import datasets
import fronts
import jinja2
import matplotlib
import numpy as np
import proof
from datasets import title_of
from methods import BY_WEIGHTS, is_control, is_of_sweep, label, parse_spec, queries_of
from results import BENCH, Results, Table, codes_path, key_of
from run import Split

from aphash import HammingIndex
from aphash._command import page

matplotlib.use("Agg")
from matplotlib import pyplot as plt

INK = "#010203"  # what becomes the page's own text colour, light or dark
COLUMNS = ("mAP", "P@10", "P@100", "P@1000", "recall10@10", "recall10@100", "rescored P@10", "P(r<=2)", "R(r<=2)",
           "empty(r<=2)")  # fmt: skip
OURS = {
    "aphash-semantic": "#2f81e0",
    "aphash-semantic-scores": "#0a9fb5",
    "aphash-neighbors": "#17a072",
    "aphash-scores": "#8957e5",
    "aphash-paper": "#7d8590",
}
COLOURS = {"itq": "#e07b1a", "random": "#a1887f", "pq": "#d0487e", "opq": "#b23aa5", "rabitq": "#c0392b",
           "floats": INK}  # fmt: skip
STYLE = """
th.group { text-align: left }
tr:nth-child(2) > th:first-child { text-align: right; position: static; min-width: 0; padding-right: .7rem }
.pm { color: var(--soft); font-size: .78rem }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1rem }
figure { margin: 0; padding: .6rem; background: var(--card); border-radius: .5rem }
figure svg { width: 100%; height: auto; display: block } figcaption { font-size: .85rem; color: var(--soft) }
.strips { display: grid; grid-template-columns: minmax(5rem, 11rem) minmax(0, 1fr); gap: .15rem .7rem;
  align-items: center; max-width: 46rem; font-size: .85rem; margin-bottom: 1.2rem }
.strips img { width: 100%; max-width: 33rem; image-rendering: pixelated; display: block }
.strips img.query { max-width: 3rem }
"""
BYTES, BYTES_MEASURES = (8, 16, 32), ("recall10@100", "recall10@10", "P@100")
PICTURED = ("aphash-semantic", "aphash-neighbors", "control:n_rounds=8,rotation=random", "itq", "random", "floats")


# -- the figures to hold ----------------------------------------------------------------------------------------------


def margins(table, names):
    """What ``semantic`` and ``neighbors`` have over the controls' front, by codes and by weights, a dict a row."""
    rows = []
    lengths = [(dataset, bits) for dataset in names for bits in table.lengths(dataset)]
    specs = (*proof.KINDS, "aphash-neighbors")
    for (dataset, bits), queries, spec in itertools.product(lengths, ("", BY_WEIGHTS), specs):
        found = [fronts.beside(table, dataset, bits, spec + queries, measure) for measure in fronts.MEASURES]
        if None in found:
            continue
        (recall, mAP, front_mAP), (_, P, front_P) = found
        rows.append({"dataset": dataset, "bits": bits, "spec": spec, "queries": queries_of(spec + queries),
                     "name": f"{title_of(dataset)}, {bits}, {label(spec).removeprefix('APHash ')}",
                     "recall": recall, "mAP": mAP, "front_mAP": front_mAP, "gain_mAP": mAP / front_mAP - 1,
                     "P": P, "front_P": front_P, "gain_P": P - front_P})  # fmt: skip
    return rows


def targets(table, margin_rows, names):
    """The project's figures to hold, from its issues, with what was found: the rows of a table."""
    rows = []

    def add(what, queries, found, hold, goal=None, form="{:.3f}", half=None, ours=None):
        if found is None:
            return
        ours = found if ours is None else ours  # what is held against the goal
        ok, met = found >= hold, goal is not None and ours >= goal
        rows.append((what, queries, form.format(found), "" if half is None else f"±{half:.3f}", form.format(hold),
                     "" if goal is None else f"{goal:.3f}",
                     ("goal met" if ok and met else "held" if ok else "missed", "good" if ok else "bad")))  # fmt: skip

    seeds = sorted({r["seed"] for r in table.records})
    for bar in proof.scores_bars(table, names, seeds):
        what = f"{title_of(bar.dataset)}, {bar.bits // 8} bytes, scores less ITQ: {bar.measure}"
        add(what, "weights", bar.found, bar.least, bar.goal, "{:+.3f}", bar.half, bar.ours)
    for bar in proof.front_bars(table, names, seeds):
        what = f"{title_of(bar.dataset)}, {bar.what}: {bar.measure} over the front at equal recall"
        add(what, "weights", bar.found, bar.least, half=bar.half)
    for bits, mAP, P, goals in ((64, 0.39, 0.565, (0.42, 0.59)), (128, 0.40, 0.58, (0.43, 0.61))):
        found = table.mean("cnn", bits, "aphash-semantic", "mAP")
        add(f"CNN, {bits} bits, semantic: mAP", "codes", found, mAP, goals[0])
        P_found = table.mean("cnn", bits, "aphash-semantic", "P@100")
        add(f"CNN, {bits} bits, semantic: P@100", "codes", P_found, P, goals[1])
        itq = table.mean("cnn", bits, "itq", "mAP")
        add(f"CNN, {bits} bits, semantic: mAP over ITQ's", "codes", found and itq and found / itq, 1.28)
    for row in margin_rows:
        which = row["spec"], row["queries"]
        if which == ("aphash-semantic", "codes") and row["bits"] in (64, 128) and row["dataset"] != "digits":
            name = f"{title_of(row['dataset'])}, {row['bits']} bits, semantic"
            add(f"{name}: mAP over the front at equal recall", "codes", 1 + row["gain_mAP"], 1.015, 1.05)
            add(f"{name}: P@100 less the front's", "codes", row["gain_P"], -0.003, 0.0, "{:+.3f}")
    for dataset, minimum in (("cnn", 0.595), ("fashion", 0.64)):
        found = table.mean(dataset, 64, "aphash-neighbors", "recall10@100")
        add(f"{title_of(dataset)}, 64 bits, neighbors: recall10@100", "codes", found, minimum)
    for dataset in ("cnn", "gist", "fashion", "wordnet"):
        for bits in (64, 128):
            ours, itq = (table.mean(dataset, bits, m, "recall10@100") for m in ("aphash-neighbors", "itq"))
            what = f"{title_of(dataset)}, {bits} bits, neighbors: recall10@100 less ITQ's"
            add(what, "codes", ours and itq and ours - itq, 0.0, form="{:+.3f}")
            for peer in ("pq", "rabitq", "rabitq:inside=False"):
                ours, other = (table.mean(dataset, bits, m, "mAP") for m in ("aphash-semantic", peer))
                words = label(peer) if peer != "rabitq:inside=False" else "RaBitQ's with 8 bytes more"
                what = f"{title_of(dataset)}, {bits} bits, semantic: mAP over {words}"
                add(what, "codes, floats", ours and other and ours / other, 1.0)
    for dataset, figures in (("gist", (0.183, 0.19, 0.201, 0.203)), ("fashion", (0.5, 0.505, 0.535, 0.54))):
        for bits, minimum in zip((16, 32, 64, 128), figures):
            found = table.mean(dataset, bits, "aphash-semantic", "mAP")
            add(f"{title_of(dataset)}, {bits} bits, semantic: mAP", "codes", found, minimum, minimum * 1.05)
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
    spec = spec.removesuffix(BY_WEIGHTS)
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
    if name in ("means", "mean-bits"):
        return {"color": "#8b949e", "marker": "v" if name == "means" else "P", "markersize": 5.5, "zorder": 3}
    if name == "itq" and params:
        return {"color": "#e07b1a", "marker": "D", "markersize": 4.5, "zorder": 3}
    return {"color": COLOURS.get(name, "#6e7781"), "marker": "o", "markersize": 5.5, "zorder": 4}


def plane(table, dataset, bits, queries):
    """Recall and mAP of all methods that are asked by codes, or by weights, and their controls' front; PQ's kin."""
    points = {}
    for spec in table.methods(dataset, bits):
        x, y = table.mean(dataset, bits, spec, "recall10@100"), table.mean(dataset, bits, spec, "mAP")
        if x is not None and y is not None and not is_of_sweep(spec) and queries_of(spec) in (queries, "floats"):
            points[spec] = (x, y)
    if not any(queries_of(spec) == queries for spec in points):
        return None
    fig, axes = figure()
    for spec, (x, y) in points.items():
        axes.plot(x, y, linestyle="none", **style(spec))
    drawn = [points[spec] for spec in fronts.controls(table, dataset, bits, queries) if spec in points]
    if drawn:
        line = fronts.front(drawn)
        axes.plot(line[:, 0], line[:, 1], color="#8b949e", linewidth=1.2, zorder=2)
    low = min(y for _, y in points.values())
    for spec, (x, y) in points.items():
        plain = spec.removesuffix(BY_WEIGHTS)
        if plain in OURS or plain in ("itq", "random", "pq", "opq", "rabitq", "floats", "sh", "agh"):
            words = label(plain).removeprefix("APHash ")
            weight = "bold" if plain in OURS else "normal"
            right = x > 0.8
            axes.annotate(words, (x, y), (-7 if right else 7, 3), textcoords="offset points", fontsize=8.5,
                          ha="right" if right else "left", color=style(spec)["color"], weight=weight)  # fmt: skip
        elif (params := parse_spec(spec)[1]).get("rotation") == "random":
            rounds = str(params["n_rounds"])
            axes.annotate(rounds, (x, y), (-3, -11), textcoords="offset points", fontsize=7.5, color="#8b949e")
    axes.set(xlabel="recall10@100: the true neighbours", ylabel="mAP: the same kind", ylim=(low - 0.01, None))
    caption = f"{title_of(dataset)}, {bits} bits, asked by {queries}: up and right is better. "
    caption += "Grey line: the controls' front. " if drawn else ""
    return svg(
        fig,
        caption + "Triangles: random rotation, with rounds; squares: identity; diamonds: PCA-p + projection; "
        "triangles down and crosses: means of neighbours.",
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
    recall = np.linspace(0.002, 1, 200)
    for spec, records in drawn.items():
        all_ = [
            np.interp(recall, r["measures"]["curve"]["recall"], r["measures"]["curve"]["precision"]) for r in records
        ]
        look = style(spec)
        axes.plot(recall, np.mean(all_, axis=0), color=look["color"], label=label(spec),
                  linewidth=2 if spec in OURS else 1.2, linestyle=":" if spec == "floats" else "-")  # fmt: skip
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, None))
    axes.legend(frameon=False, fontsize=8)
    caption = f"{title_of(dataset)}, {bits} bits, asked by codes (PQ and floats by floats): "
    return svg(fig, caption + "precision and recall as the radius grows.")


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


def table_of(table, dataset, bits, queries):
    """The rows of a length whose queries are among those given; None where there are none."""
    specs = [s for s in table.methods(dataset, bits) if not is_of_sweep(s) and queries_of(s) in queries]
    if not specs:
        return None
    columns = [c for c in COLUMNS if any(table.values(dataset, bits, s, c).size for s in specs)]
    lowest = {"empty(r<=2)"}
    best = {}
    for c in columns:
        means = [v for s in specs if s != "floats" and (v := table.mean(dataset, bits, s, c)) is not None]
        best[c] = (min if c in lowest else max)(means, default=np.nan)
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
    asked = "codes" if "codes" in queries else "weights or floats"
    title = f"{bits} bits, asked by {asked}, {len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
    return {"title": title, "columns": columns, "rows": rows}


def equal_bytes(table, dataset):
    """What finds neighbours by weights or floats at 8, 16 and 32 bytes an item, all counted; None where nothing does.

    ``groups`` are (bytes, measures), ``rows`` have a cell for each measure of each group.
    """
    found = {}
    for bits in table.lengths(dataset):
        for spec in table.methods(dataset, bits):
            plain = spec.removesuffix(BY_WEIGHTS)
            if queries_of(spec) == "codes" or is_of_sweep(spec) or (is_control(spec) and plain != "itq"):
                continue
            size = table.one(dataset, bits, spec)[0]["bytes_per_item"]
            name = "RaBitQ" if parse_spec(spec)[0] == "rabitq" else label(spec)  # at equal bytes its variants are one
            if size in BYTES:
                figures = [table.mean(dataset, bits, spec, m) for m in BYTES_MEASURES]
                found.setdefault((name, plain in OURS), {}).setdefault(size, figures)

    def known(size, i):
        return [values[size][i] for values in found.values() if size in values and values[size][i] is not None]

    groups = {s: [i for i in range(len(BYTES_MEASURES)) if known(s, i)] for s in BYTES}
    columns = [(size, i) for size, some in groups.items() for i in some]
    best = {column: max(known(*column)) for column in columns}
    rows = []
    for (name, ours), values in found.items():
        figures = {(s, i): values[s][i] if s in values else None for s, i in columns}
        rows.append({"name": name, "ours": ours, "cells": [
            {"mean": "" if v is None else f"{v:.4f}", "best": v == best[column]} for column, v in figures.items()
        ]})  # fmt: skip
    groups = [(size, [BYTES_MEASURES[i] for i in some]) for size, some in groups.items() if some]
    return {"groups": groups, "rows": rows} if rows else None


def section(table, dataset, options):
    one = next(r for r in table.records if r["dataset"] == dataset and r["n"] == table.full[dataset, r["protocol"]])
    text = (f"n = {one['n']:,}, {one['n_queries']:,} queries, {one['d']} features. "
            f"Split \"{one['protocol']}\": {datasets.PROTOCOLS[one['protocol']]}.")  # fmt: skip
    lengths = table.lengths(dataset)
    plots = [plane(table, dataset, bits, q) for bits in lengths if bits in (32, 64, 128) for q in ("codes", "weights")]
    tables = [table_of(table, dataset, bits, q) for bits in lengths for q in (("codes",), ("weights", "floats"))]
    main = 64 if 64 in lengths else lengths[-1]
    plots = [plot for plot in [*plots, curves(table, dataset, main)] if plot]
    shown = []
    if options.work:
        try:
            data = datasets.load(dataset, options.data_dir, options.cache or Path(options.work) / "features")
            if data.images is not None and data.y is not None:
                shown = pictures(data, options.work, main)
        except datasets.MissingData as error:
            print(f"no pictures of {dataset}: {error}")
    return {"id": dataset, "title": title_of(dataset), "text": text, "plots": plots,
            "bytes": equal_bytes(table, dataset), "tables": [t for t in tables if t], "pictures": shown}  # fmt: skip


def render(options):
    table = Table(Results(options.results).records.values())
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
        target_rows=targets(table, margin_rows, names),
        margin_rows=[
            (
                m["name"],
                m["queries"],
                f"{m['recall']:.3f}",
                f"{m['mAP']:.4f}",
                f"{m['front_mAP']:.4f}",
                gain(m["gain_mAP"], 0, "{:+.1%}"),
                f"{m['P']:.4f}",
                f"{m['front_P']:.4f}",
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
