"""Model FLOPs utilisation: FLOPs that the model needs, divided by what the devices could do in that time."""

from __future__ import annotations

import torch
from torch import Tensor

from configs.schema.train import ModelConfig
from pretrain.metrics.speed import products_per_second, threads_of_process

# Dense peaks without sparsity, FLOP/s, from the vendors' data sheets: (name in torch's device name, bf16, fp32, fp64).
# fp32 is that of fp32 matrix products as torch runs them by default, without TF32.
PEAKS = (
    ("GB200", 2500e12, 80e12, 40e12),
    ("B200", 2250e12, 75e12, 37e12),
    ("H200", 989e12, 67e12, 67e12),
    ("H100 NVL", 835e12, 60e12, 60e12),
    ("H100 PCIe", 756e12, 51e12, 51e12),
    ("H100", 989e12, 67e12, 67e12),
    ("A100", 312e12, 19.5e12, 19.5e12),
    ("A10G", 70e12, 35e12, 0.6e12),
    ("L40S", 362e12, 91.6e12, 1.4e12),
    ("L4", 121e12, 30.3e12, 0.5e12),
    ("V100", 125e12, 15.7e12, 7.8e12),
    ("RTX 4090", 165e12, 82.6e12, 1.3e12),
    ("MI300X", 1307e12, 163e12, 163e12),
)
DTYPES = {"bf16": torch.bfloat16, "bf16_pure": torch.bfloat16, "fp32": torch.float32, "fp64": torch.float64}


def matmul_parameters(model: ModelConfig, vocab_size: int) -> int:
    """Parameters that take part in matrix products: all matrices but a pure input embedding."""
    head_dim = model.dim // model.n_heads
    attention = model.dim * head_dim * (2 * model.n_heads + 2 * model.n_kv_heads)
    return model.n_layers * (attention + 3 * model.dim * model.ffn_dim) + model.dim * vocab_size


def attention_pairs(cu_seqlens: Tensor) -> int:
    """Pairs (query, key) that attention looks at, over rows of boundaries [B, M]: n (n + 1) / 2 a segment of n."""
    lengths = cu_seqlens.long().diff(dim=1)
    return int((lengths * (lengths + 1) // 2).sum())


def step_flops(model: ModelConfig, vocab_size: int, tokens: int, pairs: int) -> float:
    """FLOPs that one forward and backward pass needs: 6 N D + 12 L d P.

    N: `matmul_parameters`; D: tokens; L: layers; d: width; P: pairs of query and key that the causal and document masks
    leave (`attention_pairs`). A pair costs 2 d forward for its score and 2 d for its value, twice that backward.
    Recomputation does not count.
    """
    return 6.0 * matmul_parameters(model, vocab_size) * tokens + 12.0 * model.n_layers * model.dim * pairs


def full_flops(model: ModelConfig, vocab_size: int, tokens: int, length: int) -> float:
    """FLOPs by the usual count (Chowdhery et al. 2022, PaLM, appendix B): 6 N D + 12 L d T D.

    As `step_flops`, but each of the D tokens is paired with all T = `length` tokens of its sequence: neither the causal
    nor the document mask is taken off. Figures of other trainers are comparable with this one.
    """
    return step_flops(model, vocab_size, tokens, tokens * length)


def peak_flops(device: torch.device, dtype: str) -> float:
    """Peak FLOP/s of one device in a dtype, above 0: from the data sheet, or measured with matrix products where unknown.

    On the CPU it is that of the threads of this process. A step in bf16 also multiplies in fp32 where that is faster
    (attention on processors without bf16 units), so the faster of both is the peak.
    """
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        for known, bf16, fp32, fp64 in PEAKS:
            if known in name:
                return {"bf16": bf16, "bf16_pure": bf16, "fp32": fp32, "fp64": fp64}[dtype]
    dtypes = {DTYPES[dtype], torch.float64 if dtype == "fp64" else torch.float32}
    threads = threads_of_process() if device.type == "cpu" else 1
    return threads * max(products_per_second(device, d) for d in dtypes)
