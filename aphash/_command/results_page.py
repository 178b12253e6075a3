"""The page of a search: each query with its nearest, as pictures with names and distances, or as names alone."""

import os
import re
import sys

from aphash._command import page, terminal, writing

MOST_QUERIES = 100  # that one page shows

_LOOKED_AT = 1000  # names, of which at least one must be a file
_STYLE = """
nav.queries a { font-size: .9rem; overflow-wrap: anywhere }
.asked { display: grid; grid-template-columns: 9rem minmax(0, 1fr); gap: 1.2rem; align-items: start; margin-top: .8rem }
.asked > img { width: 100% } .asked > ol { margin: 0 }
ol.found { list-style: none; padding: 0; display: grid; gap: .8rem;
  grid-template-columns: repeat(auto-fill, minmax(7rem, 1fr)) }
ol.found li { background: var(--card); border-radius: .4rem; padding: .4rem; font-size: .8rem; line-height: 1.35 }
ol.found img, .asked > img, .none { display: block; width: 100%; height: auto; aspect-ratio: 1; object-fit: contain;
  border-radius: .25rem }
ol.found img { margin-bottom: .3rem } img.tiny { image-rendering: pixelated }
.none { display: grid; place-items: center; border: 1px dashed var(--line); color: var(--soft); font-size: .8rem;
  margin-bottom: .3rem }
.name { display: block; overflow-wrap: anywhere } .distance { color: var(--soft); font-variant-numeric: tabular-nums }
ol.plain { padding-left: 2.4rem; margin: .6rem 0 } ol.plain li { max-width: none; padding: .1rem 0 }
ol.plain li::marker { color: var(--soft) } ol.plain .row { display: flex; gap: 1rem; justify-content: space-between }
ol.plain .distance { flex: none }
@media (max-width: 40rem) { .asked { grid-template-columns: minmax(0, 1fr) }
  .asked > img, .asked > .none { width: 9rem }
  ol.found { grid-template-columns: repeat(auto-fill, minmax(5.5rem, 1fr)); gap: .5rem } }
@media print { nav, .skip { display: none } section { break-inside: avoid } }
"""


class Page:
    """The first queries of a search, collected as they are found, and then written."""

    def __init__(self, path, folder, names):
        self._path, self._folder, self._names = path, folder, names
        self._found, self._about, self._thumbnails, self._missing = [], None, {}, 0
        if folder is not None:
            page.check_pictures()
            some = [os.path.join(folder, name) for name in names.all()[:_LOOKED_AT]]
            if some and not any(map(os.path.isfile, some)):
                raise ValueError(f"{folder}: none of the names is a file there, such as {some[0]}")

    @property
    def n_queries(self):
        return len(self._found)

    def is_full(self):
        return len(self._found) >= MOST_QUERIES

    def collecting(self, found):
        """Pass on what is found; the first queries are kept."""
        for start, part in found:
            self._about = part if self._about is None else self._about
            for ids, distances in zip(part.ids, part.distances):
                if self.is_full():
                    break
                real = ids != -1
                self._found.append((ids[real].tolist(), distances[real].tolist()))
            yield start, part

    def write(self, file, queries, index, n_queries):
        """Write the page; return its size in bytes.

        ``file`` and ``queries`` are the names of what was searched and asked, ``n_queries`` are all there were.
        """
        about = self._about
        title = f"Nearest in {os.path.basename(file)}"
        shown = "" if self.n_queries == n_queries else f"The first {self.n_queries:,} of "
        kind = "exact" if about.exact else "estimated from codes"
        words = (
            f"{shown}{terminal.counted(n_queries, 'query', 'queries')} of {queries}, each with its nearest of "
            f"{len(index):,} vectors, by "
            f"{index.info()['metric']} distance, {kind}. Expected recall: {about.recall:.3f}."
        )
        headings = [self._heading(number) for number in range(self.n_queries)]
        links = "\n".join(f'<a href="#q{i}">{page.escaped(each)}</a>' for i, each in enumerate(headings))
        sections = "\n".join(self._section(i, each) for i, each in enumerate(headings))
        body = (
            f'<a class="skip" href="#results">Skip to the results</a>\n<header><h1>{page.escaped(title)}</h1>\n'
            f'<p class="soft">{page.escaped(words)}</p></header>\n'
            f"<details><summary>All queries on this page ({self.n_queries:,})</summary>\n"
            f'<nav class="queries" aria-label="Queries">\n{links}\n</nav></details>\n'
            f'<main id="results">\n{sections}\n</main>'
        )
        text = page.document(title, body, _STYLE)
        with writing.opened(self._path) as out:
            out.write(text)
        if self._missing:
            names = terminal.counted(self._missing, "name")
            print(f"aphash: {self._folder}: {names} without a picture there", file=sys.stderr)
        return len(text.encode())

    def _heading(self, number):
        name = self._names.of_query(number)
        return f"Query {number}: {name}" if name else f"Query {number}"

    def _section(self, number, heading):
        ids, distances = self._found[number]
        pictures = self._folder is not None
        items = "\n".join(self._item(*each, pictures) for each in zip(ids, distances))
        look = "found" if pictures else "plain"
        found = f'<ol class="{look}" role="list">\n{items}\n</ol>' if ids else "<p>Nothing was found.</p>"
        if pictures and self._names.of_queries is not None:
            found = f'<div class="asked">{self._picture(self._names.of_query(number), "the query")}\n{found}</div>'
        heading = f'<h2 id="q{number}">{page.escaped(heading)}</h2>'
        return f'<section aria-labelledby="q{number}">\n{heading}\n{found}\n</section>'

    def _item(self, id, distance, picture):
        name = page.escaped(self._names.of(id) or f"id {id}")
        name = re.sub("([/_.])", r"\1<wbr>", name)  # where long names may break
        far = f'<span class="distance"><span class="unseen">distance </span>{terminal.distance_of(distance)}</span>'
        if not picture:
            return f'<li><span class="row"><span>{name}</span>{far}</span></li>'
        # The name beside a picture says what it is: a second one in its alt would be read twice.
        return f'<li>{self._picture(self._names.of(id), "")}<span class="name">{name}</span> {far}</li>'

    def _picture(self, name, words):
        if name not in self._thumbnails:
            try:
                self._thumbnails[name] = page.thumbnail(os.path.join(self._folder, name))
            except (OSError, ValueError):
                self._missing += 1
                self._thumbnails[name] = None
        small = self._thumbnails[name]
        if small is None:
            return '<span class="none">no picture</span>'
        uri, width, height = small
        tiny = ' class="tiny"' if max(width, height) <= 64 else ""
        return f'<img{tiny} alt="{words}" width="{width}" height="{height}" src="{uri}">'
