"""The file format: tensors and the planes of LogTensors in safetensors, checked when read.

docs/files.md describes it for readers without lognet. Nothing in such a file is executed: there is no pickle in it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ..quant.kernels.bitpack import pack, packed_bytes
from ..quant.log_format import LogFormat
from ..quant.random_bits import random_bools
from ..tensor.log_tensor import LogTensor
from ..tensor.storage import LogStorage
from .atomic import write_atomically

VERSION = 1
"""The version that this module writes. A reader refuses larger ones."""

CHECKSUM = "lognet.sha256"
Planes = dict[str, Tensor]


def write_file(
    path: str | os.PathLike[str],
    state: Mapping[str, Tensor],
    sign_keys: Mapping[str, int],
    quantizers: Mapping[str, Any] | None = None,
) -> None:
    """Write tensors by name, LogTensors as their planes, with `write_atomically`. An error leaves nothing written.

    One tensor under several names is written once. The LogTensors named in `sign_keys` have the signs that `random_bools`
    gives for their keys, and are written without them. `quantizers` are those of `describe_quantizers`.
    """
    planes, description = _packed(state, sign_keys)
    description |= {"quantizers": dict(quantizers)} if quantizers else {}
    text = json.dumps(description, sort_keys=True)
    planes[CHECKSUM] = _checksum(text, planes)
    for name in sign_keys:
        del planes[f"{name}.sign"]
    write_atomically(path, save(planes, {"lognet": text}))


def read_file(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a file by name, on the CPU, tied ones as one object; and the quantizers that it names.

    All of it is checked before anything returns.
    """
    where = os.fspath(path)
    if not os.path.isfile(where):
        raise FileNotFoundError(f"there is no file {where}")
    try:
        with safe_open(where, framework="pt") as file:
            metadata = file.metadata() or {}
            planes = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
    except SafetensorError as error:
        raise ValueError(
            f"{where} is not a whole safetensors file ({error}): it was cut short or damaged, or is of another kind"
            " (of torch.save, say: use torch.load). Restore it from a copy"
        ) from None
    if "lognet" not in metadata:
        raise ValueError(
            f"{where} is a safetensors file, but not one that lognet.save wrote; read it with"
            " safetensors.torch.load_file and model.load_state_dict"
        )
    return _unpacked(where, metadata["lognet"], planes)


def _packed(state: Mapping[str, Tensor], sign_keys: Mapping[str, int]) -> tuple[Planes, dict[str, Any]]:
    """The planes to write and their description."""
    planes: Planes = {}
    logs: dict[str, Any] = {}
    tied: dict[str, str] = {}
    complexes: list[str] = []
    first: dict[int, str] = {}

    def add(name: str, plane: Tensor) -> None:
        if name in planes or name == CHECKSUM:
            raise ValueError(f"two tensors would have the name {name} in the file; rename one of them")
        planes[name] = plane.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)

    for name, tensor in state.items():
        _check_writable(name, tensor)
        if (known := first.setdefault(id(tensor), name)) != name:
            tied[name] = known
        elif isinstance(tensor, LogTensor):
            storage = tensor._storage if tensor.is_whole else tensor.detach().clone()._storage  # type: ignore[attr-defined]
            ladder = storage.format
            logs[name] = {
                "bits": ladder.bits,
                "base_precision": ladder.base_precision,
                "shape": list(tensor.shape),
                "dtype": _name_of(tensor.dtype),
                **({"group": storage.group} if storage.keep is not None else {}),
                **({"sign_key": f"{sign_keys[name]:016x}"} if name in sign_keys else {}),
            }
            for plane, values in storage.planes().items():
                add(f"{name}.{plane}", values)
        elif tensor.is_complex():
            complexes.append(name)
            add(name, torch.view_as_real(tensor.detach().resolve_conj()))
        else:
            add(name, tensor)
    return planes, {"version": VERSION, "log_tensors": logs, "tied": tied, "complex": complexes}


