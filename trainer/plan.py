"""A plan: tensors, and lists of kernel dispatches over them. Python plans, the GPU computes.

A plan is data. It is built once from a configuration, with the standard library alone, and a device then
compiles and replays it; nothing in it changes while training. It holds several *programs* (a training
micro-batch, the optimiser's update, evaluation, generation) that share parameters and memory.

    plan = Plan()
    x = plan.tensor("x", (8, 16))
    with plan.program("double"):
        plan.dispatch("scale.forward", grid=(1, 1, 1), constants={"N": 128}, x=x, out=y)
    plan.finish()            # memory is planned: who lives in which buffer

Autodiff happens while the plan is built: every op appends its forward dispatches and leaves behind, on the
`Tape`, the function that appends its backward ones; `Tape.backward()` runs those in reverse.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from trainer.errors import DeviceError
from trainer.kernels import Choice, Constant, Question, Tuning, binding_modes, module

# WebGPU's default limits: every device has at least these, so every plan keeps to them.
MAX_BUFFER = 256 << 20  # bytes
MAX_BINDING = 128 << 20  # bytes
ALIGNMENT = 256  # bytes; where a binding may start
MAX_GRID = 65_535  # workgroups along one dimension
MAX_BINDINGS = 8  # storage buffers of one dispatch

ITEM_SIZE = {"f32": 4, "f16": 2, "u32": 4}  # bytes of an element
SPACING = ALIGNMENT // ITEM_SIZE["f16"]  # elements; where a binding may start in any dtype

Grid = tuple[int, int, int]
Run = Callable[["Plan", Choice], None]  # appends the dispatches of a way to run an op


@dataclass(frozen=True, eq=False)
class Tensor:
    """A named block of memory with a shape, or a view of rows of another tensor.

    `role` says how long it lives: "activation" within one program, everything else ("parameter",
    "gradient", "moment", "state") for as long as the plan.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "f32"  # or "f16", "u32"
    role: str = "activation"
    base: Tensor | None = None  # the tensor that this one is a view of
    offset: int = 0  # elements from the start of `base`

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes, in whole words as WebGPU binds and copies them."""
        return round_up(ITEM_SIZE[self.dtype] * self.size, 4)

    @property
    def start(self) -> int:
        """Bytes from the start of the tensor that owns the memory."""
        return ITEM_SIZE[self.dtype] * self.offset

    @property
    def root(self) -> Tensor:
        """The tensor that owns the memory."""
        return self.base or self

    def holds(self, other: Tensor) -> bool:
        """Whether `other` is a part of this one's memory."""
        start = other.offset - self.offset
        return other.root is self.root and 0 <= start <= self.size - other.size

    def meets(self, other: Tensor) -> bool:
        """Whether the two have memory in common."""
        apart = self.offset - other.offset
        return other.root is self.root and -self.size < apart < other.size

    def rows(self, start: int, stop: int) -> Tensor:
        """A view of `self[start:stop]`. It can be bound if it starts at a multiple of 256 bytes."""
        if (start, stop) == (0, self.shape[0]):
            return self
        row = self.size // self.shape[0]
        return self.view(f"{self.name}[{start}:{stop}]", start * row, (stop - start, *self.shape[1:]))

    def tail(self, start: int) -> Tensor:
        """A flat view from element `start` on: a matrix without its first columns, under its row stride."""
        return self.view(f"{self.name}[flat {start}:]", start, (self.size - start,)) if start else self

    def view(self, name: str, start: int, shape: tuple[int, ...]) -> Tensor:
        """The elements from `start` on, seen with another shape."""
        return Tensor(name, shape, self.dtype, self.role, self.root, self.offset + start)


