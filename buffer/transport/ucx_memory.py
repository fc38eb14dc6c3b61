"""Memory of one rank that ranks of the same host write to directly, as UCX lends it.

UCXX does not wrap these calls of UCX's public interface (ucp.h), so they are made here. UCX allocates the memory from
what its shared-memory transports can attach to; nothing of it outlives the processes, even if they are killed.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import struct
import weakref
from typing import Any

import numpy as np
import torch

from ptychoflow.buffer.memory import HUGE_PAGE_BYTES
from ptychoflow.buffer.transport.item_channel import MemoryRegion

_FIELD_LENGTH, _FIELD_FLAGS, _ALLOCATE = 1 << 1, 1 << 2, 1 << 1
_FIELD_ADDRESS = 1 << 0
_OK = 0
_TELL_STATUS = ("ucp_mem_map", "ucp_mem_query", "ucp_mem_unmap", "ucp_rkey_pack", "ucp_ep_rkey_unpack", "ucp_rkey_ptr")
_TELL_NOTHING = ("ucp_rkey_buffer_release", "ucp_rkey_destroy")
_ADDRESS = struct.Struct("<Q")


class _MapParams(ctypes.Structure):
    """`ucp_mem_map_params_t`."""

    _fields_ = (
        ("field_mask", ctypes.c_uint64),
        ("address", ctypes.c_void_p),
        ("length", ctypes.c_size_t),
        ("flags", ctypes.c_uint),
        ("prot", ctypes.c_uint),
        ("memory_type", ctypes.c_int),
        ("exported_memh_buffer", ctypes.c_void_p),
    )


class _MemoryAttributes(ctypes.Structure):
    """`ucp_mem_attr_t`."""

    _fields_ = (
        ("field_mask", ctypes.c_uint64),
        ("address", ctypes.c_void_p),
        ("length", ctypes.c_size_t),
        ("mem_type", ctypes.c_int),
    )


@functools.cache
def _library() -> ctypes.CDLL:
    """The library that UCXX has loaded already."""
    library = ctypes.CDLL("libucp.so.0")
    for name in _TELL_STATUS:
        getattr(library, name).restype = ctypes.c_int8  # `ucs_status_t` is a packed enumeration
    for name in _TELL_NOTHING:
        getattr(library, name).restype = None
    return library


class _Bytes:
    """Memory at an address, seen by numpy; whatever is made from it keeps it, and so its owner, alive."""

    def __init__(self, address: int, nbytes: int) -> None:
        self.__array_interface__ = {"version": 3, "shape": (nbytes,), "typestr": "|u1", "data": (address, False)}

    def tensor(self) -> torch.Tensor:
        """All of it, uint8, without a copy."""
        return torch.from_numpy(np.asarray(self))


def allocate_region(context: Any, nbytes: int) -> MemoryRegion:
    """Allocate `nbytes` zeros that other ranks may write to; released once the last tensor made of them is gone.

    `context` is a `UCXContext`. Raises MemoryError if UCX has no such memory to give.
    """
    library, handle = _library(), ctypes.c_void_p(context.handle)
    mapped = ctypes.c_void_p()
    length = -(-nbytes // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES
    params = _MapParams(field_mask=_FIELD_LENGTH | _FIELD_FLAGS, length=length, flags=_ALLOCATE)
    status = library.ucp_mem_map(handle, ctypes.byref(params), ctypes.byref(mapped))
    if status != _OK:
        raise MemoryError(f"UCX cannot allocate {nbytes} bytes for the buffer's outputs (status {status}).")
    attributes = _MemoryAttributes(field_mask=_FIELD_ADDRESS)
    status = library.ucp_mem_query(mapped, ctypes.byref(attributes))
    if status != _OK:
        raise MemoryError(f"UCX does not tell where it has allocated the buffer's outputs (status {status}).")
    owner = _Bytes(attributes.address, nbytes)
    # What the caller still holds when the interpreter ends is never unmapped, since it may yet be read. A context
    # destroyed before its memory makes UCX complain, so the memory owns a reference that only `_unmap` gives back.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(context))
    weakref.finalize(owner, _unmap, library, context, mapped).atexit = False
    _prefer_huge_pages(attributes.address, length)
    key = _ADDRESS.pack(attributes.address) + _packed_key(library, handle, mapped)
    return MemoryRegion(owner.tensor().zero_(), key)


def _prefer_huge_pages(address: int, length: int) -> None:
    """Writes take a third less time where the kernel has huge pages to give; where it has none, nothing changes."""
    if hasattr(mmap, "MADV_HUGEPAGE"):
        ctypes.CDLL(None).madvise(ctypes.c_void_p(address), ctypes.c_size_t(length), mmap.MADV_HUGEPAGE)


def _unmap(library: ctypes.CDLL, context: Any, mapped: ctypes.c_void_p) -> None:
    library.ucp_mem_unmap(ctypes.c_void_p(context.handle), mapped)
    ctypes.pythonapi.Py_DecRef(ctypes.py_object(context))


def _packed_key(library: ctypes.CDLL, context: ctypes.c_void_p, mapped: ctypes.c_void_p) -> bytes:
    packed, size = ctypes.c_void_p(), ctypes.c_size_t()
    status = library.ucp_rkey_pack(context, mapped, ctypes.byref(packed), ctypes.byref(size))
    if status != _OK:
        raise MemoryError(f"UCX cannot describe the memory of the buffer's outputs (status {status}).")
    key = ctypes.string_at(packed, size.value)
    library.ucp_rkey_buffer_release(packed)
    return key


class AttachedRegion:
    """Another rank's memory in this process, if it can be reached: `memory`, else None.

    `endpoint` is a `UCXEndpoint` to that rank. Whoever uses `memory` must be done with it before `release`.
    """

    def __init__(self, endpoint: Any, key: bytes, nbytes: int) -> None:
        self._library = _library()
        self._key = ctypes.c_void_p()
        self.memory: torch.Tensor | None = None
        packed = key[_ADDRESS.size :]
        buffer = ctypes.create_string_buffer(packed, len(packed))
        status = self._library.ucp_ep_rkey_unpack(ctypes.c_void_p(endpoint.handle), buffer, ctypes.byref(self._key))
        if status == _OK:
            here = ctypes.c_void_p()
            there = ctypes.c_uint64(_ADDRESS.unpack_from(key)[0])
            if self._library.ucp_rkey_ptr(self._key, there, ctypes.byref(here)) == _OK and here.value is not None:
                self.memory = _Bytes(here.value, nbytes).tensor()

    def release(self) -> None:
        """Let go of the memory."""
        self.memory = None
        if self._key.value is not None:
            self._library.ucp_rkey_destroy(self._key)
            self._key = ctypes.c_void_p()
