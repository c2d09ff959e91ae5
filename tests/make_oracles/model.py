"""Make tests/fixtures/model: what PyTorch and `transformers` say of a small GPT-2, for tests/test_model.py.

python -m tests.make_oracles      (needs the `oracles` extra: torch and transformers)

    checkpoint/           random weights, as our `checkpoint.save` wrote and `transformers` loaded them
    oracle.json           settings, learning rates, tokens, losses, norms, generated tokens
    oracle.safetensors    logits, gradients, weights after ten steps
    gpt2/                 config.json of a GPT-2 with the real vocabulary and context, as `transformers`
                          wrote it, and what it makes of the weights of make_oracles/formula.py

Everything is computed in float64, from weights that float32 holds exactly.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
from transformers import GPT2Config, GPT2LMHeadModel

from tests.make_oracles import formula
from trainer import checkpoint
from trainer.config import ModelConfig
from trainer.gpt2_format import parameter_shapes
from trainer.safetensors import TensorData

FOLDER = Path(__file__).parent.parent / "fixtures" / "model"

# Odd on purpose: 67 tokens are no multiple of any tile, and a table of 67 rows is padded to 128.
MODEL = ModelConfig(layers=2, width=24, heads=3, context=16, vocab=67)
SCHEDULE = {"steps": 10, "warmup": 3, "learning_rate": 3e-3, "min_learning_rate": 0.1}
# An epsilon far above 1e-8 makes a mistake in its place visible. It also keeps AdamW from blowing up rounding
# errors: the gradient of the keys' bias is exactly 0 in theory (softmax ignores what is added to all scores),
# and with 1e-8 its rounding errors would come out as steps of full length.
OPTIMISER = {"beta1": 0.9, "beta2": 0.95, "epsilon": 1e-4, "weight_decay": 0.1, "clip": 1.0}
# Runs of ten steps. `tokens` of the dataset: with context + 1 it is one window, and every batch is copies of
# it. The longer one gives other windows in every row, micro-batch and step.
RUNS: dict[str, dict[str, int]] = {
    "fixed": {"tokens": MODEL.context + 1, "batch": 2, "accumulate": 1, "seed": 1},
    "sampled": {"tokens": 200, "batch": 5, "accumulate": 2, "seed": 3_000_000_007},
}
PROMPTS = (1, 5, MODEL.context)  # lengths


def main() -> None:
    torch.manual_seed(1337)
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    save_checkpoint(FOLDER / "checkpoint")

    corpus = torch.randint(MODEL.vocab, (max(run["tokens"] for run in RUNS.values()),)).tolist()
    windows = [corpus[i : i + MODEL.context + 1] for i in (0, 50, 100)]
    logits = load()(torch.tensor(windows)[:, :-1]).logits.detach()
    losses = cross_entropy(logits.transpose(1, 2), torch.tensor(windows)[:, 1:], reduction="none")
    tensors = {"logits": logits, "losses": losses}
    notes: dict[str, Any] = {
        "made_with": {"torch": torch.__version__, "transformers": transformers.__version__},
        "optimiser": {**OPTIMISER, **SCHEDULE},
        "learning_rates": learning_rates(),
        "corpus": corpus,
        "windows": windows,
        "generated": [greedy(corpus[:length]) for length in PROMPTS],
        "runs": {},
    }
    for name, run in RUNS.items():
        notes["runs"][name], of_run = train(corpus[: run["tokens"]], run)
        tensors |= {f"{name}.{key}": value for key, value in of_run.items()}
    save_file({key: value.contiguous() for key, value in tensors.items()}, FOLDER / "oracle.safetensors")
    if not min(notes["runs"]["sampled"]["norms"]) < OPTIMISER["clip"] < min(notes["runs"]["fixed"]["norms"]):
        raise SystemExit("clipping must act in one run and end in the other: choose other weights")
    write_json(FOLDER / "oracle.json", notes)
    make_gpt2(FOLDER / "gpt2")


def write_json(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data) + "\n")


def save_checkpoint(folder: Path) -> None:
    """Random weights: large, so that attention is far from uniform and positions differ."""
    spread = {"transformer.wte.weight": 0.25, "transformer.wpe.weight": 1.0}
    weights = {}
    for name, shape in parameter_shapes(MODEL).items():
        std = spread.get(name, 0.2)
        centre = 1.0 if ".ln_" in name and name.endswith("weight") else 0.0
        values = centre + std * torch.randn(shape)
        weights[name] = TensorData("F32", shape, values.numpy().tobytes())
    with tempfile.TemporaryDirectory() as run:
        saved = checkpoint.save(Path(run), 0, model=MODEL, weights=weights, tokenizer=None)
        shutil.copytree(saved, folder)


def load() -> GPT2LMHeadModel:
    """Our checkpoint as `transformers` loads it. Fails unless every weight found its place, unchanged."""
    transformers.utils.logging.disable_progress_bar()
    model, info = GPT2LMHeadModel.from_pretrained(FOLDER / "checkpoint", output_loading_info=True)
    if any(info.values()):
        raise SystemExit(f"transformers does not load our checkpoint: {info}")
    saved = load_file(FOLDER / "checkpoint" / "model.safetensors")
    loaded = dict(model.named_parameters())
    if saved.keys() != loaded.keys() or not all(torch.equal(saved[name], loaded[name]) for name in saved):
        raise SystemExit("transformers loads our checkpoint's weights, but not as they were saved")
    return model.double().eval()


def greedy(prompt: list[int]) -> dict[str, Any]:
    """`prompt` continued to context + 1 tokens by `transformers`, with the probability of each new token."""
    model, length = load(), MODEL.context + 1 - len(prompt)
    sequence = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        min_new_tokens=length,
        max_new_tokens=length,
        do_sample=False,
        pad_token_id=0,
    )[0].tolist()
    logits = model(torch.tensor([sequence[:-1]])).logits[0, -length:]
    probabilities = logits.softmax(dim=-1).sort(descending=True).values
    if (probabilities[:, 0] < 1.01 * probabilities[:, 1]).any():
        raise SystemExit("a generated token is hardly likelier than the next one: choose other weights")
    if length > 8 and len(set(sequence[len(prompt) :])) < 4:
        raise SystemExit(f"the continuation {sequence} says too little: choose other weights")
    return {"prompt": prompt, "sequence": sequence, "probabilities": probabilities[:, 0].tolist()}


def learning_rates() -> list[float]:
    """Linear warm-up, then a cosine: what torch's own schedulers say, as float32 numbers."""
    optimiser = torch.optim.SGD([torch.zeros(1)], lr=SCHEDULE["learning_rate"])
    lowest = SCHEDULE["learning_rate"] * SCHEDULE["min_learning_rate"]
    warmup = SCHEDULE["warmup"]
    scheduler = SequentialLR(
        optimiser,
        [
            LinearLR(optimiser, start_factor=1 / warmup, total_iters=warmup - 1),
            CosineAnnealingLR(optimiser, T_max=SCHEDULE["steps"] - warmup, eta_min=lowest),
        ],
        milestones=[warmup],
    )
    rates = []
    for _ in range(SCHEDULE["steps"]):
        rates += scheduler.get_last_lr()
        optimiser.step()
        scheduler.step()
    return torch.tensor(rates).tolist()


