"""DECTRIS stream2: one CBOR map in a message, sent by ZeroMQ PUSH."""
