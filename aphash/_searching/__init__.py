"""From codes to neighbours: what ``HammingIndex`` holds, and how it is searched.

==================  ==============================================================================================
``_store`` (C)      snapshots of a database, ids, changes
``engines``         what answers a search: the scan, or the tables of the snapshot's ``lookup``
``filters``         which codes take part
``_search`` (C)     queries, the scan, radius, tables, pairs: threaded wrappers of the kernels
``pairs``           pairs, groups and the graph of neighbours of the whole database
``index_file``      the file of an index
==================  ==============================================================================================
"""
