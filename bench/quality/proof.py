"""The figures to hold, as bars: what is asked, what the lines of results say, how sure that is, held or missed.

- ``scores`` beside ITQ, both asked by weights, at 8, 16 and 32 bytes on every set: recall of the true neighbours.
- ``semantic`` (and ``semantic-scores`` where it has lines) beside the front of the controls at equal recall, asked by
  weights, at 64 and 128 bits: mAP and P@100.
- ``semantic`` and ``neighbors`` beside ITQ by codes.

A bar is held or missed by the mean over seeds. The interval says how sure the mean is: see :func:`paired` and
:func:`over_seeds`.
"""

import itertools
from typing import NamedTuple

import datasets
import numpy as np
from fronts import MEASURES, beside, controls
from methods import BY_WEIGHTS, control_specs, label
from scipy import stats

SCORES, ITQ, SEMANTIC = "aphash-scores", "itq", "aphash-semantic"
KINDS = (SEMANTIC, "aphash-semantic-scores")  # are beside the front; a proof runs the first
BITS = (64, 128, 256)  # 8, 16 and 32 bytes
RECALLS = ("recall10@100", "recall10@10")
GAINS = {  # of scores over ITQ, at BITS
    ("cnn", "recall10@100"): (0.06, 0.03, 0.01),
    ("cnn", "recall10@10"): (0.07, 0.08, 0.07),
    ("sentences", "recall10@100"): (0.045, 0.008, 0.0),
    ("sentences", "recall10@10"): (0.05, 0.03, 0.01),
}
LEAST_GAIN = -0.005  # everywhere else
GOALS = {"recall10@100": (0.90, 0.98, 0.999), "recall10@10": (0.42, 0.58, 0.70)}  # of the two sets with gains
FRONT_BITS = (64, 128)
FRONT_RATIOS = {"cnn": 1.02, "fashion": 1.02, "gist": 1.0, "sentences": 1.0, "digits": 1.0}  # of mAP; P@100: 1
# The controls that a proof runs: those that make the front where semantic is. All that have lines are compared.
# On images, means of neighbours are behind the rounds, and to find the neighbours of all rows takes minutes.
CONTROLS = {
    "digits": [*control_specs((), (8,), {0.5: (10,), 0.75: (12, 14)}), "means:k=200"],
    "cnn": control_specs((), (8,), {0.5: (10,), 0.75: (12, 14)}),
    "gist": control_specs((8,), (4, 8), {0.5: (10,)}),
    "fashion": control_specs((8,), (), {0.5: (8, 10), 0.75: (12,)}),
    "sentences": [*control_specs((), (4, 8), {0.5: (10,), 0.75: (14,)}), "means:k=200"],
}
SMALL = f"{SEMANTIC}:n_anchors=200,n_neighbors=100"
RATIOS_BY_CODES = (  # set, rows, method, bits, mAP over ITQ's
    ("digits", None, SMALL, 32, 1.15),
    ("cnn", 10_000, SEMANTIC, 64, 1.25),
    ("cnn", None, SEMANTIC, 64, 1.28),
)
DOCUMENTED = {  # of CNN features, 64 bits, by codes; at most 3 % below
    SEMANTIC: {"mAP": 0.397, "P@100": 0.572, "recall10@100": 0.443},
    "aphash-neighbors": {"mAP": 0.320, "P@100": 0.538, "recall10@100": 0.612},
}


class Bar(NamedTuple):
    """A row: what is measured, the figures that make it, what was found and half its interval, what is to hold."""

    dataset: str
    bits: int
    what: str  # the length in words, and what is compared
    measure: str
    ours: float
    other: float
    found: float
    half: float | None
    least: float
    goal: float | None = None

    @property
    def held(self):
        return self.found >= self.least


def names_of(options):
    """The sets that a proof is about: all that have lengths in the registry, or those of the command line."""
    return options.dataset or [name for name, entry in datasets.REGISTRY.items() if entry.lengths]


