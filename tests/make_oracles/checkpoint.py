"""Make tests/fixtures/checkpoint: a tiny random GPT-2 as `transformers` saves it, and its logits.

python tests/make_oracles/checkpoint.py      (needs the `oracles` extra: torch and transformers)
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel

FOLDER = Path(__file__).parent.parent / "fixtures" / "checkpoint"


def main() -> None:
    torch.manual_seed(1337)
    config = GPT2Config(
        vocab_size=29, n_positions=16, n_embd=8, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or ".ln_" in name:  # zeros and ones at first, which would hide a mix-up
                parameter += 0.1 * torch.randn_like(parameter)
        tokens = torch.randint(config.vocab_size, (2, config.n_positions))
        logits = model(tokens).logits
    shutil.rmtree(FOLDER, ignore_errors=True)
    model.save_pretrained(FOLDER / "transformers")
    model.save_pretrained(FOLDER / "sharded", max_shard_size="4KB")
    (FOLDER / "logits.json").write_text(
        json.dumps({"tokens": tokens.tolist(), "logits": logits.tolist()}) + "\n"
    )


if __name__ == "__main__":
    main()