@dataclass(frozen=True)
class Dispatch:
    """One kernel launch. `kernel` is "<op>.<entry point>", `variant` the shader file that implements it."""

    kernel: str
    variant: str
    constants: dict[str, Constant]
    bindings: dict[str, Tensor]
    grid: Grid

    @property
    def entry(self) -> str:
        """The kernel's entry point."""
        return self.kernel.split(".")[1]

    @property
    def code(self) -> str:
        """The kernel's WGSL module."""
        dtypes = {name: tensor.dtype for name, tensor in self.bindings.items()}
        return module(self.variant, self.entry, self.constants, dtypes)


@dataclass
class Asked:
    """A question that a program asked, and by the name of each part of its op (forward, backward), what
    appends it: once for each time.
    """

    question: Question
    runs: dict[str, list[Run]] = field(default_factory=dict)


@dataclass
class Program:
    """An ordered list of dispatches that runs as a whole."""

    name: str
    dispatches: list[Dispatch] = field(default_factory=list)
    asked: dict[str, Asked] = field(default_factory=dict)  # by the question's key


@dataclass(frozen=True)
class Place:
    """Where a tensor's memory is: a buffer of the plan, and bytes from its start."""

    buffer: int
    offset: int


class Plan:
    """Tensors, programs, and (after `finish`) buffers: `buffers[i]` is a size in bytes."""

    def __init__(self, tuning: Tuning | None = None) -> None:
        self.tuning = tuning or Tuning()
        self.tensors: dict[str, Tensor] = {}
        self.programs: dict[str, Program] = {}
        self.buffers: list[int] = []
        self.places: dict[Tensor, Place] = {}
        self._program: Program | None = None

    # ---------------------------------------------------------------- building

    def tensor(
        self, name: str, shape: tuple[int, ...], dtype: str = "f32", role: str = "activation"
    ) -> Tensor:
        """A new tensor. Raises DeviceError when it is larger than any WebGPU buffer."""
        if name in self.tensors:
            raise ValueError(f"tensor {name} exists already")
        tensor = Tensor(name, shape, dtype, role)
        if tensor.nbytes > MAX_BUFFER:
            raise DeviceError(
                f"{name} {list(shape)} takes {tensor.nbytes / 2**20:,.0f} MiB, over a buffer's 256 MiB",
                "choose a smaller batch, width, context or vocabulary",
            )
        self.tensors[name] = tensor
        return tensor

    def activation(self, name: str, shape: tuple[int, ...], dtype: str = "f32") -> Tensor:
        """A tensor that lives within the current program, whose name it carries."""
        assert self._program is not None
        unique = f"{self._program.name}/{name}"
        if unique in self.tensors:
            unique = f"{unique}#{len(self.tensors)}"
        return self.tensor(unique, shape, dtype)

    @contextmanager
    def program(self, name: str) -> Iterator[Program]:
        """Dispatches inside this context belong to the program `name`."""
        if self._program is not None or name in self.programs:
            raise ValueError(f"program {name} is nested or exists already")
        self._program = self.programs[name] = Program(name)
        try:
            yield self._program
        finally:
            self._program = None

    def dispatch(
        self,
        kernel: str,
        *,
        grid: Grid,
        constants: Mapping[str, Constant],
        variant: str = "",
        **bindings: Tensor | None,
    ) -> None:
        """Append one launch of `kernel`. A binding of None is one that these constants leave unused."""
        assert self._program is not None, "dispatches belong inside `with plan.program(...)`"
        variant = variant or kernel.split(".")[0]
        modes = binding_modes(variant, kernel.split(".")[1])
        if set(modes) != set(bindings):
            raise ValueError(f"{kernel} ({variant}) binds {sorted(modes)}, not {sorted(bindings)}")
        if len(bindings) > MAX_BINDINGS:
            raise ValueError(f"{kernel} binds {len(bindings)} buffers, over WebGPU's {MAX_BINDINGS}")
        if min(grid) < 1:
            raise ValueError(f"{kernel} has a grid of {grid}")
        if max(grid) > MAX_GRID:
            raise DeviceError(
                f"{kernel} takes {max(grid):,} workgroups in a row, over WebGPU's {MAX_GRID:,}",
                "choose a smaller batch (more --accumulate keeps the step's size) or context",
            )
        bound: dict[str, Tensor] = {}
        for name, tensor in bindings.items():
            tensor = tensor or self._unused(name, modes[name])
            if tensor.nbytes > MAX_BINDING:
                raise DeviceError(
                    f"{tensor.name} of shape {list(tensor.shape)} takes {tensor.nbytes / 2**20:,.0f} MiB, "
                    "over a binding's 128 MiB",
                    "choose a smaller batch (more --accumulate keeps the step's size), width or context",
                )
            if tensor.start % ALIGNMENT:
                raise ValueError(f"{kernel} binds {tensor.name} at an unaligned offset")
            bound[name] = tensor
        self._program.dispatches.append(Dispatch(kernel, variant, dict(constants), bound, grid))

    def ask(self, question: Question, run: Run) -> None:
        """Append what `run` does for the way to run an op that the tuning chooses. `run` appends to the plan
        that it is given, which may be another one: so all ways can be tried (trainer/tune.py).
        """
        assert self._program is not None, "questions belong inside `with plan.program(...)`"
        asked = self._program.asked.setdefault(question.key, Asked(question))
        asked.runs.setdefault(run.__name__, []).append(run)
        run(self, self.tuning.choose(question))

    def _unused(self, binding: str, mode: str) -> Tensor:
        name = f"unused.{binding}.{mode}"
        return self.tensors.get(name) or self.tensor(name, (ALIGNMENT // 4,), role="state")

    # ---------------------------------------------------------------- memory

    def finish(self) -> None:
        """Give every tensor that has no place yet a buffer. Activations share: a buffer is used again once
        the last dispatch that touches its tensor is past, and programs share among themselves, because
        nothing of an activation outlives its program. One dispatch never finds two of its tensors in one
        buffer, since WebGPU forbids reading and writing a buffer at once.
        """
        for tensor in self.tensors.values():
            if tensor.role != "activation" and tensor not in self.places:
                self.places[tensor] = Place(len(self.buffers), 0)
                self.buffers.append(round_up(tensor.nbytes, ALIGNMENT))
        pool: list[int] = []
        for program in self.programs.values():
            self._place_activations(program, pool)

    def _place_activations(self, program: Program, pool: list[int]) -> None:
        births: dict[Tensor, int] = {}
        deaths: dict[Tensor, int] = {}
        for i, dispatch in enumerate(program.dispatches):
            for tensor in dispatch.bindings.values():
                if tensor.root.role == "activation":
                    births.setdefault(tensor.root, i)
                    deaths[tensor.root] = i
        free, in_use = list(pool), dict[Tensor, int]()
        for i in range(len(program.dispatches)):
            for tensor in [t for t in in_use if deaths[t] < i]:
                free.append(in_use.pop(tensor))
            for tensor in (t for t in program.dispatches[i].bindings.values() if births.get(t.root) == i):
                if tensor.root in in_use:
                    continue
                size = round_up(tensor.root.nbytes, ALIGNMENT)
                in_use[tensor.root] = buffer = self._take(size, free, pool)
                self.places[tensor.root] = Place(buffer, 0)

    def _take(self, size: int, free: list[int], pool: list[int]) -> int:
        """The best-fitting free buffer: the smallest that is large enough, else the largest, made larger."""
        enough = [b for b in free if self.buffers[b] >= size]
        if enough:
            buffer = min(enough, key=lambda b: (self.buffers[b], b))
        elif free:
            buffer = max(free, key=lambda b: (self.buffers[b], -b))
            self.buffers[buffer] = size
        else:
            buffer = len(self.buffers)
            self.buffers.append(size)
            pool.append(buffer)
            return buffer
        free.remove(buffer)
        return buffer

    def place(self, tensor: Tensor) -> tuple[int, int, int]:
        """(buffer, offset, size) of a tensor or view, in bytes."""
        place = self.places[tensor.root]
        return place.buffer, place.offset + tensor.start, tensor.nbytes

    @property
    def nbytes(self) -> int:
        """Device memory that the plan takes."""
        return sum(self.buffers)


class Tape:
    """Remembers, while a program's forward part is built, how to build its backward part.

    `accumulate` says that parameter gradients are added to what earlier micro-batches left. `dtype` is what
    ops store activations and their gradients as, all but the residual stream. `vectors` are the stretches of
    memory that hold gradients of vectors and nothing else (see ops/column_sum.py). `biases` are, by the
    tensor that each was added to, those whose gradient is still to be made: Σ over the rows of the tensor's.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        training: bool,
        accumulate: bool = False,
        dtype: str = "f32",
        vectors: Iterable[Tensor] = (),
    ) -> None:
        self.plan = plan
        self.training = training
        self.accumulate = accumulate
        self.dtype = dtype
        self.vectors = tuple(vectors)
        self.partial_sums: dict[Tensor, Tensor] = {}  # of each stretch (S): (parts, S)
        self.biases: dict[Tensor, Tensor] = {}
        self._steps: list[Callable[[], None]] = []
        self._endings: list[Callable[[], None]] = []
        self._gradients: dict[Tensor, Tensor] = {}
        self._written: set[Tensor] = set()
        self._complete: set[Tensor] = set()

    def record(self, backward: Callable[[], None]) -> None:
        """Leave behind the function that appends an op's backward dispatches."""
        if self.training:
            self._steps.append(backward)

    def backward(self) -> None:
        """Append every op's backward dispatches, the last op's first."""
        for step in reversed(self._steps):
            step()
        for ending in self._endings:
            ending()

    def at_end(self, ending: Callable[[], None]) -> None:
        """Leave a function that appends dispatches behind those of all ops."""
        self._endings.append(ending)

    def known(self, tensor: Tensor, gradient: Tensor) -> None:
        """Tell where the gradient of `tensor` is (or, for a parameter, where it goes)."""
        self._gradients[tensor] = gradient

    def gradient(self, tensor: Tensor) -> Tensor:
        """The finished gradient of `tensor`, to read in its producer's backward part."""
        return self._gradients[tensor]

    def target(self, tensor: Tensor, *, last: bool = False) -> tuple[Tensor, bool]:
        """Where to write the gradient of `tensor`, and whether to add to what is there. The `last` op to
        ask may use the sum at once: any other one after it meets an AssertionError.
        """
        assert tensor not in self._complete, f"the gradient of {tensor.name} has been used already"
        if last:
            self._complete.add(tensor)
        if tensor not in self._gradients:
            name = f"d{tensor.name.split('/')[-1]}"
            self._gradients[tensor] = self.plan.activation(name, tensor.shape, self.dtype)
        gradient = self._gradients[tensor]
        add = gradient in self._written or (self.accumulate and gradient.role == "gradient")
        self._written.add(gradient)
        return gradient, add

    def share(self, tensor: Tensor, gradient: Tensor) -> None:
        """`tensor` has the gradient of the sum that it is a part of: the same memory serves both."""
        if tensor in self._gradients:
            raise ValueError(f"{tensor.name} has a gradient already")
        self._gradients[tensor] = gradient
        self._written.add(gradient)


def binding_pieces(tensor: Tensor) -> Iterator[tuple[int, Tensor]]:
    """(first element, flat view) of stretches of `tensor` that a binding can hold, also were it f32."""
    most = MAX_BINDING // 4
    for start in range(0, tensor.size, most):
        size = min(most, tensor.size - start)
        yield start, tensor.view(f"{tensor.name}[flat {start}:{start + size}]", start, (size,))


def linear_grid(workgroups: int) -> Grid:
    """A grid of at least `workgroups`, folded into two dimensions where one is too short.

    The kernel's workgroup number is `id.y * MAX_GRID + id.x` of `@builtin(workgroup_id)`.
    """
    if workgroups <= MAX_GRID:
        return workgroups, 1, 1
    return MAX_GRID, -(-workgroups // MAX_GRID), 1


def round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple
