"""The engines that answer searches: the scan, and the tables of a lookup (``lookup``).

An engine answers two questions about a snapshot, for a query object (:class:`aphash._searching._search.Queries`) and a
filter that has been prepared for the snapshot (a packed bitmap by position, or None):

``nearest(snapshot, queries, k, bitmap, n_threads)``
    Returns the k nearest codes of each query: integer distances (n_queries, k) and ids int64 (n_queries, k), ordered by
    (distance, id) and padded.
``within(snapshot, queries, radius, bitmap, n_threads)``
    Returns all codes within a radius, which is one number or one for each query: offsets int64 (n_queries + 1,),
    integer distances and ids int64. Those of a query are ordered by (distance, id).

Distances are int32 for codes and uint32 for weights.

All engines give the same results. An engine that does not serve a kind of query hands it to the scan, which serves all
kinds.
"""

from aphash._searching import _search


class Scan:
    """The engine that looks at every code."""

    @staticmethod
    def nearest(snapshot, queries, k, bitmap=None, n_threads=1):
        return _search.search(snapshot, queries, k, bitmap, n_threads)

    @staticmethod
    def within(snapshot, queries, radius, bitmap=None, n_threads=1):
        return _search.radius_search(snapshot, queries, radius, bitmap, n_threads)


SCAN = Scan()


def engine_of(snapshot):
    """Return the engine that answers searches of a snapshot."""
    return snapshot.lookup or SCAN
