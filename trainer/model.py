"""GPT-2 as a plan: parameters in flat arenas, and the programs that initialise, train, evaluate and generate.

init            weights from the seed
micro           one micro-batch: windows, forward, loss, backward; gradients are written
micro_add       the same for the step's further micro-batches; gradients are added
update          gradient norm, clip, AdamW, the ring buffer's row
halve           f16 copies of all matrices: after weights were made or loaded, in mixed precision
evaluate        losses of `model.evaluation.inputs` against its targets, and which targets came first
prefill         keys and values of a prompt into the cache
decode          one more token: embed, attend to the cache, choose

In mixed precision, the micro-batches compute with f16 copies of the matrices, which AdamW writes beside the
f32 weights, and store activations and their gradients in f16. In f32 stay the residual stream, which many
small terms are added to, the gradients of weights, the optimiser, and evaluation and generation: what they
say is of the weights that a checkpoint holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from trainer.config import AUTO, ModelConfig, TrainConfig
from trainer.errors import DeviceError
from trainer.gpt2_format import EMBEDDING, parameter_shapes
from trainer.kernels import HALF, Tuning, needs
from trainer.ops import column_sum, random, sampling
from trainer.ops.adamw import FIRST_LOSS_SCALE, Piece, StepState, adamw
from trainer.ops.attention import attention, attention_one
from trainer.ops.cast import cast
from trainer.ops.cross_entropy import head_logits, head_loss, mean_loss
from trainer.ops.embedding import embedding, embedding_one
from trainer.ops.layernorm import layernorm
from trainer.ops.linear import feed_forward, linear
from trainer.ops.sampling import Sampler
from trainer.plan import MAX_BUFFER, SPACING, Plan, Tape, Tensor, binding_pieces, round_up

RING = 256  # steps whose losses the GPU keeps until they are read
ARENAS = ("parameter", "gradient", "mean", "variance")
GENERATION = ("prefill", "decode")  # the programs that write text


@dataclass(frozen=True)
class Evaluation:
    """What the host writes and reads to evaluate: a batch of windows, the loss of each position, and whether
    its target had the largest logit.
    """

    inputs: Tensor  # u32 (B, T)
    targets: Tensor  # u32 (B·T)
    losses: Tensor  # f32 (B·T), nats
    hits: Tensor  # u32 (B·T), 1 or 0


@dataclass(frozen=True)
class Training:
    """What a training run holds beside the parameters."""

    config: TrainConfig
    dataset: list[Tensor]  # u32, two tokens in each
    tokens: int  # of the dataset
    state: StepState
    gradients: dict[str, Tensor]
    means: dict[str, Tensor]
    variances: dict[str, Tensor]


@dataclass(frozen=True)
class Model:
    """A plan and the tensors that a host talks to. Parameters have the names of GPT2LMHeadModel's."""

    config: ModelConfig
    plan: Plan
    parameters: dict[str, Tensor]
    training: Training | None
    evaluation: Evaluation | None
    sampler: Sampler | None


def build(
    config: ModelConfig,
    *,
    train: TrainConfig | None = None,
    tokens: int = 0,
    evaluation_batch: int = 0,
    generate: bool = False,
    tuning: Tuning | None = None,
    seed: int = 0,
) -> Model:
    """The plan of a model for what is asked for: training on a dataset of `tokens` tokens, evaluation with
    `evaluation_batch` windows at a time, generation. Raises DeviceError where WebGPU's limits forbid it, and
    for mixed precision where the tuning has no f16.
    """
    plan = Plan(tuning)
    train = train and settled(train, plan.tuning)
    mixed = train is not None and train.precision == "mixed"
    if mixed and HALF not in plan.tuning.features:
        raise DeviceError(
            f"mixed precision needs {HALF}, which this device does not give",
            "use precision f32, or another device",
        )
    builder = _Builder(config, plan, training=train is not None, mixed=mixed)
    builder.init(train.seed if train else seed)
    training = builder.train(train, tokens) if train else None
    evaluation = builder.evaluate(evaluation_batch) if evaluation_batch else None
    sampler = builder.generate() if generate else None
    plan.finish()
    return Model(config, plan, builder.parameters, training, evaluation, sampler)


