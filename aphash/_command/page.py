"""One self-contained page for the browser: its frame and style sheet, tables, and pictures as data URIs.

Light and dark, wide and phone, by the reader's settings; nothing is loaded and nothing runs. The report of ``bench/``
is made of the same parts. Needs the standard library alone, and Pillow for pictures.
"""

import base64
import html
import io
import re

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")

THUMBNAIL = 192  # pixels of the longer side at most

_STYLE = """
:root { color-scheme: light dark; --bg: #fff; --fg: #1c2024; --soft: #57606a; --line: #dde1e6; --card: #f6f7f9;
  --good: #11795a; --bad: #b3261e; --ours: #e8f1fc; --link: #0b57d0; }
@media (prefers-color-scheme: dark) { :root { --bg: #14171a; --fg: #e4e7ea; --soft: #9aa4ae; --line: #2e343a;
  --card: #1c2024; --good: #5fd0a8; --bad: #ff8a80; --ours: #1b2a3d; --link: #8ab4f8; } }
* { box-sizing: border-box }
html { scroll-behavior: smooth; scroll-padding-top: .5rem }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto } }
body { margin: 0 auto; max-width: 68rem; padding: 1rem clamp(.8rem, 3vw, 2rem) 4rem; background: var(--bg);
  color: var(--fg); font: 16px/1.5 system-ui, sans-serif }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 1rem 0 .3rem; overflow-wrap: anywhere }
h2 { font-size: 1.3rem; margin: 2.6rem 0 .4rem; border-bottom: 1px solid var(--line); padding-bottom: .2rem;
  overflow-wrap: anywhere }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .4rem }
p, li { max-width: 46rem } .soft { color: var(--soft) } small { color: var(--soft) }
a { color: inherit } :focus-visible { outline: 3px solid var(--link); outline-offset: 2px; border-radius: 2px }
nav { display: flex; flex-wrap: wrap; gap: .3rem .9rem; margin: .8rem 0 }
.skip { position: absolute; left: -99rem }
.skip:focus { left: .5rem; top: .5rem; background: var(--bg); padding: .3rem }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap }
.scroll { overflow-x: auto; margin: .6rem 0 1.2rem }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums }
th, td { padding: .22rem .7rem .22rem 0; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line) }
th { color: var(--soft); font-weight: 600; vertical-align: bottom }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--bg);
  padding-right: 1.2rem }
tr.ours td { background: var(--ours) } td.best { font-weight: 700 }
.good { color: var(--good) } .bad { color: var(--bad) }
code { background: var(--card); padding: .05rem .3rem; border-radius: .25rem; font-size: .88em;
  overflow-wrap: anywhere }
details summary { cursor: pointer; color: var(--soft) }
@media (max-width: 40rem) { th:first-child, td:first-child { white-space: normal; min-width: 9rem; max-width: 11rem } }
"""


def escaped(text):
    """Return text as it stands in a page; what no page may hold becomes a question mark."""
    return html.escape(_CONTROLS.sub("?", str(text)))


def document(title, body, style=""):
    """Return a whole page of a body in HTML; ``style`` is added to the style sheet."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escaped(title)}</title>\n<style>{_STYLE}{style}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def table(columns, rows, name):
    """Return a table that scrolls by itself, also by keyboard.

    Parameters
    ----------
    columns : sequence of str
    rows : iterable of sequences
        Texts and numbers; or (content, class).
    name : str
        What screen readers call it.
    """
    head = "".join(f'<th scope="col">{escaped(each)}</th>' for each in columns)
    body = "\n".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escaped(name)}"><table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def _cell(content):
    if isinstance(content, tuple):
        return f'<td class="{escaped(content[1])}">{escaped(content[0])}</td>'
    return f"<td>{escaped(content)}</td>"


# ---- pictures -------------------------------------------------------------------------------------------------------


def check_pictures():
    """Raise ValueError where Pillow is not installed."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise ValueError("pictures on a page need Pillow, which is not installed: pip install 'aphash[plot]'") from None


def thumbnail(path):
    """Return (data URI, width, height) of a small copy of a picture; OSError or ValueError where it is none."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            image.draft("RGB", (2 * THUMBNAIL, 2 * THUMBNAIL))  # JPEGs are decoded at that size, at the least
            small = ImageOps.exif_transpose(image)
            has_alpha = "A" in small.getbands() or "transparency" in small.info
            small = small.convert("RGBA" if has_alpha else "RGB")
            small.thumbnail((THUMBNAIL, THUMBNAIL))
    except (Image.DecompressionBombError, SyntaxError, ArithmeticError) as error:
        raise ValueError(f"{path}: {error}") from None
    out = io.BytesIO()
    if has_alpha or max(small.size) <= 64:
        small.save(out, "PNG", optimize=True)
        return data_uri(out.getvalue(), "image/png"), *small.size
    small.save(out, "JPEG", quality=82)
    return data_uri(out.getvalue(), "image/jpeg"), *small.size


def picture_of(array):
    """Return the data URI of a picture in an array of uint8."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(array).save(out, "PNG", optimize=True)
    return data_uri(out.getvalue(), "image/png")


def data_uri(content, kind):
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
