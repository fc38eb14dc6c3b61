"""Runs in the environment of `libertem-dectris`: its mocked sender, or its receiver.

peer_libertem_dectris.py send FRAMES        says where it listens, then sends a series
peer_libertem_dectris.py receive PORT FILE  writes the frames of the next series on loopback to FILE.npy
"""

import sys
import tempfile
from pathlib import Path

import libertem_dectris
import numpy as np


def send(frames):
    simulator = libertem_dectris.DectrisSim.new_mocked("tcp://127.0.0.1", int(frames), random_port=True)
    sys.stdout.write(f"{simulator.get_uri()}\n")
    sys.stdout.flush()
    simulator.send_headers()
    simulator.send_frames()
    simulator.send_footer()
    sys.stdin.read()  # until told to go: what is queued is lost with it


def receive(port, file):
    with tempfile.TemporaryDirectory() as folder:
        connection = libertem_dectris.DectrisConnection(
            uri=f"tcp://127.0.0.1:{port}",
            handle_path=str(Path(folder) / "shared"),
            frame_stack_size=4,
            num_slots=100,
            bytes_per_frame=1 << 16,
            huge=False,
        )
        connection.start_passive()
        for _ in range(100):
            if connection.wait_for_arm(timeout=0.3) is not None:
                break
        client = libertem_dectris.CamClient(connection.get_socket_path())
        stacks = []
        while (stack := connection.get_next_stack(max_size=4)) is not None:
            shape = tuple(reversed(stack.get_shape()))
            frames = np.zeros((len(stack), *shape), np.dtype(stack.get_dtype_string()))
            client.decompress_frame_stack(stack, out=frames)
            client.done(stack)
            stacks.append(frames)
        np.save(file, np.concatenate(stacks))
        client.close()
        connection.close()


{"send": send, "receive": receive}[sys.argv[1]](*sys.argv[2:])
