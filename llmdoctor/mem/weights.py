"""A model's parameters as training sees them: shapes, dtypes, which are trained."""

from __future__ import annotations

from dataclasses import dataclass

from llmdoctor.mem.workload import BYTES

WIDTHS = {**BYTES, "float64": 8, "int64": 8, "int32": 4, "int8": 1, "uint8": 1, "bool": 1, "float8_e4m3fn": 1, "float8_e5m2": 1}


@dataclass(frozen=True, slots=True)
class Weight:
    """A parameter: shape, dtype by its torch name, whether it is trained, whether it is an embedding table.

    `packed` is the number of the model's parameters that one element holds: 2 for quantized weights of 4 bits.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    trainable: bool = True
    embedding: bool = False
    packed: int = 1

    @property
    def numel(self) -> int:
        """Elements."""
        out = 1
        for extent in self.shape:
            out *= extent
        return out

    @property
    def nbytes(self) -> int:
        """Bytes."""
        return self.numel * WIDTHS[self.dtype]
