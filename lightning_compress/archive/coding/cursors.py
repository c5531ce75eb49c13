"""Reading and writing the small integers of an archive, with every read checked against the bytes that are left."""

from functools import lru_cache


class ArchiveError(ValueError):
    """The file is no readable archive: foreign, truncated, altered, or written by a newer version."""


class Cursor:
    """A position in some bytes that moves forward with every read and never past the end.

    Example:
        >>> cursor = Cursor(varint(300) + b"ab")
        >>> cursor.varint(), cursor.take(2), cursor.remaining
        (300, b'ab', 0)
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    @property
    def remaining(self) -> int:
        """The number of bytes not read yet."""
        return len(self._data) - self._position

    def take(self, count: int) -> bytes:
        """The next `count` bytes.

        Raises:
            ArchiveError: if fewer are left.
        """
        return bytes(self.view(count))

    def view(self, count: int) -> memoryview:
        """The next `count` bytes, without a copy.

        Raises:
            ArchiveError: if fewer are left.
        """
        if count > self.remaining:
            raise ArchiveError(f"the archive is damaged: need {count} more bytes, got {self.remaining}")
        self._position += count
        return memoryview(self._data)[self._position - count : self._position]

    def varint(self) -> int:
        """An unsigned integer below 2^63 as written by `varint`."""
        value = 0
        for shift in range(0, 63, 7):
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ArchiveError("the archive is damaged: an integer is longer than 63 bits")

    def signed(self) -> int:
        """A signed integer written as `varint(zigzag(value))`."""
        return unzigzag(self.varint())

    def golomb(self, count: int) -> list[int]:
        """`count` signed integers written by `golomb`."""
        longest = 65  # bits of a code: the values are below 2^31
        window = self._data[self._position : self._position + (count * longest + 7) // 8]
        bits = f"{int.from_bytes(window, 'big'):0{8 * len(window)}b}"
        values, start = [], 0
        for _ in range(count):
            one = bits.find("1", start, start + 33)
            end = 2 * one - start + 1
            if one < 0 or end > len(bits):
                raise ArchiveError("the archive is damaged: a table of probabilities ends too early")
            values.append(unzigzag(int(bits[one:end], 2) - 1))
            start = end
        self.take((start + 7) // 8)
        return values


def varint(value: int) -> bytes:
    r"""An unsigned integer in base 128, lowest digit first; the high bit says that another follows (LEB128).

    Example:
        >>> varint(127), varint(300)
        (b'\x7f', b'\xac\x02')
    """
    digits = []
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])


def zigzag(value: int) -> int:
    """Signed to unsigned so that small stays small: 0, -1, 1, -2, 2, ... become 0, 1, 2, 3, 4, ..."""
    return 2 * value if value >= 0 else -2 * value - 1


def unzigzag(value: int) -> int:
    """The inverse of `zigzag`."""
    return value >> 1 if value & 1 == 0 else -(value >> 1) - 1


def golomb(values: list[int]) -> bytes:
    r"""Signed integers as exponential Golomb codes (Elias gamma of `zigzag(value) + 1`), filled up to a byte.

    Example:
        >>> golomb([0, -1, 1])  # 1 010 011, and one bit to fill the byte
        b'\xa6'
    """
    bits = "".join(map(_golomb_word, values))
    bits += "0" * (-len(bits) % 8)
    return int(bits or "0", 2).to_bytes(len(bits) // 8, "big")


@lru_cache(maxsize=1 << 12)
def _golomb_word(value: int) -> str:
    word = f"{zigzag(value) + 1:b}"
    return "0" * (len(word) - 1) + word