def _unpacked(where: str, text: str, planes: Planes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The inverse of `_packed`. It checks everything."""
    damaged = f"{where} is damaged: {{}}. Restore it from a copy, or save the model again"
    try:
        description = json.loads(text)
        version = int(description["version"])
    except (ValueError, TypeError, KeyError):
        raise ValueError(damaged.format("its description cannot be read")) from None
    if version > VERSION:
        raise ValueError(
            f"{where} has version {version} of lognet's file format and this lognet reads up to {VERSION}; install a"
            " newer lognet"
        )
    try:
        for name, entry in description["log_tensors"].items():
            if "sign_key" in entry:
                count = torch.Size(entry["shape"]).numel()
                planes[f"{name}.sign"] = pack(random_bools(count, int(entry["sign_key"], 16)), 1)
        stored = planes.pop(CHECKSUM)
        if not torch.equal(stored, _checksum(text, planes)):
            raise ValueError(
                "its contents, or the signs that its seed gives, do not have the checksum it was saved with"
            )
        state = {name: _log_tensor(name, entry, planes) for name, entry in description["log_tensors"].items()}
        state |= {name: torch.view_as_complex(planes.pop(name)) for name in description["complex"]}
        state |= planes
        tied = {name: state[known] for name, known in description["tied"].items()}
        return state | tied, {name: dict(entry) for name, entry in description.get("quantizers", {}).items()}
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        reason = f"{error} is missing from it" if isinstance(error, KeyError) else str(error)
        raise ValueError(damaged.format(reason)) from None


def _log_tensor(name: str, entry: Mapping[str, Any], planes: Planes) -> Tensor:
    """A LogTensor of its planes, which are taken out of `planes`."""
    ladder, size = LogFormat(entry["bits"], entry["base_precision"]), torch.Size(entry["shape"])
    count, group, dtype = size.numel(), entry.get("group", 1), getattr(torch, entry["dtype"])
    if min(size, default=0) < 0 or not dtype.is_floating_point:
        raise ValueError(f"{name} cannot have the shape {tuple(size)} and the dtype {dtype}")
    expected = {"low": packed_bytes(count, min(ladder.bits, 8)), "sign": packed_bytes(count, 1), "scale": 1}
    if ladder.bits > 8:
        expected["high"] = packed_bytes(count, ladder.bits - 8)
    if "group" in entry:
        expected["keep"] = packed_bytes(count // max(group, 1), 1)
    own = {plane: planes.pop(f"{name}.{plane}") for plane in expected}
    for plane, values in own.items():
        kind = torch.float32 if plane == "scale" else torch.uint8
        if values.dtype != kind or values.numel() != expected[plane]:
            raise ValueError(f"{name}.{plane} is not the plane of a LogTensor of shape {tuple(size)}")
    ladder.check_scale(float(own["scale"]))
    storage = LogStorage.from_planes(ladder, count, own, group)
    return LogTensor(storage, size, dtype=dtype)


def _check_writable(name: str, tensor: Any) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(
            f"{name} is a {type(tensor).__name__}, not a tensor: a lognet file holds tensors only. Keep what"
            " get_extra_state returns in a tensor, or save it apart"
        )
    if is_lazy(tensor):
        raise ValueError(f"{name} is not initialised yet; run the lazy module once on a sample before saving it")
    if tensor.is_meta:
        raise ValueError(f"{name} is on the meta device and has no values to save; materialise the model first")
    other = is_traceable_wrapper_subclass(tensor) and not isinstance(tensor, LogTensor)
    if other or tensor.layout != torch.strided or tensor.is_quantized:
        raise TypeError(
            f"{name} is a {type(tensor).__name__} of layout {tensor.layout}, {tensor.dtype}: a lognet file holds"
            " LogTensors and ordinary dense tensors; convert it first"
        )


def _checksum(text: str, planes: Planes) -> Tensor:
    """SHA-256, as 32 bytes, of the description and of every plane: its name, dtype, shape and little-endian bytes."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(planes):
        plane = planes[name]
        digest.update(f"\n{name} {_name_of(plane.dtype)} {list(plane.shape)}\n".encode())
        digest.update(plane.reshape(-1).view(torch.uint8).numpy().data)
    return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)


def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
