"""Hostile files: archives and records that somebody has changed, for the tests and for benchmarks/hostile_files."""

import copy
from hashlib import blake2b

import torch

VALUES = [None, True, -1, 0, 1, 2, 7, 2.5, 10**10, 10**40, "zzz", "", "net.0", [], [3], {}, {"net.0": 3}, (1,)]
VALUES += [torch.tensor(torch.nan), torch.tensor(0.5), torch.ones(3, 1), torch.ones(1).expand(10**10)]


def mutated(data, chance):
    """A few bits flipped, bytes replaced, or a run moved, never the same as before."""
    result = bytearray(data)
    while result == data:
        at = chance.randrange(len(data))
        kind = chance.randrange(4)
        if kind == 0:
            result[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            result[at] = chance.choice([0, 1, 127, 128, 255])
        elif kind == 2:
            result[at : at + 4] = chance.randbytes(len(result[at : at + 4]))
        else:
            result[at : at + 8] = result[at : at + 8][::-1]
    return bytes(result)


def sealed(body):
    """The head and body of an archive with its length and its checksum made right."""
    body = body[:5] + (len(body) + 8).to_bytes(6, "little") + body[11:]
    return body + blake2b(body, digest_size=8).digest()


def places(value, found=()):
    """Every place in a record, as the keys that lead there."""
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield (*found, key)
            yield from places(part, (*found, key))


def mutated_record(record, chance):
    """A copy of a record with one entry renamed, removed, multiplied, or replaced by a value of another kind."""
    record = copy.deepcopy(record)
    *way, last = chance.choice(list(places(record)))
    inside = record
    for key in way:
        inside = inside[key]
    what = chance.randrange(4)
    if what == 0 and isinstance(inside, dict):
        inside[chance.choice(["zzz", "net.0", "net.0.weight", 5])] = inside.pop(last)
    elif what == 1:
        del inside[last]
    elif what == 2 and type(inside[last]) is int:
        inside[last] *= chance.choice([-1, 2, 10**9])
    else:
        inside[last] = chance.choice(VALUES)
    return record
