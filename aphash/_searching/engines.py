"""What answers a search: the scan, the tables of a lookup. Each is an engine.

An engine answers two questions about a snapshot, for a query object (:class:`aphash._searching._search.Queries`) and a
filter that has been prepared for the snapshot (a packed bitmap by position, or None):

``nearest(snapshot, queries, k, bitmap, n_threads)``
    The k nearest of each query: integer distances (n_queries, k) and ids int64 (n_queries, k), by (distance, id),
    padded.
``within(snapshot, queries, radius, bitmap, n_threads)``
    All within a radius, one or one of each query: offsets int64 (n_queries + 1,), integer distances, ids int64, each
    query's by (distance, id).

Distances are int32 of codes and uint32 of weights.

All engines give the same results. One that does not serve a kind of query hands it to the scan, which serves all.
"""

from aphash._searching import _search


class Scan:
    """Looks at every code."""

    @staticmethod
    def nearest(snapshot, queries, k, bitmap=None, n_threads=1):
        return _search.search(snapshot, queries, k, bitmap, n_threads)

    @staticmethod
    def within(snapshot, queries, radius, bitmap=None, n_threads=1):
        return _search.radius_search(snapshot, queries, radius, bitmap, n_threads)


SCAN = Scan()


def engine_of(snapshot):
    """Return the engine for searches of a snapshot."""
    return snapshot.lookup or SCAN
