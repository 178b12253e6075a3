"""A search service of the standard library: what it loads, it loads before it forks its workers.

    python examples/serve.py photos 8000 3                         the file, a port, and how many workers
    curl --data-binary @vectors.f32 "http://127.0.0.1:8000/?k=10"  float32 vectors, one or many, their bytes as they are

The file is what ``aphash.save("photos", hasher, index)`` wrote. Save over it at any time: each worker finds another
inode or time at its next request, and answers from the new file; saving is atomic, so there never is half a one.
"""

import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import numpy as np

import aphash


class Server(ThreadingHTTPServer):
    request_queue_size, loaded = 128, (None, None, None)

    def latest(self):
        """Return (encoder, index) of the file as it is now, or as it was where the new one cannot be read."""
        mark, encoder, index = self.loaded
        try:
            status = os.stat(sys.argv[1])
            if mark != (status.st_ino, status.st_mtime_ns):
                encoder, index = aphash.load_encoder(sys.argv[1], mmap=True)  # with numpy alone; codes are not read
                encoder.n_jobs = 1  # workers are what runs side by side
                self.loaded = (status.st_ino, status.st_mtime_ns), encoder, index  # at once: other threads read it
        except (OSError, ValueError) as error:
            print(error, file=sys.stderr)
        return encoder, index


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        try:
            vectors = np.frombuffer(self.rfile.read(int(self.headers["Content-Length"])), "<f4")
            k = int(parse_qs(urlsplit(self.path).query)["k"][0])
            encoder, index = self.server.latest()
            codes = encoder.transform(vectors.reshape(-1, encoder.n_features))
            distances, ids = index.search(codes, k, n_jobs=1)
            status, answer = 200, {"distances": distances.tolist(), "ids": ids.tolist()}
        except (KeyError, TypeError, ValueError) as error:
            status, answer = 400, {"error": str(error)}
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())


server = Server(("127.0.0.1", int(sys.argv[2])), Handler)
server.socket.setblocking(False)  # a connection wakes all workers, and one gets it
if server.latest()[1] is None:
    sys.exit(1)
print(f"http://127.0.0.1:{server.server_port}", flush=True)
workers = set()
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
try:
    while True:  # a worker that dies is replaced
        while len(workers) < int(sys.argv[3]):
            if not (pid := os.fork()):
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                workers.clear()
                server.serve_forever()
            workers.add(pid)
        workers.discard(os.wait()[0])
finally:
    for pid in workers:
        os.kill(pid, signal.SIGTERM)
