"""The demo's picture: hard queries and the ten nearest images by each method, on one landscape page."""

import os

import numpy as np

from aphash._command import writing

N_QUERIES = 3

_RIGHT, _WRONG = "0.75", "#d55e00"  # Okabe & Ito's vermilion; a cross tells it apart without colour


def is_possible():
    """Whether matplotlib is installed."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        return False
    return True


def check(path):
    """Raise ValueError where a picture's name is not one."""
    from matplotlib.figure import Figure

    kinds = Figure().canvas.get_supported_filetypes()
    suffix = os.path.splitext(path)[1].lstrip(".").lower()
    if suffix not in kinds:
        raise ValueError(f"{path}: expected a picture's name, one of .{', .'.join(sorted(kinds))}")


def hardest(rows, labels, database, queries):
    """Return the queries, of different labels, on which the methods differ most; among equals, the hardest."""
    right = np.array([(labels[database][row.found] == labels[queries][:, np.newaxis]).sum(axis=1) for row in rows])
    chosen = []
    for query in np.lexsort((right.sum(axis=0), -np.ptp(right, axis=0))):
        if labels[queries[query]] not in [labels[queries[each]] for each in chosen]:
            chosen.append(query)
        if len(chosen) == N_QUERIES:
            break
    return chosen


def draw(path, images, labels, database, queries, rows):
    """Write the picture.

    Parameters
    ----------
    path : str
    images : ndarray, shape (n, height, width)
    labels : ndarray, shape (n,)
    database, queries : ndarray of int
        Rows of images.
    rows : list of comparison.Row
        The methods to show.
    """
    from matplotlib.figure import Figure

    chosen = hardest(rows, labels, database, queries)
    n_found = rows[0].found.shape[1]
    lines = len(chosen) * len(rows)
    figure = Figure(figsize=(13.5, 8.4))
    sizes = "; ".join(f"{row.name}, {row.nbytes} bytes" for row in rows)
    figure.text(0.02, 0.965, f"Handwritten digits: the {n_found} nearest by {sizes}", fontsize=15, weight="bold")
    figure.text(
        0.02, 0.93, fontsize=10.5, color="0.3",
        s=f"The {len(chosen)} queries, each of another digit, on which the methods differ most. A cross and a thick "
        "frame: not the query's digit.",
    )  # fmt: skip
    top, bottom, left, right = 0.905, 0.015, 0.265, 0.915
    height = (top - bottom) / (lines + 0.45 * (len(chosen) - 1))
    width = (right - left) / n_found
    y = top
    for number, query in enumerate(chosen):
        y -= 0.45 * height if number else 0
        _query(figure, images[queries[query]], labels[queries[query]], y, height * len(rows))
        for row in rows:
            y -= height
            found = database[row.found[query]]
            good = labels[found] == labels[queries[query]]
            figure.text(left - 0.008, y + height / 2, row.name, ha="right", va="center", fontsize=11.5)
            figure.text(
                right + 0.008, y + height / 2, f"{good.sum()} of {n_found}", va="center", fontsize=11.5, weight="bold"
            )
            for place, (image, ok) in enumerate(zip(images[found], good)):
                box = left + (place + 0.06) * width, y + 0.06 * height, 0.88 * width, 0.88 * height
                _image(figure.add_axes(box), image, bool(ok))
    with writing.opened(path, "wb") as file:
        figure.savefig(file, format=os.path.splitext(path)[1].lstrip(".").lower(), dpi=100)


def _query(figure, image, label, top, height):
    axes = figure.add_axes((0.02, top - height * 0.9, 0.115, height * 0.88))
    axes.imshow(image, cmap="gray_r", interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel(f"query: {label}", fontsize=11.5, loc="left")


def _image(axes, image, ok):
    axes.imshow(image, cmap="gray_r", interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=_RIGHT if ok else _WRONG, linewidth=0.8 if ok else 3)
    if not ok:
        axes.plot([0, 1], [0, 1], [0, 1], [1, 0], color=_WRONG, linewidth=1.6, transform=axes.transAxes)