def train(corpus: list[int], run: dict[str, int]) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Ten steps of AdamW: losses, norms, the first step's gradient, and how far the weights moved."""
    model = load()
    parameters = dict(model.named_parameters())
    before = {name: p.detach().clone() for name, p in parameters.items()}
    decayed = [p for p in parameters.values() if p.dim() > 1]
    others = [p for p in parameters.values() if p.dim() == 1]
    optimiser = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": OPTIMISER["weight_decay"]},
            {"params": others, "weight_decay": 0.0},
        ],
        betas=(OPTIMISER["beta1"], OPTIMISER["beta2"]),
        eps=OPTIMISER["epsilon"],
    )
    tensors, losses, norms = {}, [], []
    for step, rate in enumerate(learning_rates()):
        optimiser.zero_grad()
        loss = 0.0
        for micro in range(run["accumulate"]):
            batch = torch.tensor(sample(corpus, run, step, micro))
            logits = model(batch[:, :-1]).logits
            part = cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten()) / run["accumulate"]
            part.backward()
            loss += part.item()
        losses.append(loss)
        if step == 0:
            tensors = {f"gradient.{name}": p.grad.clone() for name, p in parameters.items()}
        norms.append(torch.nn.utils.clip_grad_norm_(parameters.values(), OPTIMISER["clip"]).item())
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.step()
    # The change is kept rather than the weight: in float32 it has the digits that count.
    tensors |= {f"change.{name}": (p.detach() - before[name]).float() for name, p in parameters.items()}
    return {**run, "losses": losses, "norms": norms}, tensors


def sample(corpus: list[int], run: dict[str, int], step: int, micro: int) -> list[list[int]]:
    """The windows that the training program takes: each row's start is a hash of seed, step and row."""
    batch = []
    for row in range(micro * run["batch"], (micro + 1) * run["batch"]):
        starts = len(corpus) - MODEL.context
        start = pcg4d(run["seed"], 0x77696E64, step, row) * starts >> 32
        batch.append(corpus[start : start + MODEL.context + 1])
    return batch


def pcg4d(*words: int) -> int:
    """First word of pcg4d (Jarzynski and Olano, "Hash Functions for GPU Rendering", JCGT 2020)."""
    word = 0xFFFFFFFF
    x, y, z, w = (v * 1664525 + 1013904223 & word for v in words)
    for last in (False, True):
        x = x + y * w & word
        y = y + z * x & word
        z = z + x * y & word
        w = w + y * z & word
        if not last:
            x, y, z, w = (v ^ v >> 16 for v in (x, y, z, w))
    return x


def make_gpt2(folder: Path) -> None:
    """A GPT-2 narrow and shallow, with weights from a formula: its config, and its losses on one window."""
    model = GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=64, n_head=4)).eval()
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    values = {name: torch.from_numpy(array) for name, array in formula.weights(shapes).items()}
    model.load_state_dict({**values, "lm_head.weight": values["transformer.wte.weight"]})
    folder.mkdir()
    with tempfile.TemporaryDirectory() as saved:
        model.save_pretrained(saved)
        shutil.copy(Path(saved) / "config.json", folder)
        weights = (Path(saved) / "model.safetensors").read_bytes()
    config = model.config
    tokens = formula.tokens(config.n_positions + 1, config.vocab_size)
    with torch.no_grad():
        logits = model.double()(torch.tensor([tokens[:-1]])).logits[0]
    oracle = {
        "shapes": shapes,
        "sha256": hashlib.sha256(weights).hexdigest(),  # of model.safetensors
        "losses": cross_entropy(logits, torch.tensor(tokens[1:]), reduction="none").tolist(),
    }
    write_json(folder / "oracle.json", oracle)


if __name__ == "__main__":
    main()
