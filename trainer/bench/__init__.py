"""What `trainer bench` measures, part by part; `trainer/cli/bench.py` is the command."""
