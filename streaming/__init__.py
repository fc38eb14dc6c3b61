"""Messages, sockets, keys and telemetry: everything that crosses a process boundary."""
