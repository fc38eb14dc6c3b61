"""Run by a Python that has Tiled: a server (`serve FOLDER PORT`), or its client, which reads a run (`read URL RUN`)."""

import json
import sys

import numpy as np
from tiled.client import from_uri
from tiled.server import SimpleTiledServer


def serve(folder, port):
    server = SimpleTiledServer(folder, api_key="secret", port=int(port))
    say("serving")
    sys.stdin.read()
    server.close()


def read(url, run):
    found = {}

    def walk(node, path):
        values = {"metadata": dict(node.metadata)}
        if hasattr(node, "read"):
            array = np.asarray(node.read())
            values |= {"dtype": str(array.dtype), "shape": array.shape, "hex": array.tobytes().hex()}
            values["dims"] = node.dims
        else:
            for name in node:
                walk(node[name], f"{path}/{name}")
        found[path] = values

    walk(from_uri(url, api_key="secret")[run], "")
    say(json.dumps(found))


def say(line):
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


{"serve": serve, "read": read}[sys.argv[1]](*sys.argv[2:])
