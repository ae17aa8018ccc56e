"""Whole models in files: save and load, exactly or not at all."""

from __future__ import annotations

import os
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..convert.patterns import check_module
from ..convert.quantizers import describe_quantizers
from ..quant.random_bits import random_bools
from ..tensor.log_tensor import LogTensor
from ..tensor.parameter import check_sign_seed, sign_keys
from ..tensor.storage import describe
from .files import read_file, write_file

SHOWN = 5  # names or differences of one kind listed in a message


def save(model: nn.Module, path: str | os.PathLike[str], *, sign_seed: int | None = None) -> None:
    """Save the parameters and buffers of a model, wrapped or not, in a safetensors file.

    The file holds all that `model.state_dict()` has: LogTensors as packed planes with masks and scales, other tensors as
    they are, tied tensors once. It also names the quantizers of activations and gradients. It has a version and a
    checksum, holds no pickle, and can be read without lognet (docs/files.md). It is written by
    `lognet.saving.write_atomically`: the old file stays at `path` until the new one is whole on the disk.

    For the state of an optimizer, use `torch.save(optimizer.state_dict(), ...)`.

    Args:
        model: any module.
        path: of the file, usually ``*.safetensors``; its folder must exist.
        sign_seed: leave out the sign bits of all LogTensors of two or more dimensions, which `load` draws again from
            this seed: B bits a weight. They must still be those that ``lognet.wrap(model, sign_seed=...)`` drew.

    Raises:
        TypeError: a tensor that is neither dense nor a LogTensor, extra state that is no tensor, an argument of the wrong
            type. Nothing is written then, as with every error here.
        ValueError: signs that are not those of `sign_seed`, a tensor on the meta device or not yet initialised.
        FileNotFoundError: there is no such folder.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> model = nn.Linear(4, 2)
    >>> save(model, folder.name + "/model.safetensors")
    >>> load(nn.Linear(4, 2), folder.name + "/model.safetensors").weight.equal(model.weight)
    True
    >>> folder.cleanup()
    """
    check_module(model)
    check_sign_seed(sign_seed)
    state = model.state_dict(keep_vars=True)
    keys: dict[str, int] = {}
    if sign_seed is not None:
        known = sign_keys(model, sign_seed)
        seen: set[int] = set()
        for name, tensor in state.items():
            if isinstance(tensor, LogTensor) and id(tensor) in known and id(tensor) not in seen:
                seen.add(id(tensor))
                keys[name] = known[id(tensor)]
                _check_signs(name, tensor, keys[name], sign_seed)
        if not keys:
            raise ValueError(
                f"sign_seed={sign_seed}: the model has no LogTensor of two or more dimensions whose signs could be left"
                " out; wrap it with lognet.wrap(model, sign_seed=...), or save without sign_seed"
            )
    write_file(path, state, keys, describe_quantizers(model))


def load(model: nn.Module, path: str | os.PathLike[str]) -> nn.Module:
    """Load a file of `save` into a model, in place, and return the model.

    The model must be built and wrapped as the saved one was: the same names, shapes, ladders and ties, the same dtypes of
    dense tensors, the same quantizers of activations and gradients (`lognet.set_quantizers`). The dtype that a LogTensor
    reports may differ, because its codes do not depend on it. Codes, scales and masks are taken over exactly, on the
    device of the model. Parameters stay the same objects, so an optimizer keeps them.

    Args:
        model: built and wrapped as the saved one was.
        path: of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, damaged, of another kind or of a newer version; or it does not fit the model,
            and the message lists where. Nothing is changed then.

    >>> import tempfile, lognet
    >>> folder = tempfile.TemporaryDirectory()
    >>> save(lognet.wrap(nn.Linear(4, 2), bits=8), folder.name + "/model.safetensors")
    >>> load(lognet.wrap(nn.Linear(4, 2), bits=10), folder.name + "/model.safetensors")
    Traceback (most recent call last):
    ...
    ValueError: ...: weight has bits=8, base_precision=0.02166 in the file and bits=10, base_precision=0.005415 ...
    >>> folder.cleanup()
    """
    check_module(model)
    (state, quantizers), own = read_file(path), model.state_dict(keep_vars=True)
    missing, unexpected = [name for name in own if name not in state], [name for name in state if name not in own]
    problems = [f"missing from the file: {_listed(missing, ', ')}"] if missing else []
    problems += [f"not in the model: {_listed(unexpected, ', ')}"] if unexpected else []
    differing = _differences(state, own) + _other_quantizers(quantizers, describe_quantizers(model))
    problems += [_listed(differing, "; ")] if differing else []
    if problems:
        raise ValueError(
            f"{os.fspath(path)} does not fit this {type(model).__name__}: {'; '.join(problems)}. Build and lognet.wrap the"
            " model as it was when saved; nothing was changed"
        )
    own.update(state)  # not a new dict: this one knows the versions of the modules, which load_state_dict asks for
    model.load_state_dict(own)
    return model


