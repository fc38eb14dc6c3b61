"""Run by a Python that has bluesky: validates the documents it gets, and stops a plan on a score.

Arguments: address, bluesky's prefix, PSNR of the phase (dB) at which the plan stops.
"""

import json
import queue
import sys
import threading

import bluesky.plan_stubs as bps
import event_model
import msgpack
from bluesky import RunEngine
from bluesky.callbacks.zmq import RemoteDispatcher

address, prefix, goal_db = sys.argv[1], sys.argv[2].encode(), float(sys.argv[3])
arrived = queue.Queue()
ended = threading.Event()
documents = []


def say(line):
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def check(name, document):
    event_model.schema_validators[event_model.DocumentNames[name]].validate(document)
    if not ended.is_set():
        documents.append((name, document))
    router(name, document)


class Scores(event_model.DocumentRouter):
    def event(self, doc):
        arrived.put(doc["data"])

    def stop(self, doc):
        ended.set()


router = event_model.RunRouter([lambda name, doc: ([Scores()], [])])


def scan_until_good():
    """Go on until the image of a first pass is good enough."""
    yield from bps.open_run()
    points = 0
    while True:
        yield from bps.checkpoint()
        yield from bps.sleep(0.01)
        points += 1
        if not arrived.empty() and (data := arrived.get())["psnr_phase_db"] >= goal_db:
            break
    yield from bps.close_run(reason=f"perspective {data['perspective']} reached {data['psnr_phase_db']} dB")


dispatcher = RemoteDispatcher(address, prefix=prefix, deserializer=msgpack.unpackb, strict=True)
dispatcher.subscribe(check)
threading.Thread(target=dispatcher.start, daemon=True).start()
engine = RunEngine({})
reasons = []
engine.subscribe(lambda name, doc: reasons.append(doc["reason"]), "stop")
say("scanning")
engine(scan_until_good())
say(json.dumps(reasons))
ended.wait(60)
say(json.dumps(documents))
