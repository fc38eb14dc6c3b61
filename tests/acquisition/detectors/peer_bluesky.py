"""A RunEngine with simulated motors and a simulated detector of ophyd-async, publishing through a proxy of bluesky.

    python peer_bluesky.py FOLDER msgpack|json|pickle [SERVER_SECRET CLIENT_SECRET SERVER_PUBLIC]

Prints the port of the proxy's out side, sends documents of no known kind until a line comes on standard input, runs
three plans (a grid, one that is aborted, a line), and prints what they held as JSON.
"""

import json
import pickle
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import msgpack
from bluesky.callbacks.zmq import Proxy, Publisher, ServerCurve
from bluesky.run_engine import RunEngine
from bluesky.utils import RequestAbort, RunEngineInterrupted
from ophyd_async.core import StaticPathProvider, UUIDFilenameProvider, init_devices
from ophyd_async.sim import PatternGenerator, SimBlobDetector, SimStage

SERIALIZERS = {"msgpack": msgpack.dumps, "json": lambda document: json.dumps(document).encode(), "pickle": pickle.dumps}


def main(folder, serializer, *certificates):
    """Run the plans."""
    curve = ServerCurve(Path(certificates[0]), None, None) if certificates else None
    proxy = Proxy(("127.0.0.1", "*"), ("127.0.0.1", "*"), out_curve=curve)
    threading.Thread(target=proxy.start, daemon=True).start()
    publisher = Publisher(str(proxy.in_port).removeprefix("tcp://"), serializer=SERIALIZERS[serializer], prefix=b"ours")
    say(str(proxy.out_port).rsplit(":", 1)[1])
    go = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), go.set()), daemon=True).start()
    while not go.wait(0.05):
        publisher("nothing", {})

    engine, runs = RunEngine({}), {}
    pattern = PatternGenerator()
    with init_devices():
        detector = SimBlobDetector(StaticPathProvider(UUIDFilenameProvider(), Path(folder)), pattern, name="detector")
        stage = SimStage(pattern, name="stage")
    for motor in (stage.x, stage.y):
        engine(bps.mv(motor.velocity, 1000.0))
    engine.subscribe(publisher)
    engine.subscribe(lambda name, document: collect(runs, name, document))

    engine(bp.grid_scan([detector], stage.y, 0, 2, 3, stage.x, 0, 1, 2, md={"angle_deg": 12.5}))

    points = iter(range(3))

    def until_aborted(detectors, step, pos_cache):
        if next(points, None) is None:
            raise RequestAbort
        yield from bps.one_nd_step(detectors, step, pos_cache)

    with suppress(RunEngineInterrupted):
        engine(bp.grid_scan([detector], stage.y, 0, 2, 3, stage.x, 0, 1, 2, per_step=until_aborted))

    engine(bp.scan([detector], stage.x, 3, 5, stage.y, 0, 1, 3))
    time.sleep(0.5)
    publisher.close()
    say(json.dumps(list(runs.values())))


def say(line):
    """Write a line that the test reads."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def collect(runs, name, document):
    """Keep what must arrive, by run."""
    if name == "start":
        runs[document["uid"]] = {"uid": document["uid"], "positions_mm": [], "files": []}
    run = list(runs.values())[-1]
    if name == "event":
        run["positions_mm"].append([document["data"]["stage-y"], document["data"]["stage-x"]])
    elif name == "stream_resource" and document["data_key"] == "detector":
        run["files"].append(document["uri"])
    elif name == "stop":
        run["exit_status"] = document["exit_status"]


main(*sys.argv[1:])
