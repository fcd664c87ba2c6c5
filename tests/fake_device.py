"""A device that does nothing until it must: work waits in a queue until an event is waited for.

Memory that is used again too early, or read before it was filled, therefore gives wrong numbers.
"""

from __future__ import annotations

import contextlib
import ctypes

import torch

from gnnlab.data._device import PinningError


class FakeEvent:
    def __init__(self, device, place):
        self.device, self.place = device, place

    def query(self):
        return self.device.done >= self.place

    def synchronize(self):
        self.device.waits.append(self.place)
        self.device.run_until(self.place)

    def elapsed_time(self, end_event):
        return 250.0 * (end_event.place >= self.place)  # milliseconds


class FakeDevice:
    """Tensors "on" it are CPU tensors; its kernel reads rows by address, as a GPU would."""

    def __init__(self, *, kernels=True, refuse=None, shift=0):
        self.device = torch.device("cpu")
        self.kernels, self.refuse, self.shift = kernels, refuse, shift
        self.queue, self.done, self.waits = [], 0, []
        self.registered, self.log, self.buffers = {}, [], []
        self.pinned = set()

    # ---- queue

    def run_until(self, place):
        while self.done < place:
            self.queue[self.done]()
            self.queue[self.done] = None
            self.done += 1

    def enqueue(self, work):
        self.queue.append(work)

    def record(self):
        return FakeEvent(self, len(self.queue))

    def synchronize(self):
        self.run_until(len(self.queue))

    @contextlib.contextmanager
    def aside(self, after, *used):
        self.log.append("aside")
        yield

    def join(self, end, made):
        self.log.append("join")
        end.synchronize()

    # ---- memory

    def staging_buffer(self, num_bytes):
        self.buffers.append(num_bytes)
        return torch.full((num_bytes,), 0xAB, dtype=torch.uint8)

    def is_pinned(self, x):
        return x.data_ptr() in self.pinned

    def register(self, pointer, num_bytes):
        if self.refuse:
            raise PinningError(self.refuse)
        assert pointer not in self.registered
        self.registered[pointer] = num_bytes
        self.log.append("register")

    def unregister(self, pointer):
        assert self.done == len(self.queue), "unregistered while work was under way"
        del self.registered[pointer]
        self.log.append("unregister")

    def device_pointer(self, pointer):
        return pointer + self.shift

    # ---- kernel

    def can_gather_rows(self):
        return self.kernels

    def gather_rows(self, pointer, stride_bytes, row_bytes, index, out, slots, cache, num_rows):
        begin = pointer - self.shift
        self.log.append("mapped" if cache is None else "mapped+cache")

        def work():
            target = out.view(torch.uint8).view(index.shape[0], row_bytes)
            for place, row in enumerate(index.tolist()):
                assert 0 <= row < num_rows
                slot = -1 if slots is None else int(slots[row])
                if slot >= 0:
                    target[place] = cache[slot].view(torch.uint8)
                    continue
                address = begin + row * stride_bytes
                if not self.pinned:  # all that is read lies inside what was registered
                    ((first, size),) = self.registered.items()
                    assert first <= address
                    assert address + row_bytes <= first + size
                data = ctypes.string_at(address, row_bytes)
                target[place] = torch.frombuffer(bytearray(data), dtype=torch.uint8)

        self.enqueue(work)
