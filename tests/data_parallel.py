"""``nn.DataParallel`` on one CPU: PyTorch's own ``replicate``, whose broadcast is a copy here, and
a thread for each copy of the model."""

import threading
from unittest import mock

import torch
from torch.nn.parallel import replicate

from smnm_kernels.samplers.replicas import Replicas

_thread = threading.local()


def _broadcast(tensors, devices, detach=False):
    """As comm.broadcast_coalesced: the first device gets the tensors themselves."""
    return [list(tensors), *([t.clone() for t in tensors] for _ in devices[1:])]


def _copy_of_this_thread(replicas, device):
    """Devices tell copies apart; here all are on the CPU."""
    return replicas._copies[_thread.place]()


def run(model, chunks, before=lambda place: None):
    """What the copies of ``model`` make of the chunks of a batch.

    Args:
        before: is called with its place by each thread before the model is.
    """
    module = torch.nn.parallel.replicate.__module__
    with (
        mock.patch(f"{module}._get_device_index", lambda device, optional: device),
        mock.patch(f"{module}._broadcast_coalesced_reshape", _broadcast),
    ):
        copies = replicate(model, list(range(len(chunks))))
    results = [None] * len(chunks)

    def work(place):
        _thread.place = place
        before(place)
        try:
            results[place] = copies[place](chunks[place])
        except Exception as error:
            results[place] = error

    with mock.patch.object(Replicas, "on", _copy_of_this_thread):
        if len(copies) == 1:
            work(0)
        else:
            threads = [threading.Thread(target=work, args=(i,)) for i in range(len(chunks))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results
