"""DECTRIS stream, first version: parts that JSON announces, sent by ZeroMQ PUSH."""
