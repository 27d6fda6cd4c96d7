"""Training every network of the library, on a CPU or on GPUs; each run can be interrupted and resumed exactly.

Wherever it is asked for, ``device`` is "cpu", "cuda" or "auto", and ``bf16`` lets the networks compute in bfloat16:
losses, penalties and optimisers stay in float32.
"""
