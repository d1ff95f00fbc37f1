"""Scaling laws and habits that turn compute into numbers of a run. Pure functions; C is training compute in FLOPs.

Published points that they meet, and how closely, are in `tests/pretrain/sizing/test_laws.py`.
"""

from __future__ import annotations

TOKENS_PER_PARAMETER = 20.0
"""Compute-optimal tokens a parameter (Hoffmann et al. 2022, Chinchilla, table 3)."""
LARGEST_BATCH = 2**24
"""Tokens of the largest batch of Llama 3 (section 3.4.1)."""
LARGEST_RATE = 5e-3
FEWEST_STEPS = 100
"""A run gets at least so many steps: batches are smaller rather."""


def optimal_tokens(compute: float) -> float:
    """Tokens to train on: 0.299 · C^0.537 (Llama 3 report, section 3.2.1; (0.29, 0.53) there is rounded, these give its
    16.55e12 tokens for 3.8e25)."""
    return 0.299 * compute**0.537


def optimal_parameters(compute: float) -> float:
    """Parameters to train: C / (6 · tokens) (Kaplan et al. 2020, section 2.1)."""
    return compute / (6 * optimal_tokens(compute))


def learning_rate(compute: float) -> float:
    """Peak learning rate of AdamW: 0.3118 · C^-0.125 (Bi et al. 2024, DeepSeek LLM, equation 1), at most 5e-3.

    The law was fitted from 1e17 to 2e19 FLOPs; down to 2e14 it is extrapolated, and below the rate stays.
    """
    return min(0.3118 * compute**-0.125, LARGEST_RATE)


def batch_tokens(compute: float) -> float:
    """Tokens of a batch: 0.2920 · C^0.3271 (Bi et al. 2024, equation 1), at most Llama 3's 16M."""
    return min(0.2920 * compute**0.3271, float(LARGEST_BATCH))


def warmup_steps(steps: int) -> int:
    """2,000 steps (LLaMA, section 2.3), a 150th of runs beyond 300,000 (Llama 3 405B: 8,000 of 1.2M), and at most a
    tenth of a short run."""
    return max(1, min(steps // 10, max(2000, steps // 150)))