def _differences(state: dict[str, Tensor], own: dict[str, Tensor]) -> list[str]:
    """Why tensors of a file cannot be loaded into those of the same name in a model, one line each."""
    problems = []
    first: dict[int, str] = {}
    for name in (name for name in own if name in state):
        ours, theirs = own[name], state[name]
        if not isinstance(ours, Tensor):
            problems.append(f"{name} is a tensor in the file and a {type(ours).__name__} in the model")
        elif is_lazy(ours):
            problems.append(f"{name} is not initialised yet in the model: run it once on a sample")
        elif ours.is_meta:
            problems.append(
                f"{name} is on the meta device in the model: materialise it, with model.to_empty(device=...)"
            )
        elif ours.shape != theirs.shape:
            problems.append(f"{name} has shape {tuple(theirs.shape)} in the file and {tuple(ours.shape)} in the model")
        elif isinstance(ours, LogTensor) or isinstance(theirs, LogTensor):
            ladders = [t.format if isinstance(t, LogTensor) else None for t in (theirs, ours)]
            if ladders[0] != ladders[1]:
                there, here = ("no ladder (it is float)" if ladder is None else describe(ladder) for ladder in ladders)
                problems.append(f"{name} has {there} in the file and {here} in the model")
        elif ours.dtype != theirs.dtype:
            problems.append(f"{name} is {theirs.dtype} in the file and {ours.dtype} in the model")
        if isinstance(ours, Tensor):
            tie = first.setdefault(id(ours), name)
            if state[tie] is not theirs:
                problems.append(f"{tie} and {name} are two tensors in the file and one in the model")
    return problems


def _other_quantizers(theirs: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    """Layers whose activations or gradients are in another format in the file than in the model, one line each."""
    problems = []
    for layer in dict.fromkeys([*theirs, *ours]):
        for which in ("activation", "gradient"):
            there, here = (known.get(layer, {}).get(which) for known in (theirs, ours))
            if there != here:
                problems.append(
                    f"the {which} quantizer of {layer or 'the model'} is {there} in the file and {here} in the model"
                )
    return problems


def _listed(items: list[str], separator: str) -> str:
    more = [f"and {len(items) - SHOWN} more"] if len(items) > SHOWN else []
    return separator.join(items[:SHOWN] + more)


def _check_signs(name: str, tensor: LogTensor, key: int, sign_seed: int) -> None:
    flipped = int((random_bools(tensor.numel(), key, tensor.device) != tensor.codes()[1].reshape(-1)).sum())
    if flipped:
        raise ValueError(
            f"the signs of {name} are not those of sign_seed={sign_seed}: {flipped} of {tensor.numel()} differ. Wrap with"
            " lognet.wrap(model, sign_seed=...) and train with frozen signs, Madam(sign_crossing=False); or save"
            " without sign_seed, which keeps one bit a weight"
        )
