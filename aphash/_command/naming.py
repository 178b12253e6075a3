"""What ids and queries are called: the lines of texts."""

from dataclasses import dataclass

import numpy as np

from aphash._command import reading


def add_names(parser):
    parser.add_argument(
        "--names", metavar="FILE", help="names: line i is that of id i; or lines of an id, a tab and a name"
    )


@dataclass(frozen=True)
class Names:
    """Names by ids and by the queries' numbers; None where there are none."""

    of_ids: dict | list | None
    of_queries: list | None = None

    @classmethod
    def read(cls, source, ids, queries_source=None):
        """Return the names in files; ValueError where an id has none."""
        of_ids = None
        if source is not None:
            of_ids = reading.read_names(source)
            if of_ids and all(_has_id(line) for line in of_ids):
                of_ids = {int(id): name for id, _, name in (line.partition("\t") for line in of_ids)}
                missing = ids[~np.isin(ids, np.fromiter(of_ids, np.int64, len(of_ids)))]
            else:
                missing = ids[(ids < 0) | (ids >= len(of_ids))]
            if len(missing):
                others = f" and {len(missing) - 1:,} others" if len(missing) > 1 else ""
                raise ValueError(
                    f"{reading.name_of(source)}: no name for id {missing[0]}{others}: it has {len(of_ids):,} lines. "
                    "Line i, from 0, is the name of id i; or all lines have an id, a tab and a name"
                )
        return cls(of_ids, None if queries_source is None else reading.read_names(queries_source))

    def all(self):
        """Return all names there are, of ids and of queries."""
        of_ids = self.of_ids.values() if isinstance(self.of_ids, dict) else self.of_ids or ()
        return [*of_ids, *(self.of_queries or ())]

    def of(self, id):
        """Return the name of an id, or an empty text."""
        return "" if self.of_ids is None else self.of_ids[id]

    def of_query(self, number):
        return "" if self.of_queries is None else self.of_queries[number]


def _has_id(line):
    id, tab, _ = line.partition("\t")
    return bool(tab) and id.removeprefix("-").isdecimal()
