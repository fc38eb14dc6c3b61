"""Runs in the environment of `pandablocks`: writes as JSON what that package makes of a stream.

peer_pandablocks.py FILE     a recorded stream
peer_pandablocks.py PORT     the next capture of a data port on loopback
"""

import json
import socket
import sys

from pandablocks.connections import DataConnection
from pandablocks.responses import EndData, FrameData, StartData


def main(source):
    connection, said = DataConnection(), {"columns": {}}
    if source.isdecimal():
        box = socket.create_connection(("127.0.0.1", int(source)))
        box.sendall(connection.connect(scaled=True))
        read = lambda: box.recv(1000)  # noqa: E731
    else:
        connection.connect(scaled=True)
        file = open(source, "rb")  # noqa: PTH123, SIM115
        read = lambda: file.read(1000)  # noqa: E731
    while data := read():
        for one in connection.receive_bytes(data):
            if isinstance(one, StartData):
                said["missed"], said["process"] = one.missed, one.process
                said["fields"] = [[f"{field.name}.{field.capture}", field.units] for field in one.fields]
            elif isinstance(one, FrameData):
                for name in one.column_names:
                    said["columns"].setdefault(name, []).extend(one.data[name].tolist())
            elif isinstance(one, EndData):
                said["end"] = [one.samples, one.reason.value]
                sys.stdout.write(json.dumps(said))
                return


main(sys.argv[1])
