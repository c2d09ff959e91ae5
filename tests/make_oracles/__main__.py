"""Make all fixtures that come from other implementations: python -m tests.make_oracles"""

from __future__ import annotations

from tests.make_oracles import checkpoint, model

if __name__ == "__main__":
    checkpoint.main()
    model.main()
