"""``aphash search``: the nearest vectors of queries, as text, as a table for programs, or as a page.

The index is mapped; queries and results are held for 256 queries at a time, with ``--npy`` all results.
"""

import csv
import itertools
import json
import os
import sys

import numpy as np

from aphash._command import arguments, naming, reading, terminal, writing
from aphash._common.progress import ProgressBar

_BATCH, _MOST_RESULTS = 256, 1 << 20  # queries that are searched for at a time, and results of them

DTYPE = np.dtype([("id", "<i8"), ("distance", "<f4")])  # of --npy


def parser():
    made = arguments.parser_of("search", "Find the nearest vectors of queries in a file that build has made.")
    made.add_argument("file", metavar="FILE", help="what build has made")
    made.add_argument("queries", metavar="QUERIES", help=f"one a row: {reading.FORMATS}, FILE:NAME of an array, or -")
    made.add_argument("-k", type=arguments.count, default=10, metavar="N", help="results a query (default %(default)s)")
    made.add_argument(
        "--recall", type=arguments.share, metavar="R", help="share of the true ones to find (default .95)"
    )
    form = made.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="a line a result: query, rank, id, distance[, name]")
    form.add_argument("--json", action="store_true", help="a line a query: {query, ids, distances[, names]}")
    form.add_argument("--npy", action="store_true", help="an array (queries, results) with fields id and distance")
    made.add_argument("--out", default=writing.STDOUT, metavar="FILE", help="instead of standard output")
    naming.add_names(made)
    made.add_argument("--query-names", metavar="FILE", help="names of the queries, one a line")
    made.add_argument("--html", metavar="OUT.html", help="write a page of results for the browser")
    made.add_argument("--images", metavar="FOLDER", help="where the names are images, for the page")
    arguments.add_jobs(made)
    return made


def run(options):
    reading.check_readable(options.file, options.queries, options.names, options.query_names)
    inputs = options.file, reading.split_source(options.queries)[0], options.names, options.query_names
    for path in (options.out, options.html):
        if path is not None:
            writing.check_writable(path, inputs)
    if options.html == writing.STDOUT:
        raise ValueError("--html -: a page is written to a file")
    if options.html == options.out:
        raise ValueError(f"{options.out}: --out and --html are two files")
    if options.npy and options.out == writing.STDOUT and terminal.is_terminal():
        raise ValueError("--npy writes bytes, which a terminal does not show: add --out FILE, or a pipe")
    index = reading.read_index(options.file)
    if options.recall is not None and index.info()["keep"] is None:
        raise ValueError(f"{options.file}: --recall needs vectors to rank by, and it has none: build it with --keep")
    names = naming.Names.read(options.names, index.ids, options.query_names)
    page = _page(options, names)
    Q = reading.read_vectors(options.queries, one=True)
    name = reading.name_of(options.queries)
    if Q.shape[1] != index.n_features_in_:
        raise ValueError(
            f"{name}: expected {index.n_features_in_} numbers a row, as {options.file} has, got {Q.shape[1]}"
        )
    if names.of_queries is not None and len(names.of_queries) != len(Q):
        raise ValueError(
            f"{options.query_names}: expected a name for each of {len(Q):,} queries, got {len(names.of_queries):,}"
        )
    found = _found(options, index, Q)
    found = itertools.chain([next(found)], found)  # a recall that cannot be had is refused before anything is written
    if page is not None:
        found = page.collecting(found)
    writes = page is None or options.csv or options.json or options.npy or options.out != writing.STDOUT
    if writes:
        _write(options, names, found, len(Q), index.info()["metric"])
    else:
        for _ in found:
            if page.is_full():
                break
    if page is not None:
        size = page.write(options.file, reading.name_of(options.queries), index, len(Q))
        queries = terminal.counted(len(Q), "query", "queries")
        about = f"{options.html}: {page.n_queries:,} of {queries}, {terminal.bytes_of(size)}"
        print(about, file=sys.stderr if writes and options.out == writing.STDOUT else sys.stdout)


