"""Live X-ray ptychography: stream, learn, image. `ptychoflow.buffer` is a library of its own."""
