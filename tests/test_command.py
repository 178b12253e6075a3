"""The command line: what each command writes, and one line on stderr for whatever is wrong, before any work."""

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from html.parser import HTMLParser

import numpy as np
import pytest

import aphash
from aphash import VectorIndex
from aphash.__main__ import COMMANDS, main

rng = np.random.default_rng(0)
X = rng.standard_normal((400, 16)).astype(np.float32)
X[[390, 395]] = X[[10, 11]] + 0.001
Q = X[:5] + 0.01
ONE = "--jobs", "1"  # threads that wait for each other on a busy machine take most of the time

pytestmark = pytest.mark.filterwarnings("ignore:X has .* independent directions")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of inputs, and two indexes of them: with vectors, and of codes alone under ids of their own."""
    folder = tmp_path_factory.mktemp("command")
    np.save(folder / "x.npy", X)
    np.save(folder / "q.npy", Q)
    (folder / "ids").write_text("".join(f"{1000 + i}\n" for i in range(400)))
    (folder / "names").write_text("".join(f"{'abc'[i % 3]}/{i} <x>.png\n" for i in range(400)))
    (folder / "qnames").write_text("".join(f"a/{3 * i} <x>.png\n" for i in range(5)))
    (folder / "pairs").write_text("".join(f"{1000 + i}\tname {i}\n" for i in range(400)))
    for name, more in (
        ("index", ["--bits", "32"]),
        ("codes", ["--bits", "16", "--keep", "none"]),
        ("coarse", ["--bits", "8", "--keep", "int8"]),
    ):
        ids = ["--ids", str(folder / "ids")] if name == "codes" else []
        main(["build", str(folder / "x.npy"), "--out", str(folder / name), "--mode", "neighbors", *more, *ids, *ONE])
    return folder


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    for each in made.iterdir():
        os.link(each, tmp_path / each.name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["aphash"])
    return tmp_path


@pytest.fixture
def refused(folder, capsys):
    def refused(*argv, status=1):
        """Return what is said on stderr when it ends with an error: one line. Nothing is printed or left."""
        before = {each.name: each.stat().st_mtime_ns for each in folder.iterdir()}
        capsys.readouterr()
        with pytest.raises(SystemExit) as raised:
            main(list(argv))
        said = capsys.readouterr()
        assert said.out == "" and said.err.startswith("aphash: ") and said.err.count("\n") == 1
        assert raised.value.code == status
        assert {each.name: each.stat().st_mtime_ns for each in folder.iterdir()} == before
        return said.err[8:-1]

    return refused


def lines(capsys, *argv):
    capsys.readouterr()
    main(list(argv))
    return capsys.readouterr().out.splitlines()


# ---- the door -------------------------------------------------------------------------------------------------------


def test_help_and_version_name_what_there_is(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys, "argv", ["aphash"])
    out = "\n".join(lines(capsys, "--help"))
    assert all(f"  {name} " in out for name in COMMANDS) and max(map(len, out.splitlines())) <= 60
    assert lines(capsys, "--version") == [f"aphash {aphash.__version__}"]
    for name in COMMANDS:
        with pytest.raises(SystemExit) as raised:
            main([name, "--help"])
        out = capsys.readouterr().out
        assert raised.value.code == 0 and out.startswith(f"usage: aphash {name} ")
        assert max(map(len, out.splitlines())) <= 60


def test_arguments_that_are_wrong_are_one_line_and_end_with_2(refused):
    assert "'serch' is no command: one of demo, build, search" in refused("serch", status=2)
    for argv, words in (
        (["search", "index"], "required: QUERIES (see aphash search --help)"),
        (["search", "index", "q.npy", "-k", "0"], "expected an integer of at least 1, got '0'"),
        (["search", "index", "q.npy", "--recall", "1.5"], "above 0 and at most 1, got '1.5'"),
        (["search", "index", "q.npy", "--csv", "--json"], "not allowed with"),
        (["build", "x.npy"], "required: --out"),
        (["build", "x.npy", "--out", "y", "--seed", "-1"], "from 0 to 2^32 - 1, got '-1'"),
        (["dedup", "x.npy", "--distance", "nan"], "at least 0, got 'nan'"),
    ):
        assert words in refused(*argv, status=2)


def test_the_console_script_and_the_module_are_the_same(folder):
    script = shutil.which("aphash", path=sysconfig.get_path("scripts"))
    for command in ([sys.executable, "-m", "aphash"], [script] if script else []):
        if command:
            done = subprocess.run([*command, "info", "nothing"], capture_output=True, text=True, cwd=folder)
            assert (done.returncode, done.stdout, done.stderr) == (
                1,
                "",
                "aphash: nothing: No such file or directory\n",
            )


def test_a_reader_that_has_enough_ends_it_without_a_word(folder):
    command = f'"{sys.executable}" -m aphash search index x.npy -k 300; echo status $? >&2'
    done = subprocess.run(["bash", "-c", f"({command}) | head -1"], capture_output=True, text=True, cwd=folder)
    assert done.stderr == "status 141\n" and done.stdout.startswith("cosine, exact")


def test_ctrl_c_is_one_line_and_130_and_leaves_nothing(folder):
    np.save("large.npy", rng.standard_normal((20_000, 64)).astype(np.float32))
    command = [sys.executable, "-m", "aphash", "build", "large.npy", "--out", "y"]
    ran = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder)
    maps, deadline = f"/proc/{ran.pid}/maps", time.monotonic() + 60
    while "large.npy" not in open_text(maps).read() and time.monotonic() < deadline:  # until it is at work
        time.sleep(0.05)
    ran.send_signal(signal.SIGINT)
    out, err = ran.communicate(timeout=60)
    # Where the signal comes while an import runs the text of an exec, Python ends itself by it: 130 in shells, too.
    assert ran.returncode in (130, -signal.SIGINT) and (out, err) == ("", "aphash: interrupted\n")
    assert not (folder / "y").exists() and not list(folder.glob(".aphash*"))


def test_a_full_disk_is_one_line(folder):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    command = f'"{sys.executable}" -m aphash search index q.npy > /dev/full'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 1 and re.fullmatch(r"aphash: .*No space left on device\n", done.stderr)


def test_the_library_imports_nothing_of_it():
    program = "import sys, aphash; [getattr(aphash, name) for name in aphash.__all__]; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "aphash._vectors" in loaded and "aphash._command" not in loaded


# ---- build and info -------------------------------------------------------------------------------------------------


def test_build_makes_the_index_that_the_library_makes(folder, capsys):
    out = lines(capsys, "build", "x.npy", "--out", "y", "--mode", "neighbors", "--bits", "32", "--seed", "3", *ONE)
    assert re.match(r"y: built in [\d.]+ s$", out[0]) and max(map(len, out)) <= 60
    own = VectorIndex(32, mode="neighbors", keep="float16", random_state=3, n_jobs=1).fit(X)
    assert np.array_equal(VectorIndex.load("y").codes_.codes, own.codes_.codes)
    codes = VectorIndex.load("codes")
    assert codes.info()["keep"] is None and np.array_equal(codes.ids, 1000 + np.arange(400))


def test_build_refuses_before_any_work(refused):
    assert refused("build", "x.npy", "--out", "none/y") == "none/y: No such file or directory"
    assert refused("build", "x.npy", "--out", ".") == ".: Is a directory"
    assert refused("build", "x.npy", "--out", "-") == "--out -: an index is written to a file"
    assert refused("build", "x.npy", "--out", "./x.npy") == "./x.npy: it would be written over, and is read"
    assert refused("build", "x.npy", "--out", "ids", "--ids", "ids") == "ids: it would be written over, and is read"
    assert refused("build", "none.npy", "--out", "y") == "none.npy: No such file or directory"
    assert refused("build", "x.npy", "--out", "y", "--ids", "none") == "none: No such file or directory"
    assert "names: line 1 is no integer" in refused("build", "x.npy", "--out", "y", "--ids", "names")
    assert "for each of 5 vectors, got 400" in refused("build", "q.npy", "--out", "y", "--ids", "ids")
    assert "n_bits must be in" in refused("build", "x.npy", "--out", "y", "--bits", "70000")


def test_info_tells_what_can_be_expected_and_whether_a_file_is_whole(folder, capsys, refused):
    out = lines(capsys, "info", "index")
    assert out[0].startswith("index: VectorIndex, version ") and out[-1] == "whole: all checksums are right"
    text = "\n".join(out)
    for words in (
        "400 of 16 numbers, cosine",
        "32 bits, learned by mode neighbors",
        "4 bytes of codes + 32 of vectors, float16",
        "distances   exact",
        "1, 10, 100 results takes",
    ):
        assert words in text
    assert "no vectors" in "\n".join(lines(capsys, "info", "codes"))
    content = bytearray((folder / "index").read_bytes())
    content[-1] ^= 1
    (folder / "broken").write_bytes(content)
    capsys.readouterr()
    with pytest.raises(SystemExit) as raised:
        main(["info", "broken"])
    said = capsys.readouterr()
    assert raised.value.code == 1 and re.match(r"aphash: broken: not whole: .*\n$", said.err)
    assert "not an aphash file" in refused("info", "x.npy")


def test_info_of_other_files(folder, capsys):
    index = aphash.HammingIndex(64)
    index.add(np.arange(5, dtype=np.uint64)[:, None])
    index.save("hamming")
    out = lines(capsys, "info", "hamming")
    assert out[0].startswith("hamming: HammingIndex") and out[-1].startswith("whole")


# ---- search ---------------------------------------------------------------------------------------------------------


def test_search_in_every_form_gives_what_the_library_finds(folder, capsysbinary):
    found = VectorIndex.load("index").search(Q, 3)

    def out(*more):
        capsysbinary.readouterr()
        main(["search", "index", "q.npy", "-k", "3", *more])
        return capsysbinary.readouterr().out

    table = list(csv.reader(io.StringIO(out("--csv").decode())))
    assert table[0] == ["query", "rank", "id", "distance"] and len(table) == 16
    assert [int(row[2]) for row in table[1:]] == found.ids.ravel().tolist()
    np.testing.assert_allclose([float(row[3]) for row in table[1:]], found.distances.ravel(), rtol=1e-5)
    answers = [json.loads(line) for line in out("--json").splitlines()]
    assert [each["ids"] for each in answers] == found.ids.tolist() and [each["query"] for each in answers] == [
        *range(5)
    ]
    for array in (np.load(io.BytesIO(out("--npy"))), (out("--npy", "--out", "y.npy"), np.load("y.npy"))[1]):
        assert np.array_equal(array["id"], found.ids) and np.array_equal(array["distance"], found.distances)
    text = out().decode()
    assert re.match(r"cosine, exact by \d+ candidates; expected recall \d\.\d+\n\nquery 0\n    1    0  ", text)
    assert max(map(len, text.splitlines())) <= 60
    main(["search", "index", "q.npy", "-k", "3", "--csv", "--out", "y.csv"])
    assert list(csv.reader(open_text("y.csv"))) == table


def open_text(name):
    with open(name, encoding="utf-8") as file:
        return io.StringIO(file.read())


def test_queries_from_standard_input(folder, capsys, monkeypatch):
    with open("q.npy", "rb") as file, io.TextIOWrapper(file) as text:
        monkeypatch.setattr(sys, "stdin", text)
        piped = lines(capsys, "search", "index", "-", "-k", "2", "--csv")
    assert piped == lines(capsys, "search", "index", "q.npy", "-k", "2", "--csv")


def test_search_with_names_and_past_the_end(folder, capsys):
    table = [*csv.DictReader(lines(capsys, "search", "codes", "q.npy", "-k", "500", "--csv", "--names", "pairs"))]
    assert len(table) == 5 * 400 and all(row["name"] == f"name {int(row['id']) - 1000}" for row in table)
    np.save("one.npy", X[7])
    (answer,) = map(json.loads, lines(capsys, "search", "index", "one.npy", "--json", "--names", "names", "-k", "1"))
    assert answer["ids"] == [7] and answer["names"] == ["b/7 <x>.png"]
    text = lines(capsys, "search", "codes", "q.npy", "-k", "1", "--query-names", "qnames", "--names", "pairs")
    assert text[0].startswith("cosine, estimated from codes") and text[2] == "query 0  a/0 <x>.png"
    assert re.match(r"    1  1000  \S+ +name 0", text[3])


def test_search_refuses_before_any_work(refused):
    assert refused("search", "none", "q.npy") == "none: No such file or directory"
    assert refused("search", "index", "none") == "none: No such file or directory"
    assert refused("search", "-", "-") == "standard input, '-', can be one file only"
    assert refused("search", "x.npy", "q.npy").startswith("x.npy: not an aphash file")
    assert refused("search", "index", "q.npy", "--out", "index") == "index: it would be written over, and is read"
    said = refused("search", "coarse", "q.npy", "--recall", "1", "--csv")
    assert re.match("coarse: recall=1 of 10 results was not reached: the best that was measured is", said)
    assert refused("search", "index", "q.npy", "--html", "y", "--out", "y") == "y: --out and --html are two files"
    assert "--recall needs vectors" in refused("search", "codes", "q.npy", "--recall", "0.9")
    assert refused("search", "index", "ids") == "ids: expected 16 numbers a row, as index has, got 1"
    assert "no name for id 1000 and 399 others" in refused("search", "codes", "q.npy", "--names", "names")
    assert "names: expected a name for each of 5 queries" in refused(
        "search", "index", "q.npy", "--query-names", "names"
    )
    assert refused("search", "index", "q.npy", "--html", "-") == "--html -: a page is written to a file"
    assert "add --html" in refused("search", "index", "q.npy", "--images", ".")
    assert "needs --names" in refused("search", "index", "q.npy", "--images", ".", "--html", "y.html")
    page = "--html", "y.html", "--names", "names"
    assert refused("search", "index", "q.npy", *page, "--images", "none") == "none: no such folder"
    assert ".: none of the names is a file" in refused("search", "index", "q.npy", *page, "--images", ".")
    np.save("wide.npy", np.zeros((2, 17)))
    assert refused("search", "index", "wide.npy") == "wide.npy: expected 16 numbers a row, as index has, got 17"


def test_bytes_are_not_written_to_a_terminal(refused, monkeypatch):
    monkeypatch.setattr("aphash._command.terminal.is_terminal", lambda *_: True)
    assert "--npy writes bytes" in refused("search", "index", "q.npy", "--npy")


def test_bold_at_terminals_that_want_it(monkeypatch):
    from aphash._command import terminal

    assert terminal.bold("x") == "x"
    monkeypatch.setattr(terminal, "is_terminal", lambda *_: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert terminal.bold("x") == "\033[1mx\033[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert terminal.bold("x") == "x"
    monkeypatch.setenv("COLUMNS", "60")
    assert terminal.width() == 60 and terminal.fitted("a\x1b\n" + "b" * 99, 10) == "a  bbbbbb…"


# ---- pages ----------------------------------------------------------------------------------------------------------

VOID = {"meta", "img", "wbr", "br", "link", "input", "hr"}


class Outline(HTMLParser):
    """Checks that elements are closed in order; collects what a reader meets."""

    def __init__(self, text):
        super().__init__()
        self.open, self.images, self.ids, self.links, self.headings, self.loaded = [], [], [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        about = dict(attrs)
        self.ids += [about["id"]] if "id" in about else []
        self.links += [about["href"]] if "href" in about else []
        self.headings += [tag] if re.fullmatch("h[1-6]", tag) else []
        if tag == "img":
            assert "alt" in about
            self.images.append(about["src"])
        self.loaded += [about[name] for name in ("src", "href", "action") if name in about]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def draw_images(folder):
    Image = pytest.importorskip("PIL.Image")
    for i, name in enumerate((folder / "names").read_text().splitlines()):
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        size = (20, 12) if i % 2 else (300, 200)
        mode, colour = [("RGB", (i % 256, 90, 40)), ("L", i % 256), ("RGBA", (9, i % 256, 9, 99))][i % 3]
        Image.new(mode, size, colour).save(path)


def test_the_page_of_a_search_is_whole_and_loads_nothing(folder, capsys):
    draw_images(folder)
    shown = "--html", "y.html", "--images", "images", "--names", "names", "--query-names", "qnames"
    out = lines(capsys, "search", "index", "q.npy", "-k", "4", *shown)
    assert len(out) == 1 and re.match(r"y.html: 5 of 5 queries, [\d.]+ KiB", out[0])
    text = (folder / "y.html").read_text()
    outline = Outline(text)
    assert len(outline.images) == 5 * 5 and all(each.startswith("data:image/") for each in outline.images)
    assert all(each.startswith(("#", "data:")) for each in outline.loaded)
    assert {each[1:] for each in outline.links} <= set(outline.ids) and len(outline.ids) == len(set(outline.ids))
    assert outline.headings == ["h1", *["h2"] * 5]
    assert "<x>" not in text and "&lt;x&gt;" in text and 'lang="en"' in text
    (folder / "images/a/0 <x>.png").write_bytes(b"no picture")
    main(["search", "index", "q.npy", "-k", "1", *shown, "--csv"])
    said = capsys.readouterr()
    table = said.out.splitlines()
    assert table[0].startswith("query,rank,id") and len(table) == 6  # and nothing else
    assert "1 name without a picture" in said.err and "y.html: 5 of 5 queries" in said.err
    assert "no picture" in (folder / "y.html").read_text()


def test_text_in_a_page_is_text():
    from aphash._command import page

    assert page.escaped("<b>\xa0&\x07\udc80") == "&lt;b&gt;\xa0&amp;??"
    text = page.document("<t>", page.table(("a", "b"), [("<x>", ("1", "good"))], "what"), "p { color: red }")
    Outline(text)
    assert "<title>&lt;t&gt;</title>" in text and '<td class="good">1</td>' in text and "p { color: red }" in text


def test_a_page_needs_no_pictures_nor_pillow(folder, capsys, monkeypatch, refused):
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    main(["search", "index", "x.npy", "-k", "2", "--html", "y.html", "--names", "names"])
    outline = Outline((folder / "y.html").read_text())
    assert outline.images == [] and outline.headings == ["h1", *["h2"] * 100]
    assert "The first 100 of 400 queries" in (folder / "y.html").read_text()
    os.mkdir("a")
    said = refused("search", "index", "q.npy", "--html", "z.html", "--names", "names", "--images", "a")
    assert said.endswith("need Pillow, which is not installed: pip install 'aphash[plot]'")


# ---- dedup ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["index", "x.npy"])
def test_dedup_finds_the_copies_and_says_whom_to_keep(folder, capsys, source):
    out = lines(capsys, "dedup", *ONE, source, "--distance", "0.001", "--names", "names")
    assert out[0] == "2 groups, 4 of 400 vectors; 2 could go" and max(map(len, out)) <= 60
    assert out[1].startswith("cosine distance at most 0.001, exact; expected recall ")
    assert out[2:] == ["", "keep   10  b/10 <x>.png", "      390  a/390 <x>.png", "", "keep   11  c/11 <x>.png",
                       "      395  c/395 <x>.png"]  # fmt: skip
    more = "--groups", "g.csv", "--pairs", "p.csv", "--linkage", "complete"
    out = lines(capsys, "dedup", *ONE, source, "--distance", "0.001", *more)
    assert out[2:] == ["p.csv: 2 pairs", "g.csv: 4 vectors in 2 groups"]
    assert open_text("g.csv").read() == "id,group,keep\n10,0,1\n390,0,0\n11,1,1\n395,1,0\n"
    assert [row[:2] for row in csv.reader(open_text("p.csv"))] == [["id", "other"], ["10", "390"], ["11", "395"]]
    assert lines(capsys, "dedup", *ONE, source, "--distance", "0.001", "--groups", "-")[0] == "id,group,keep"


def test_dedup_of_codes_alone_and_by_l2(folder, capsys, refused):
    out = lines(capsys, "dedup", *ONE, "codes", "--distance", "0.001")
    assert "1010" in "\n".join(out) and ", estimated; " in out[1]
    assert "--linkage complete needs vectors" in refused("dedup", "codes", "--linkage", "complete")
    assert "say --distance" in refused("dedup", "x.npy", "--metric", "l2")
    assert lines(capsys, "dedup", *ONE, "x.npy", "--metric", "l2", "--distance", "0.05")[0].startswith(
        "2 groups, 4 of 400"
    )
    assert refused("dedup", "index", "--metric", "l2") == "index: --metric is of vectors: an index has its own"
    assert refused("dedup", "none") == "none: No such file or directory"
    assert refused("dedup", "x.npy", "--groups", "x.npy") == "x.npy: it would be written over, and is read"
    assert refused("dedup", "x.npy", "--groups", "y", "--pairs", "y") == "y: --groups and --pairs are two files"
    assert "no name for id 1000" in refused("dedup", "codes", "--names", "names")


# ---- choose ---------------------------------------------------------------------------------------------------------


def test_choose_prints_what_the_library_chooses_and_how_to_build_it(folder, capsys, refused):
    out = lines(capsys, "choose", "x.npy", "--bytes", "1", "--seed", "2", *ONE)
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    own = aphash.choose(unit, n_bytes=1, random_state=2, n_jobs=1)
    assert len([line for line in out if line.startswith(">")]) == 1
    assert " ".join(out).split("Chosen: ")[1].startswith(f"APHash(n_bits={own.best_params_['n_bits']}, ")
    if set(own.best_params_) <= {"mode", "n_bits", "n_train"}:
        assert out[-1].startswith("aphash build x.npy --out FILE --")
        main([*out[-1].replace("FILE", "y").split()[1:], *ONE])
    some = lines(capsys, "choose", "x.npy", "--rows", "200", "--what", "kind", "--bytes", "1", "--metric", "l2", *ONE)
    assert "among 200 of 400 rows" in " ".join(some) and " kind " in some[0]
    assert refused("choose", "x.npy", "--rows", "199") == "--rows: expected at least 200, got 199"
    assert refused("choose", "q.npy").startswith("q.npy: expected vectors, an array of shape (n, d), n >= 200")
    assert refused("choose", "index") == "index: a file of aphash, no vectors"


# ---- the demo -------------------------------------------------------------------------------------------------------


def test_the_demo_compares_all_modes_with_the_peers(folder, capsys):
    np.save("v.npy", np.abs(10 * X[:60]).astype(np.uint8))
    np.save("y.npy", np.arange(60) % 3)
    out = lines(capsys, "--data", "v.npy", "--labels", "y.npy", "--bits", "8", *ONE)
    assert out[0] == "48 items and 12 queries of 16 numbers, cosine, 8 bits" and max(map(len, out)) <= 60
    names = [line[:16].strip() for line in out[4:10]]
    assert names == ["APHash semantic", "APHash neighbors", "APHash scores", "ITQ", "signs", "floats"]
    measures = [float(each) for line in out[4:9] for each in re.findall(r"\d\.\d{3}", line)]
    assert len(measures) == 20 and all(0 <= each <= 1 for each in measures)
    assert out[9].split()[1] == "64" and out[9].split()[3:] == ["1.000"]


def test_without_labels_kinds_are_clusters(folder, capsys):
    centres = rng.standard_normal((5, 16)) * 9
    np.save("v.npy", (centres[np.arange(200) % 5] + rng.standard_normal((200, 16))).astype(np.float32))
    out = lines(capsys, "--data", "v.npy", "--bits", "16", "--metric", "l2", *ONE)
    assert "cluster" in out[3] and any(line.startswith("Most of the nearest: ") for line in out)


def test_the_demo_refuses_before_any_work(refused):
    np.save("few.npy", X[:19])
    np.save("thin.npy", X[:, :1])
    assert (
        refused("--data", "few.npy")
        == "few.npy: expected vectors, an array of shape (n, d), n >= 20, got shape (19, 16)"
    )
    assert "thin.npy: expected vectors of 2 numbers" in refused("--data", "thin.npy")
    assert "qnames: expected 400 labels" in refused("--data", "x.npy", "--labels", "qnames")
    assert "--labels needs --data" in refused("--labels", "names")
    assert refused("demo", "--data", "none.npy") == "none.npy: No such file or directory"
    pytest.importorskip("matplotlib")
    assert refused("--out", "none/x.png") == "none/x.png: No such file or directory"
    assert "x.foo: expected a picture's name" in refused("--out", "x.foo")
    assert "--out is the picture" in refused("--data", "x.npy", "--out", "x.png")
    assert "n_bits must be in 1 .. 65536" in refused("--bits", "70000")


def test_the_picture_is_one_landscape_page(folder, monkeypatch):
    Image = pytest.importorskip("PIL.Image")
    pytest.importorskip("matplotlib")
    from aphash._command import comparison, picture

    labels = np.arange(60) % 4
    found = rng.integers(0, 50, (10, 10))
    rows = [comparison.Row(name, 4, 0, 0, 0, 0, 0, found) for name in ("one", "two", "three")]
    queries = np.arange(50, 60)
    chosen = picture.hardest(rows, labels, np.arange(50), queries)
    assert len({labels[queries[each]] for each in chosen}) == picture.N_QUERIES
    picture.draw("y.png", rng.random((60, 8, 8)), labels, np.arange(50), queries, rows)
    with Image.open("y.png") as drawn:
        assert drawn.width > 1.3 * drawn.height