def _page(options, names):
    if options.html is None:
        if options.images is not None:
            raise ValueError("--images are for the page: add --html OUT.html")
        return None
    if options.images is not None:
        if names.of_ids is None:
            raise ValueError("--images needs --names: the files in the folder, by ids")
        if not os.path.isdir(options.images):
            raise ValueError(f"{options.images}: no such folder")
    from aphash._command import results_page

    return results_page.Page(options.html, options.images, names)


def _found(options, index, Q):
    """Yield (number of the first query, what was found) of batches."""
    k = min(options.k, max(1, len(index)))
    step = max(1, min(_BATCH, _MOST_RESULTS // k))
    shown = 0 if terminal.is_terminal() and options.out == writing.STDOUT else "auto"  # or the results show it
    with ProgressBar(shown, len(Q), "queries", "search") as bar:
        for start in range(0, len(Q), step):
            batch = np.ascontiguousarray(Q[start : start + step])
            try:
                found = index.search(batch, k, recall=options.recall, n_jobs=options.jobs)
            except ValueError as error:
                source = reading.name_of(options.queries) if "Input X" in str(error) else options.file
                raise ValueError(f"{source}: {error}") from None
            bar.update(len(batch))
            yield start, found


def _write(options, names, found, n_queries, metric):
    if options.npy:
        out = None
        for start, part in found:
            if out is None:
                out = np.empty((n_queries, part.ids.shape[1]), DTYPE)
            out["id"][start : start + len(part.ids)] = part.ids
            out["distance"][start : start + len(part.ids)] = part.distances
        with writing.opened(options.out, "wb") as file:
            np.save(file, out)
        return
    form = _write_csv if options.csv else _write_json if options.json else _write_text
    with writing.opened(options.out) as file:
        form(file, found, names, metric)


def _of_query(part, row):
    """Return (ids, distances) of one query, as lists, without the places that have no result."""
    real = part.ids[row] != -1
    return part.ids[row][real].tolist(), part.distances[row][real].tolist()


def _write_csv(file, found, names, _metric):
    table = csv.writer(file, lineterminator="\n")
    table.writerow(["query", "rank", "id", "distance", *(["name"] if names.of_ids is not None else [])])
    for start, part in found:
        for row in range(len(part.ids)):
            for rank, (id, distance) in enumerate(zip(*_of_query(part, row)), 1):
                own = [names.of(id)] if names.of_ids is not None else []
                table.writerow([start + row, rank, id, f"{distance:.6g}", *own])


def _write_json(file, found, names, _metric):
    for start, part in found:
        for row in range(len(part.ids)):
            ids, distances = _of_query(part, row)
            line = {"query": start + row, "ids": ids, "distances": [float(f"{each:.6g}") for each in distances]}
            if names.of_queries is not None:
                line["query_name"] = names.of_query(start + row)
            if names.of_ids is not None:
                line["names"] = [names.of(id) for id in ids]
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _write_text(file, found, names, metric):
    columns, wide = terminal.width(), 1
    for start, part in found:
        wide = max(wide, len(str(part.ids.max(initial=0))))
        if start == 0:
            kind = f"exact by {part.candidates:,} candidates" if part.exact else "estimated from codes"
            file.write(f"{metric}, {kind}; expected recall {part.recall:.3f}\n")
        for row in range(len(part.ids)):
            about = terminal.fitted(f"query {start + row}  {names.of_query(start + row)}".rstrip(), columns)
            file.write(f"\n{terminal.bold(about)}\n")
            ids, distances = _of_query(part, row)
            for rank, (id, distance) in enumerate(zip(ids, distances), 1):
                line = f"{rank:5}  {id:>{wide}}  {terminal.distance_of(distance):<9}  {names.of(id)}".rstrip()
                file.write(terminal.fitted(line, columns) + "\n")
