"""What is measured, and how: `python -m tests.bench` prints every figure of docs/performance.md anew."""
