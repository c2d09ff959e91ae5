"""Linear layers, and their gradients, of which two products are one dispatch on a GPU."""

from __future__ import annotations

from functools import cache
from heapq import heappop, heappush
from typing import NamedTuple

from trainer.kernels import Choice, MatrixUnits, Question, Tuning
from trainer.ops import column_sum
from trainer.ops.matmul import (
    ENDS,
    IN_PARTS,
    LAUNCH,
    PROCESSORS,
    SHORT_WORK,
    TILES,
    Tile,
    Workgroup,
    grid,
    matmul,
    most_parts,
    own_constants,
    part_of,
    tiles,
)
from trainer.plan import Plan, Tape, Tensor, linear_grid, round_up

NAIVE_THREADS = 64  # of a workgroup of the naive variant, an output each

Tiling = tuple[Tile, int, int]  # a workgroup's outputs, and the parts of the sums for dx and for dweight


class Costs(NamedTuple):
    """What making both products costs beside their work, in columns that one processor multiplies."""

    uneven: float  # the weight of the processor that is done last; the rest has the mean of all
    ends: int  # a workgroup's start and epilogue
    latency: float  # a column takes longer by this / threads, each time that workgroups fill a processor
    in_parts: float  # to write a tile of partial sums and read it again
    launch: int  # the dispatch that adds parts up, in such tiles


# A cost model like that in ops/matmul.py, fitted to times in their places in whole training steps on an H100;
# what is there for linear_units is matmul_units'.
COSTS = {
    "linear_tiled": Costs(uneven=0.91, ends=0, latency=162, in_parts=1.18, launch=240),
    "linear_units": Costs(
        uneven=1.0, ends=ENDS, latency=0, in_parts=IN_PARTS["matmul_units"], launch=LAUNCH["matmul_units"]
    ),
}
SLOWER = {(128, 128): 1.0, (64, 128): 1.06, (64, 64): 1.27}  # how much longer linear_tiled takes in a tile