def plan(names, seeds):
    """The runs of a proof, seed by seed, so that a split is made once: (dataset, bits, seeds, specs, rows).

    Sets that are too large for all methods are run with the first seed only, as ``--all`` does.
    """
    for name in names:
        large = name in datasets.REGISTRY and datasets.REGISTRY[name].methods is not None  # minutes a run
        for seed in seeds[:1] if large else seeds:
            for bits in BITS:
                specs = [SCORES, ITQ]
                if name in FRONT_RATIOS and bits in FRONT_BITS:
                    specs += [SEMANTIC, *CONTROLS[name]]
                if name == "cnn" and bits == 64:
                    specs += ["aphash-neighbors"]
                yield name, [bits], [seed], specs, None
            for where, rows, spec, bits, _ in RATIOS_BY_CODES:
                if where == name and (spec, rows) != (SEMANTIC, None):
                    yield name, [bits], [seed], [ITQ, spec], rows


def has_figures(record):
    """Whether a line has what a proof compares; older lines were measured by codes only, or as means only."""
    by_weights = record.get("by_weights", {})
    if record["method"] in (SCORES, ITQ):
        return "queries" in record and "hits@100" in by_weights
    return bool(by_weights)


# -- intervals --------------------------------------------------------------------------------------------------------


def paired(ours, other, k):
    """Half the 95 % interval of the mean difference of recall10@k, over the queries of all seeds; None without hits.

    ``ours`` and ``other`` are records, a seed each. Where seeds have the same queries, since the test part has no more,
    a query counts once, with the mean of its differences.
    """
    by_seed = {r["seed"]: r for r in other}
    differences = {}
    for r in ours:
        pair = [r, by_seed.get(r["seed"])]
        if None in pair or any("queries" not in one or f"hits@{k}" not in one["measures"] for one in pair):
            return None
        if pair[0]["queries"] != pair[1]["queries"]:
            raise ValueError(f"lines of {r['dataset']}, seed {r['seed']}, are of different queries: --measure them")
        a, b = (np.array([int(digit, 16) for digit in one["measures"][f"hits@{k}"]]) for one in pair)
        differences.setdefault(r["queries"], []).append((a - b) / 10)
    each = np.concatenate([np.mean(same, axis=0) for same in differences.values()])
    return 1.96 * each.std(ddof=1) / np.sqrt(len(each)) if len(each) > 1 else None


def over_seeds(values):
    """Half the 95 % interval of a mean over seeds (Student's t); None of fewer than two."""
    if len(values) < 2:
        return None
    return stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))


# -- the bars ---------------------------------------------------------------------------------------------------------


def scores_bars(table, names, seeds):
    """``scores`` less ITQ by weights, for every set, length and measure of which there are lines."""
    out = []
    for name in names:
        for i, bits in enumerate(BITS):
            for measure in RECALLS:
                ours, other = (table.one(name, bits, spec + BY_WEIGHTS, seeds=seeds) for spec in (SCORES, ITQ))
                both = {r["seed"] for r in ours} & {r["seed"] for r in other}
                if not both:
                    continue
                ours, other = ([r for r in records if r["seed"] in both] for records in (ours, other))
                a, b = (np.mean([r["measures"][measure] for r in records]) for records in (ours, other))
                half = paired(ours, other, int(measure.partition("@")[2]))
                least = GAINS[name, measure][i] if (name, measure) in GAINS else LEAST_GAIN
                goal = GOALS[measure][i] if (name, measure) in GAINS else None
                some = "" if len(both) == len(seeds) else f", {len(both)} of {len(seeds)} seeds"
                out.append(Bar(name, bits, f"{bits // 8} bytes{some}", measure, a, b, a - b, half, least, goal))
    return out


def front_bars(table, names, seeds, queries=BY_WEIGHTS):
    """What finds kinds, over the controls' front at equal recall, as a ratio, asked by weights or by codes."""
    out = []
    lengths = [(name, bits) for name in names if name in FRONT_RATIOS for bits in FRONT_BITS]
    for (name, bits), kind, measure in itertools.product(lengths, KINDS, MEASURES):
        found = beside(table, name, bits, kind + queries, measure, seeds)
        if found is None:
            continue
        _, ours, other = found
        each = [beside(table, name, bits, kind + queries, measure, [seed]) for seed in seeds]
        half = over_seeds([each_ours / front for _, each_ours, front in filter(None, each)])
        least = FRONT_RATIOS[name] if measure == "mAP" else 1.0
        what = f"{bits} bits, {label(kind).removeprefix('APHash ')}"
        out.append(Bar(name, bits, what, measure, ours, other, ours / other, half, least))
    return out