def settled(train: TrainConfig, tuning: Tuning) -> TrainConfig:
    """`train` with the precision that suits a device, where it is to be that: mixed on a GPU with matrix
    units, which multiply f16 alone and several times as fast as the rest multiplies f32.
    """
    if train.precision != AUTO:
        return train
    units = needs("matmul_units").features <= tuning.features and not tuning.software
    return replace(train, precision="mixed" if units else "f32")


class _Builder:
    """Appends the programs of one model to a plan."""

    def __init__(self, config: ModelConfig, plan: Plan, *, training: bool, mixed: bool) -> None:
        self.config = config
        self.plan = plan
        self.loss_scale = plan.tensor("loss_scale", (1,), "f32", "state") if mixed else None
        self.padded_vocab = round_up(config.vocab, 64)  # rows of the table: whole vectors and tiles
        self.arenas = {role: _Arena(plan, role) for role in (ARENAS if training else ARENAS[:1])}
        # Matrices before vectors: weight decay and f16 copies end where the vectors begin.
        shapes = parameter_shapes(config)
        names = sorted(shapes, key=lambda name: len(shapes[name]) == 1)
        self.tables: dict[str, dict[str, Tensor]] = {}
        for role, arena in self.arenas.items():
            layout = {name: self._stored_shape(name, shapes[name]) for name in names}
            self.tables[role] = arena.place(layout)
        self.parameters = {name: self.tables["parameter"][name].rows(0, shapes[name][0]) for name in shapes}
        if mixed:
            self.arenas["copy"] = _Arena(plan, "copy", "f16")
            matrices = {name: t.shape for name, t in self.tables["parameter"].items() if len(t.shape) == 2}
            self.tables["copy"] = self.arenas["copy"].place(matrices)

    def _stored_shape(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (self.padded_vocab, shape[1]) if name == EMBEDDING else shape

    def init(self, seed: int) -> None:
        """GPT-2's initialisation: N(0, 0.02²), residual projections scaled by 1/sqrt(2L), biases 0."""
        arena = self.arenas["parameter"]
        with self.plan.program("init"):
            for segment, matrices in zip(arena.segments, arena.matrices, strict=True):
                if matrices < segment.size:
                    random.fill(self.plan, segment.tail(matrices), 0.0)
            for stream, (name, tensor) in enumerate(self.parameters.items()):
                if len(tensor.shape) == 2:
                    residual = name.endswith("c_proj.weight")
                    std = 0.02 * (2 * self.config.layers) ** -0.5 if residual else 0.02
                    random.normal(self.plan, tensor, std=std, seed=seed, stream=stream)
                elif name.endswith("weight"):
                    random.fill(self.plan, tensor, 1.0)
            if self.loss_scale:
                random.fill(self.plan, self.loss_scale, FIRST_LOSS_SCALE)

    # ---------------------------------------------------------------- forward

    def weight(self, tape: Tape, name: str) -> Tensor:
        """The parameter called `name`, or its copy in what the tape's products take."""
        copies = self.tables["copy"] if tape.dtype == "f16" else {}
        return copies.get(name, self.tables["parameter"][name])

    def layer(self, tape: Tape, i: int, part: str) -> tuple[Tensor, Tensor]:
        """Weight and bias of a part of block `i`."""
        name = f"transformer.h.{i}.{part}"
        return self.weight(tape, f"{name}.weight"), self.weight(tape, f"{name}.bias")

    def embed(self, tape: Tape, tokens: Tensor) -> Tensor:
        table = self.tables["parameter"]
        return embedding(tape, tokens, table[EMBEDDING], table["transformer.wpe.weight"])

    def query_key_value(self, tape: Tape, i: int, x: Tensor, out: Tensor | None = None) -> Tensor:
        """LayerNorm and the projection to q, k and v of block `i`: (N, C) → (N, 3C)."""
        normed = layernorm(tape, "ln_1", x, *self.layer(tape, i, "ln_1"))
        return linear(tape, "qkv", normed, *self.layer(tape, i, "attn.c_attn"), out=out)

    def rest_of_block(self, tape: Tape, i: int, x: Tensor, attended: Tensor) -> Tensor:
        """Block `i` from attention's result on: (N, C) → (N, C)."""
        x = linear(tape, "residual", attended, *self.layer(tape, i, "attn.c_proj"), residual=x)
        normed = layernorm(tape, "ln_2", x, *self.layer(tape, i, "ln_2"))
        fc, projection = self.layer(tape, i, "mlp.c_fc"), self.layer(tape, i, "mlp.c_proj")
        return feed_forward(tape, normed, fc, projection, x)

    def blocks(self, tape: Tape, x: Tensor, attend: Callable[[int, Tensor], Tensor]) -> Tensor:
        """All blocks and the last LayerNorm; `attend(i, x)` is attention of block `i`, (N, C) → (N, C)."""
        for i in range(self.config.layers):
            x = self.rest_of_block(tape, i, x, attend(i, x))
        table = self.tables["parameter"]
        return layernorm(tape, "ln_f", x, table["transformer.ln_f.weight"], table["transformer.ln_f.bias"])

    def loss(
        self,
        tape: Tape,
        inputs: Tensor,
        targets: Tensor,
        losses: Tensor,
        scale: float,
        hits: Tensor | None = None,
    ) -> None:
        """Loss of each position of `inputs` (B, T), and whether its target is a hit; in training, `scale`
        times its gradient too.
        """
        shape = (*inputs.shape, self.config.heads)

        def attend(i: int, x: Tensor) -> Tensor:
            return attention(tape, self.query_key_value(tape, i, x), (shape[0], shape[1], shape[2]))

        x = self.blocks(tape, self.embed(tape, inputs), attend)
        head_loss(
            tape,
            x,
            self.weight(tape, EMBEDDING),
            targets,
            losses,
            vocab=self.config.vocab,
            scale=scale,
            loss_scale=self.loss_scale if tape.training else None,
            hits=hits,
        )

    # ---------------------------------------------------------------- programs

    def train(self, train: TrainConfig, tokens: int) -> Training:
        plan, T = self.plan, self.config.context
        state = StepState(
            plan.tensor("counters", (4,), "u32", "state"),
            plan.tensor("scalars", (7,), "f32", "state"),
            plan.tensor("schedule", (train.steps, 4), "f32", "state"),
            plan.tensor("ring", (RING, 4), "f32", "state"),
            self.loss_scale,
            plan.tensor("streak", (1,), "u32", "state") if self.loss_scale else None,
        )
        dataset = [
            plan.tensor(f"dataset.{i}", (-(-count // 2),), "u32", "state")
            for i, (_, _, count) in enumerate(random.dataset_parts(tokens, T))
        ]
        rows = train.batch * T
        scale = 1 / (rows * train.accumulate)
        vectors = {name: t for name, t in self.tables["gradient"].items() if len(t.shape) == 1}
        for name, accumulate in (("micro", False), ("micro_add", True)):
            if accumulate and train.accumulate == 1:
                continue
            with plan.program(name) as program:
                tape = Tape(
                    plan,
                    training=True,
                    accumulate=accumulate,
                    dtype="f16" if self.loss_scale else "f32",
                    vectors=column_sum.stretches(vectors, rows),
                )
                for role in ("parameter", "copy"):
                    for parameter, tensor in self.tables.get(role, {}).items():
                        tape.known(tensor, self.tables["gradient"][parameter])
                inputs, targets = random.windows(
                    plan, dataset, tokens, state.counters, (train.batch, T), train.seed
                )
                losses = plan.activation("losses", (rows,))
                self.loss(tape, inputs, targets, losses, scale)
                mean_loss(plan, losses, state.scalars, state.counters, scale)
                tape.backward()
                column_sum.share_launches(plan, program)
        with plan.program("update"):
            adamw(plan, self.pieces(), state, train)
        if self.loss_scale:
            with plan.program("halve"):
                for piece in self.pieces():
                    if piece.copy:
                        cast(plan, piece.parameter, piece.copy)
        tables = {
            role: {
                name: self.tables[role][name].rows(0, self.parameters[name].shape[0])
                for name in self.parameters
            }
            for role in ARENAS
        }
        return Training(train, dataset, tokens, state, tables["gradient"], tables["mean"], tables["variance"])

    def pieces(self) -> list[Piece]:
        """The arena in stretches that a binding holds."""
        pieces = []
        for segment, matrices in enumerate(self.arenas["parameter"].matrices):
            flat = [binding_pieces(self.arenas[role].segments[segment]) for role in ARENAS]
            for views in zip(*flat, strict=True):
                start, parameter = views[0]
                decayed = max(0, min(matrices - start, parameter.size))
                copy = None
                if "copy" in self.arenas and decayed:
                    copies = self.arenas["copy"].segments[segment]
                    copy = copies.view(f"{copies.name}[flat {start}:]", start, (decayed,))
                pieces.append(Piece(*(view for _, view in views), decayed=decayed, copy=copy))
        return pieces

    def evaluate(self, batch: int) -> Evaluation:
        plan, T = self.plan, self.config.context
        evaluation = Evaluation(
            plan.tensor("evaluation.inputs", (batch, T), "u32", "state"),
            plan.tensor("evaluation.targets", (batch * T,), "u32", "state"),
            plan.tensor("evaluation.losses", (batch * T,), "f32", "state"),
            plan.tensor("evaluation.hits", (batch * T,), "u32", "state"),
        )
        with plan.program("evaluate"):
            tape = Tape(plan, training=False)
            self.loss(tape, evaluation.inputs, evaluation.targets, evaluation.losses, 1.0, evaluation.hits)
        return evaluation

    def generate(self) -> Sampler:
        plan, config = self.plan, self.config
        T, C = config.context, config.width
        sampler = Sampler(
            plan.tensor("sampler.settings", (2,), "f32", "state"),
            plan.tensor("sampler.choices", (2,), "u32", "state"),
            plan.tensor("sampler.cursor", (2,), "u32", "state"),
            plan.tensor("sampler.sequence", (T + 1,), "u32", "state"),
            plan.tensor("sampler.probabilities", (T + 1,), "f32", "state"),
            plan.tensor("sampler.logits", (1, self.padded_vocab), "f32", "state"),
        )
        caches = [plan.tensor(f"cache.{i}", (T, 3 * C), "f32", "state") for i in range(config.layers)]
        with plan.program("prefill"):
            tape = Tape(plan, training=False)
            x = self.embed(tape, sampler.sequence.view("prompt", 0, (1, T)))
            for i in range(config.layers):
                qkv = self.query_key_value(tape, i, x, caches[i])
                if i < config.layers - 1:  # of the last block only keys and values are wanted
                    x = self.rest_of_block(tape, i, x, attention(tape, qkv, (1, T, config.heads)))
        with plan.program("decode"):
            tape = Tape(plan, training=False)
            table = self.tables["parameter"]

            def attend(i: int, x: Tensor) -> Tensor:
                row = self.query_key_value(tape, i, x)
                return attention_one(plan, row, caches[i], sampler.cursor, config.heads)

            x = embedding_one(
                plan, sampler.sequence, sampler.cursor, table[EMBEDDING], table["transformer.wpe.weight"]
            )
            head_logits(plan, self.blocks(tape, x, attend), table[EMBEDDING], sampler.logits)
            sampling.choose(plan, config.vocab, sampler)
        return sampler


class _Arena:
    """Tensors laid out one after another in as few flat tensors ("segments") as buffers allow."""

    def __init__(self, plan: Plan, role: str, dtype: str = "f32") -> None:
        self.plan = plan
        self.role = role
        self.dtype = dtype
        self.segments: list[Tensor] = []
        self.matrices: list[int] = []  # elements of each segment, from the first on, that are matrices'

    def place(self, layout: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
        """Name → view; `layout` names matrices before vectors, and a segment holds a module's vectors, which
        one dispatch writes, all or none. All dtypes have the same segments.
        """
        groups: list[list[str]] = []
        sizes: list[int] = []
        starts: dict[str, int] = {}
        for module in column_sum.modules(layout):
            rounded = {name: round_up(Tensor(name, layout[name]).size, SPACING) for name in module}
            if not groups or 4 * (sizes[-1] + sum(rounded.values())) > MAX_BUFFER:
                groups.append([])
                sizes.append(0)
                self.matrices.append(0)
            for name, size in rounded.items():
                groups[-1].append(name)
                starts[name] = sizes[-1]
                sizes[-1] += size
                if len(layout[name]) > 1:
                    self.matrices[-1] = sizes[-1]
        views = {}
        for i, (names, size) in enumerate(zip(groups, sizes, strict=True)):
            segment = self.plan.tensor(f"arena.{self.role}.{i}", (size,), self.dtype, self.role)
            self.segments.append(segment)
            for name in names:
                views[name] = segment.view(f"{self.role}.{name}", starts[name], layout[name])
        return views