def linear(
    tape: Tape,
    name: str,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    residual: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """x · weight + bias [+ residual]: (N, K) · (K, M) + (M) → (N, M), into `out` if it is given.

    A sum with a residual is f32, as all of the residual stream.
    """
    N, K = x.shape
    M = weight.shape[1]
    out = out or tape.plan.activation(name, (N, M), "f32" if residual else tape.dtype)
    matmul(tape.plan, x, weight, out, (N, M, K), bias=bias, residual=residual)
    tape.biases[out] = bias

    def backward() -> None:
        if residual is not None:
            tape.share(residual, tape.gradient(out))
        _backward(tape, x, weight, out)

    tape.record(backward)
    return out


def feed_forward(
    tape: Tape,
    x: Tensor,
    fc: tuple[Tensor, Tensor],
    projection: tuple[Tensor, Tensor],
    residual: Tensor,
) -> Tensor:
    """GPT-2's MLP: gelu(x · W + b) · W' + b' + residual, (N, C) → (N, 4C) → (N, C).

    The two products carry GELU and its derivative in their epilogues.
    """
    N, C = x.shape
    wide = fc[0].shape[1]
    before = tape.plan.activation("fc", (N, wide), tape.dtype)
    hidden = tape.plan.activation("gelu", (N, wide), tape.dtype)
    out = tape.plan.activation("mlp", (N, C))
    matmul(tape.plan, x, fc[0], hidden, (N, wide, C), bias=fc[1], gelu_keep=before)
    matmul(tape.plan, hidden, projection[0], out, (N, C, wide), bias=projection[1], residual=residual)
    tape.biases |= {before: fc[1], out: projection[1]}

    def backward() -> None:
        tape.share(residual, tape.gradient(out))
        _backward(tape, hidden, projection[0], out, gelu_of=before)
        _backward(tape, x, fc[0], before)

    tape.record(backward)
    return out


def _backward(tape: Tape, x: Tensor, weight: Tensor, out: Tensor, gelu_of: Tensor | None = None) -> None:
    """The gradients of x · weight + bias = out, that of the bias where nothing has made it yet. Where x
    is GELU of something, that gets the gradient in its place, and so does the bias that was added to it.
    """
    dout = tape.gradient(out)
    if bias := tape.biases.pop(out, None):
        column_sum.column_sum(tape, dout, bias)
    dweight, add_weight = tape.target(weight)
    dx, add_x = tape.target(gelu_of or x)
    size = (x.shape[0], x.shape[1], weight.shape[1])
    bias_of_x = tape.biases.pop(gelu_of, None) if gelu_of else None
    gradients(
        tape.plan,
        dout,
        weight,
        x,
        dx,
        dweight,
        size,
        gelu_of=gelu_of,
        add_x=add_x,
        add_weight=add_weight,
        of_bias=bias_of_x and column_sum.partials(tape, bias_of_x, x.shape[0]),
    )


def gradients(
    plan: Plan,
    dout: Tensor,
    weight: Tensor,
    x: Tensor,
    dx: Tensor,
    dweight: Tensor,
    size: tuple[int, int, int],
    *,
    stride: int = 0,
    table: bool = False,
    gelu_of: Tensor | None = None,
    add_x: bool = False,
    add_weight: bool = False,
    of_bias: column_sum.Partials | None = None,
) -> None:
    """dx = dout · weightᵀ [· gelu'(gelu_of)] [+ dx] and dweight = xᵀ · dout [+ dweight], with `size` = (N,
    inputs, outputs): dout (N, outputs), whose rows are `stride` apart, weight (inputs, outputs), x (N,
    inputs). If it is a `table`, the weight is stored as (outputs, inputs), and so is its gradient. Sums over
    the rows of dx go to `of_bias`, if that is given.

    One dispatch on GPUs that have a kernel for it, two elsewhere.
    """
    N, inputs, outputs = size
    stride = stride or outputs
    if plan.tuning.software:
        gradient_of_weight(plan, dout, x, dweight, size, stride=stride, table=table, add=add_weight)
        gradient_of_x(plan, dout, weight, dx, size, stride=stride, table=table, gelu_of=gelu_of, add=add_x)
        if of_bias:
            column_sum.partial(plan, dx, of_bias)
        return

    extras = {"add_x": add_x, "add_weight": add_weight, "of_bias": of_bias}
    words = [
        f"{N}x{inputs}x{outputs}",
        *([f"/{stride}"] if stride != outputs else []),
        *(["table"] if table else []),
        *(tensor.dtype for tensor in (dout, weight, x, dx, dweight)),
        *([f"gelu_of:{gelu_of.dtype}"] if gelu_of else []),
        *(name for name, wanted in extras.items() if wanted),
    ]
    half = dout.dtype == weight.dtype == x.dtype == "f16"
    fits = fitting(N, inputs, outputs, stride, half=half)
    question = Question(
        "linear",
        " ".join(words),
        candidates(plan.tuning, size, fits, table=table, split_x=gelu_of is None),
        work=4.0 * N * inputs * outputs,
    )

    def backward(plan: Plan, choice: Choice) -> None:
        tile = (choice.constants["TILE_M"], choice.constants["TILE_N"])
        parts_x = -(-outputs // choice.constants["PART_X"])
        parts_weight = -(-N // choice.constants["PART_WEIGHT"])
        workgroups = workgroups_of(choice.variant, size, (tile, parts_x, parts_weight), table=table)
        sums_x, sums_weight = (
            plan.activation("partial_products", (parts, out.size)) if parts > 1 else None
            for parts, out in ((parts_x, dx), (parts_weight, dweight))
        )
        rows = column_sum.parts(N)[1]
        fused = of_bias and not sums_x and sums_rows(choice.variant, size, tile, rows, of_bias.width)
        summed = of_bias if fused else None
        plan.dispatch(
            "linear.backward",
            variant=choice.variant,
            grid=linear_grid(sum(workgroups)),
            constants={
                "N": N,
                "INPUTS": inputs,
                "OUTPUTS": outputs,
                "LD": stride,
                "TABLE": table,
                "GELU_BACKWARD": gelu_of is not None,
                "ADD_X": add_x and not sums_x,
                "ADD_WEIGHT": add_weight and not sums_weight,
                "SHORT": question.work < SHORT_WORK,
                "ROWS": rows,
                **column_sum.beside(summed),
                **choice.constants,
                **own_constants(choice.variant, plan.tuning.units),
            },
            dout=dout,
            weight=weight,
            x=x,
            before=gelu_of,
            dx=sums_x or dx,
            dweight=sums_weight or dweight,
            sums=summed and summed.sums,
        )
        for sums, out, add in ((sums_weight, dweight, add_weight), (sums_x, dx, add_x)):
            if sums:
                column_sum.total(plan, sums, out, add=add)
        if of_bias and not summed:
            column_sum.partial(plan, dx, of_bias)

    plan.ask(question, backward)


def sums_rows(variant: str, size: tuple[int, int, int], tile: Tile, rows: int, width: int) -> bool:
    """Whether a variant in this tile can sum up each so many `rows` of dx, in `width` columns of sums: those
    behind the inputs become 0. A tile's sums lie in the workgroup's memory in linear_tiled.
    """
    N, inputs, _ = size
    if variant == "linear":
        return N % rows == 0
    held = variant != "linear_tiled" or (rows <= 64 and tile[1] <= 128)
    return N % tile[0] == tile[0] % rows == 0 and width <= round_up(inputs, tile[1]) and held


def gradient_of_x(
    plan: Plan,
    dout: Tensor,
    weight: Tensor,
    dx: Tensor,
    size: tuple[int, int, int],
    *,
    stride: int,
    table: bool = False,
    gelu_of: Tensor | None = None,
    add: bool = False,
) -> None:
    """dx alone, as of `gradients`."""
    _, inputs, outputs = size
    strides = (stride, inputs if table else outputs, inputs)
    matmul(plan, dout, weight, dx, size, transpose_b=not table, strides=strides, gelu_of=gelu_of, add=add)


def gradient_of_weight(
    plan: Plan,
    dout: Tensor,
    x: Tensor,
    dweight: Tensor,
    size: tuple[int, int, int],
    *,
    stride: int,
    table: bool = False,
    add: bool = False,
) -> None:
    """dweight alone, as of `gradients`."""
    N, inputs, outputs = size
    a, b = (dout, x) if table else (x, dout)
    product = (outputs, inputs, N) if table else (inputs, outputs, N)
    strides = (stride, inputs, inputs) if table else (inputs, stride, outputs)
    matmul(plan, a, b, dweight, product, transpose_a=True, strides=strides, add=add)


def fitting(N: int, inputs: int, outputs: int, stride: int, *, half: bool = False) -> dict[str, bool]:
    """Which variants can compute this shape; `half` says that dout, weight and x are f16."""
    widths = (inputs, outputs, stride)
    return {
        "linear_units": half and N >= 8 and not any(n % 8 for n in widths),
        "linear_tiled": N >= 4 and not any(n % 4 for n in widths),
    }


def candidates(
    tuning: Tuning, size: tuple[int, int, int], fits: dict[str, bool], *, table: bool, split_x: bool
) -> tuple[Choice, ...]:
    """All ways to make both gradients that are worth a try: the best variant in its best tiling first."""
    N, _, outputs = size
    return tuple(
        Choice(
            variant,
            {
                "TILE_M": tile[0],
                "TILE_N": tile[1],
                "PART_X": part_of(outputs, parts_x),
                "PART_WEIGHT": part_of(N, parts_weight),
            },
        )
        for variant in tuning.variants("linear", fits)
        for tile, parts_x, parts_weight in tilings(variant, size, tuning.units, table=table, split_x=split_x)
    )


def workgroups_of(
    variant: str, size: tuple[int, int, int], tiling: Tiling, *, table: bool
) -> tuple[int, int]:
    """Workgroups that make dx, and those that make dweight."""
    N, inputs, outputs = size
    tile, parts_x, parts_weight = tiling
    if variant == "linear":
        return -(-(N * inputs + inputs * outputs) // NAIVE_THREADS), 0
    columns_x, rows_x, _ = grid(N, inputs, tile)
    columns_weight, rows_weight, _ = grid(*((outputs, inputs) if table else (inputs, outputs)), tile)
    return columns_x * rows_x * parts_x, columns_weight * rows_weight * parts_weight


def tiled(variant: str, units: MatrixUnits) -> dict[Tile, Workgroup]:
    """A variant's tiles, and how an H100 runs workgroups that make them."""
    if variant == "linear_units":
        of_units = tiles("matmul_units", units).items()
        return {tile: Workgroup(slower, threads=4 * units.lanes, held=2) for tile, slower in of_units}
    return {tile: TILES[tile]._replace(slower=slower) for tile, slower in SLOWER.items()}


@cache
def tilings(
    variant: str, size: tuple[int, int, int], units: MatrixUnits, *, table: bool, split_x: bool
) -> list[Tiling]:
    """That with which a large GPU should be done first, then others. With `split_x`, the sums for dx may be
    made in parts, too.
    """
    N, inputs, outputs = size
    if variant == "linear":
        return [((1, NAIVE_THREADS), 1, 1)]
    most_x = most_parts(N, inputs, outputs) if split_x else 1
    most_weight = most_parts(inputs, outputs, N)
    of_tiles, costs = tiled(variant, units), COSTS[variant]

    def cost(tiling: Tiling) -> float:
        """When the last processor is done, in columns that it multiplies; some weight has when it would be if
        all were done at once. Latencies and adding up parts come on top.
        """
        tile, parts_x, parts_weight = tiling
        workgroup = of_tiles[tile]
        of_x, of_weight = workgroups_of(variant, size, tiling, table=table)
        columns_x, columns_weight = outputs / parts_x + costs.ends, N / parts_weight + costs.ends
        held = PROCESSORS * workgroup.held
        mean = (of_x * columns_x + of_weight * columns_weight) / PROCESSORS
        last = workgroup.held * makespan((of_x, columns_x), (of_weight, columns_weight), held)
        rounds = -(-(of_x + of_weight) // held)
        latencies = rounds * costs.latency / workgroup.threads * mean * PROCESSORS / (of_x + of_weight)
        totals = sum(
            costs.in_parts * (count + costs.launch)
            for count, parts in ((of_x, parts_x), (of_weight, parts_weight))
            if parts > 1
        )
        columns = costs.uneven * last + (1 - costs.uneven) * mean + latencies + totals
        return columns * tile[0] * tile[1] * workgroup.slower

    parts = [(x, weight) for x in range(1, most_x + 1) for weight in range(1, most_weight + 1)]
    best = [min(((tile, *some) for some in parts), key=cost) for tile in of_tiles]
    more = [
        (tile, x, n)
        for tile, x, weight in best
        for n in (weight // 2, weight, 2 * weight)
        if 1 <= n <= most_weight
    ]
    return sorted(more, key=cost)


def makespan(first: tuple[int, float], then: tuple[int, float], workers: int) -> float:
    """When the last of some jobs is done, if workers take them up in their order, each when it is idle:
    `first` and `then` say how many there are, and how long each takes.
    """
    count, length = first
    rounds, more = divmod(count, workers)
    idle = [(rounds * length, workers - more), ((rounds + 1) * length, more)]  # when, and how many workers
    end = (rounds + bool(more)) * length
    count, length = then
    while count:
        start, some = heappop(idle)
        taken = min(some, count)
        heappush(idle, (start + length, taken))
        count -= taken
        end = max(end, start + length if taken else 0)
    return end