def code_bars(table, names, seeds):
    """Learned codes over ITQ's by codes, and beside the figures of the documentation."""
    out = []
    for name, rows, spec, bits, least in RATIOS_BY_CODES:
        ours, other = (table.values(name, bits, one, "mAP", n=rows, seeds=seeds) for one in (spec, ITQ))
        if name in names and len(ours) and len(other):
            half = over_seeds(ours / other) if len(ours) == len(other) else None
            what = f"{bits} bits, {f'{rows:,} rows, ' if rows else ''}semantic over ITQ"
            out.append(Bar(name, bits, what, "mAP", ours.mean(), other.mean(), ours.mean() / other.mean(), half, least))
    for spec, figures in DOCUMENTED.items() if "cnn" in names else ():
        for measure, figure in figures.items():
            values = table.values("cnn", 64, spec, measure, seeds=seeds)
            if len(values):
                found, half = values.mean() / figure, over_seeds(values / figure)
                what = f"64 bits, {label(spec).removeprefix('APHash ')} over what is documented"
                out.append(Bar("cnn", 64, what, measure, values.mean(), figure, found, half, 0.97))
    return out


# -- for people -------------------------------------------------------------------------------------------------------


def rows_of(bars, form):
    """The rows of a table: texts. ``form`` is that of differences or of ratios."""
    for bar in bars:
        half = "" if bar.half is None else f"+-{bar.half:.3f}"
        goal = "" if bar.goal is None else f"{bar.goal:.3f} {'met' if bar.ours >= bar.goal else 'missed'}"
        yield (bar.dataset, bar.what, bar.measure, f"{bar.ours:.4f}", f"{bar.other:.4f}", form.format(bar.found), half,
               form.format(bar.least), "held" if bar.held else "missed", goal)  # fmt: skip


def text_table(columns, rows):
    """Lines of a table with aligned columns: names to the left, figures to the right. Empty columns are left out."""
    rows = [columns, *rows]
    kept = [i for i in range(len(columns)) if any(row[i] for row in rows[1:])]
    widths = {i: max(len(row[i]) for row in rows) for i in kept}
    words = [i for i in kept if i < 3]
    cells = [[row[i].ljust(widths[i]) if i in words else row[i].rjust(widths[i]) for i in kept] for row in rows]
    return "\n".join("  ".join(line).rstrip() for line in cells)


def show(table, names, seeds):
    """Print the bars; return the number of those that are missed, and of all."""
    seed_words = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    n_controls = [max(len(controls(table, name, bits, "weights", seeds)) for bits in FRONT_BITS) for name in names]
    counts = ", ".join(f"{name} {count}" for name, count in zip(names, n_controls) if count)
    parts = (
        (f"Mode scores beside ITQ, both asked by weights; means of {seed_words}.",
         "Found is the difference, and its interval is over the queries, paired. Goals are for scores itself.",
         ("scores", "ITQ"), scores_bars(table, names, seeds), "{:+.3f}"),
        (f"Learned kinds beside the controls' front at equal recall, both asked by weights; means of {seed_words}.",
         f"Found is the ratio, and its interval is over seeds. Controls that are compared: {counts or 'none'}.",
         ("ours", "front"), front_bars(table, names, seeds), "{:.3f}"),
        (f"Learned codes beside ITQ, and beside what is documented, asked by codes; means of {seed_words}.",
         "Found is the ratio, and its interval is over seeds.",
         ("ours", "other"), code_bars(table, names, seeds), "{:.3f}"),
    )  # fmt: skip
    everything = []
    for title, how, both, bars, form in parts:
        everything += bars
        columns = ("set", "", "measure", *both, "found", "95 %", "to hold", "", "goal")
        print(f"\n{title}\n{how}\n")
        print(text_table(columns, rows_of(bars, form)) if bars else "No lines.")
    missed = sum(not bar.held for bar in everything)
    print(f"\n{len(everything) - missed} of {len(everything)} bars are held.")
    return missed, len(everything)
