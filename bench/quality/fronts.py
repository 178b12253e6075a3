"""The controls' front: the best that methods without our descent reach at a given recall, and a setting beside it.

Methods are compared with controls that are asked in the same way: codes with codes, weights with weights.
"""

import numpy as np
from methods import is_control, parse_spec, queries_of

LEAST_CONTROLS = 4  # with fewer there is no front to speak of
RECALL = "recall10@100"
MEASURES = ("mAP", "P@100")


def has_front(specs):
    return sum(parse_spec(spec)[0] == "control" for spec in specs) >= LEAST_CONTROLS


def front(points):
    """The points (recall, value) that no other point beats in both, by ascending recall, (n, 2)."""
    kept, best = [], -np.inf
    for point in sorted(points, key=lambda p: (-p[0], -p[1])):
        if point[1] > best:
            kept.append(point)
            best = point[1]
    return np.array(kept[::-1]).reshape(-1, 2)


def at_recall(points, recall):
    """The value of a front at a recall, between its points; beyond its ends, that of the end. None without points.

    Above its largest recall that favours the front, which falls there.
    """
    line = front(points)
    return float(np.interp(recall, line[:, 0], line[:, 1])) if len(line) else None


def controls(table, dataset, bits, queries, seeds=None):
    """The controls of a set and length whose queries are "codes" or "weights"; none where they are too few."""
    specs = [s for s in table.methods(dataset, bits) if is_control(s) and queries_of(s) == queries]
    specs = [s for s in specs if table.values(dataset, bits, s, RECALL, seeds=seeds).size]
    return specs if has_front(specs) else []


def beside(table, dataset, bits, spec, measure, seeds=None):
    """(recall, value, the front's value at that recall) of a method, means over seeds; None where a part is missing.

    Each measure has a front of its own: the best control for mAP need not be the best for P@100.
    """

    def point(one):
        return tuple(table.mean(dataset, bits, one, name, seeds=seeds) for name in (RECALL, measure))

    ours = point(spec)
    points = [point(one) for one in controls(table, dataset, bits, queries_of(spec), seeds)]
    other = None if None in ours else at_recall([p for p in points if None not in p], ours[0])
    return None if other is None else (*ours, other)
