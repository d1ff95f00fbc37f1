"""Configuration of `arriero train`, `arriero launch` and of the verbs that read a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from configs.fields import (
    AboveZero,
    AnyPath,
    Bounds,
    Count,
    Location,
    Momentum,
    NonEmpty,
    NotNegative,
    PackedFolder,
    Positive,
    PositiveShare,
    Seconds,
    Seed,
    Sequences,
    Share,
    StepCount,
    Steps,
    Text,
    Tokens,
    section,
)


@dataclass(frozen=True)
class PhaseConfig:
    """One phase of the data plan."""

    sequences: Sequences | None = None
    """Sequences in the phase; null: until the end of training."""
    weights: dict[str, NotNegative] = field(default_factory=dict)
    """Share of sequences by source; empty: the mixture stored in the packed dataset."""
    max_epochs: dict[str, AboveZero] = field(default_factory=dict)
    """Largest number of passes over a source, all phases counted; absent: the packed dataset's."""
    global_batch_size: Sequences | None = None
    """Packed sequences of one step in the phase; null: `train.global_batch_size`."""
    sequence_length: Tokens | None = None
    """Tokens of a row: packed sequences are cut into rows of this length, which divides theirs; null: theirs."""


@dataclass(frozen=True)
class DataConfig:
    """The packed dataset and the plan over it."""

    path: Annotated[str, Location("packed", may_be_empty=True)]
    """Packed dataset: the folder that holds `manifest.json`, or the one above; empty in a run that was imported."""
    phases: Annotated[tuple[PhaseConfig, ...], Bounds(min=1, unit="phases")] = (PhaseConfig(),)
    """Phases of the data plan, in order."""
    verify: bool = True
    """Check the CRC of each sequence when it is read."""
    prefetch: Annotated[int, Bounds(min=1, max=4096, unit="batches")] = 4
    """Batches read ahead by the loader's thread."""


@dataclass(frozen=True)
class RopeScalingConfig:
    """Llama 3.1 frequency scaling for contexts longer than the original (Llama 3 report, section 3.4.3)."""

    factor: AboveZero = 8.0
    """Stretch of low frequencies."""
    low_freq_factor: AboveZero = 1.0
    """Wavelengths above original_max/low_freq_factor are stretched fully."""
    high_freq_factor: AboveZero = 4.0
    """Wavelengths below original_max/high_freq_factor stay."""
    original_max_position: Tokens = 8192
    """Context of the original model, tokens."""


@dataclass(frozen=True)
class ModelConfig:
    """Llama 3 shape (Llama 3 report, table 3). The vocabulary size comes from the packed dataset."""

    name: NonEmpty
    """Name of the preset."""
    dim: Positive
    """Width of the residual stream."""
    n_layers: Positive
    """Transformer blocks."""
    n_heads: Positive
    """Query heads."""
    n_kv_heads: Positive
    """Key and value heads (GQA); divides n_heads."""
    ffn_dim: Positive
    """Width of the SwiGLU feed-forward."""
    max_sequence_length: Tokens = 8192
    """Longest sequence the model is used with, tokens."""
    rope_theta: Annotated[float, Bounds(above=1, max=1e12)] = 500_000.0
    """Base of the rotary embedding."""
    rope_scaling: RopeScalingConfig | None = None
    """Llama 3.1 scaling; null: none."""
    norm_eps: Annotated[float, Bounds(above=0, max=0.1)] = 1e-5
    """Epsilon of RMSNorm."""
    tied: bool = False
    """Share the embedding with the output head."""
    init_std: Annotated[float, Bounds(above=0, max=10)] = 0.02
    """Standard deviation of the normal init; residual outputs are divided by sqrt(2 × n_layers)."""
    vocab_multiple: Annotated[int, Bounds(min=1, max=1_000_000)] = 1
    """Rows of embedding and head are a multiple of this; rows without a token are padding that loss and samples ignore."""
    init_from: AnyPath | None = None
    """Run directory, checkpoint or Hugging Face export whose weights start the run (continued pretraining)."""
    init_allow: tuple[str, ...] = ()
    """Model keys, such as rope_theta, that may differ from those of `init_from` though the function then changes."""
    size: str | None = None
    """Parameters, such as 160m or 1.3b: shape, learning rate, batch, length and layout are derived; null: a preset."""


@dataclass(frozen=True)
class TrainConfig:
    """Length, batch and precision."""

    steps: Steps = 1000
    """Optimizer steps of the whole run."""
    global_batch_size: Sequences = 4
    """Sequences of one step, over all ranks."""
    micro_batch_size: Sequences = 1
    """Sequences of one forward pass on one rank."""
    sequence_length: Tokens | None = None
    """Tokens of a sequence; null: the packed dataset's; if given it must equal it."""
    dtype: Literal["auto", "bf16", "bf16_pure", "fp32", "fp64"] = "auto"
    """Compute precision; auto: bf16 where the devices multiply in it natively, else fp32; a run that goes on keeps that of
    its checkpoint. Master weights, optimizer states and gradient reduction are fp32 (fp64 for fp64). `bf16_pure`:
    weights, gradients and optimizer states are bf16 too, AdamW's updates rounded stochastically."""
    float8: bool = False
    """Linear layers of the blocks multiply in float8 (torchao), with a scale for each row and column; for dtype bf16."""
    float8_least: Count = 400
    """Layers for which inputs × outputs ÷ (inputs + outputs), on a rank, is less stay in bf16: scales cost what is saved."""
    attention: Literal["auto", "varlen", "flex", "blocked"] = "auto"
    """What computes attention inside documents: variable-length flash (CUDA, half precision), FlexAttention (CUDA), blocks
    of matrix products (anywhere; on CUDA the host waits in each layer); auto: the first of them that works."""
    compile: bool | None = None
    """torch.compile of each block; null: on CUDA yes, on the CPU no (it needs a C++ compiler there)."""
    activation_checkpointing: Literal["none", "full", "selective", "budget"] = "none"
    """What is recomputed in the backward pass: nothing; all of a block; all but linear layers and attention; what does not
    fit into `activation_budget`, the cheapest per byte first."""
    activation_budget: Share = 0.5
    """Share of the activation memory of `none` that `activation_checkpointing=budget` keeps; 0 is `full`."""
    activation_offload: bool = False
    """Inputs of blocks wait for the backward pass in the host's memory; CUDA, with activation_checkpointing=full."""
    loss_chunk_tokens: Annotated[int, Bounds(min=0, unit="tokens")] = 2048
    """Tokens whose logits exist at a time in the loss, on the CPU fewer, so that they stay in cache; 0: all."""
    z_loss: Annotated[float, Bounds(min=0, max=1)] = 0.0
    """Weight of logsumexp² of each token's logits, added to the loss that is differentiated (PaLM, section 5: 1e-4) and not
    to the one that is reported; 0: none."""
    eval_every: StepCount = 0
    """Steps between held-out evaluations; 0: at the end only."""
    eval_sequences: Sequences = 64
    """Held-out sequences of each stream (source, or source and language) in an evaluation while training."""
    gc_every: StepCount = 50
    """Steps between collections of Python's garbage, on all ranks at the same step; 0: whenever Python does."""
    dry_run: bool = False
    """Instead of training, run full steps on the worst batch of each phase, say what they need, and leave no trace."""
    deterministic: bool = False
    """Deterministic CUDA kernels (slower); CPU is deterministic anyway."""


@dataclass(frozen=True)
class ParallelConfig:
    """The mesh [pp, dp_replicate, dp_shard, cp, tp]."""

    pp: Positive = 1
    """Pipeline stages."""
    dp_replicate: Positive = 1
    """Replicas of the sharded model (HSDP)."""
    dp_shard: Annotated[int, Bounds(min=-1)] = -1
    """FSDP shards; -1: what is left of the world size."""
    cp: Positive = 1
    """Context-parallel ranks."""
    tp: Positive = 1
    """Tensor-parallel ranks, with sequence parallelism."""
    pp_schedule: Literal["1f1b", "gpipe", "interleaved", "zbv", "dualpipev"] = "1f1b"
    """Pipeline schedule; docs/architecture.md compares them. `zbv` waits least and needs reshard_after_forward=false."""
    pp_virtual: Positive = 1
    """Virtual pipeline stages on each rank: at least 2 for `interleaved`; `zbv` and `dualpipev` always have 2."""
    reshard_after_forward: bool = True
    """FSDP frees full parameters after the forward pass."""
    cpu_offload: bool = False
    """Shards of parameters, gradients and optimizer states stay in the host's memory, where the update is computed."""
    async_tp: bool = False
    """Tensor parallelism whose collectives overlap with the matrix products next to them; CUDA, with train.compile."""


@dataclass(frozen=True)
class OptimConfig:
    """The optimizer."""

    name: Literal["adamw", "muon"] = "adamw"
    """AdamW for all, or Muon for matrices of the blocks with AdamW for the rest."""
    lr: AboveZero = 3e-4
    """Peak learning rate of AdamW."""
    betas: tuple[Momentum, Momentum] = (0.9, 0.95)
    """AdamW betas."""
    eps: AboveZero = 1e-8
    """AdamW epsilon."""
    weight_decay: NotNegative = 0.1
    """Decoupled weight decay of the parameters named in `decay`."""
    decay: tuple[Literal["matrices", "head", "embeddings", "norms"], ...] = ("matrices", "head")
    """What decays: matrices of the blocks, an untied output head, embeddings (a tied head is one of them), norms."""
    clip: NotNegative = 1.0
    """Largest global gradient norm; 0: no clipping."""
    muon_lr: AboveZero = 0.02
    """Peak learning rate of Muon."""
    muon_momentum: Momentum = 0.95
    """Momentum of Muon."""
    in_backward: bool = False
    """Update each parameter in the backward pass as soon as its gradient is there, and drop the gradient: saves the memory
    of the gradients. AdamW without clipping and skipping, one micro-batch a step."""


@dataclass(frozen=True)
class ScheduleConfig:
    """The learning-rate schedule."""

    name: Literal["cosine", "linear", "constant", "wsd"] = "cosine"
    """Decay after warm-up; `wsd` (warm-up, stable, decay) stays at the peak and falls linearly at the end."""
    warmup_steps: StepCount = 100
    """Steps of linear warm-up from zero."""
    min_ratio: Share = 0.1
    """Final learning rate as a share of the peak; 0: annealed to zero."""
    decay_share: PositiveShare = 0.2
    """Share of the steps over which `wsd` falls."""
    anneal_steps: StepCount = 0
    """Last steps, over which the learning rate falls linearly to zero from where the schedule, which ends there, left it."""


@dataclass(frozen=True)
class CheckpointConfig:
    """Checkpoints."""

    every: Steps = 500
    """Steps between checkpoints; one more is written at the end."""
    keep: Count = 3
    """Newest committed checkpoints that stay; 0: all."""
    asynchronous: bool = True
    """Write while training goes on; false: training waits until the checkpoint is committed."""
    resume: bool = True
    """Continue from the newest checkpoint that verifies; false: refuse to start where checkpoints exist."""


@dataclass(frozen=True)
class ResilienceConfig:
    """What is survived, and how long it may take."""

    start_timeout: Seconds = 1800.0
    """Seconds that ranks wait for each other before the first step: for slow nodes, and while a checkpoint is read."""
    collective_timeout: Seconds = 600.0
    """Seconds after which a collective of a step that does not finish is an error."""
    heartbeat_every: Annotated[float, Bounds(above=0, max=3600, unit="seconds")] = 5.0
    """Seconds between heartbeats of a rank to the run directory."""
    hang_timeout: Seconds = 1800.0
    """Seconds without a heartbeat after which the supervisor dumps stacks and restarts."""
    max_restarts: Count = 3
    """Restarts without new committed progress before the supervisor gives up."""
    skip_nonfinite: bool = True
    """Skip the optimizer update of a step whose loss or gradient norm is not finite."""
    max_skipped: Steps = 10
    """Skipped steps in a row after which the run stops."""


@dataclass(frozen=True)
class TrackerConfig:
    """Views of the metrics; the run directory is the truth."""

    wandb: bool = True
    """Log to wandb; its files are in `logs/wandb` of the run directory."""
    wandb_mode: Literal["offline", "online", "disabled"] = "offline"
    """wandb's mode."""
    trackio: bool = False
    """Log to trackio, in `trackio` of the run directory, or in the folder of the environment's TRACKIO_DIR."""
    tensorboard: bool = False
    """Write TensorBoard events."""
    project: str = "arriero"
    """Project name in the trackers."""


@dataclass(frozen=True)
class ProfileConfig:
    """Where the time and the memory of chosen steps go; costs nothing at other steps."""

    steps: tuple[Steps, ...] = ()
    """Steps (from 1) whose traces and tables are written to `profiles/step-N` of the run directory."""
    every: StepCount = 0
    """Steps between measurements of `comm_share`, of which nothing else is kept; 0: at `profile.steps` only."""
    ranks: tuple[Count, ...] = (0,)
    """Ranks that are traced; empty: all."""
    memory: bool = False
    """Also write the allocations of these steps: a snapshot for pytorch.org/memory_viz on CUDA, a table on the CPU."""


@dataclass(frozen=True)
class RunConfig:
    """The run directory."""

    dir: AnyPath
    """Directory of the run."""
    name: NonEmpty | None = None
    """Name in trackers; null: the directory's name."""
    log_every: Steps = 10
    """Steps between lines on the console."""
    progress: bool = True
    """Show a progress bar where the console is a terminal."""


@dataclass(frozen=True)
class TrainRun:
    """`arriero train`: one training run in this process group."""

    data: DataConfig = section()
    """Packed dataset and plan."""
    model: ModelConfig = section(option="debug")
    """Model."""
    run: RunConfig = section()
    """Run directory."""
    train: TrainConfig = section(TrainConfig)
    """Length, batch, precision."""
    parallel: ParallelConfig = section(ParallelConfig)
    """Mesh."""
    optim: OptimConfig = section(OptimConfig)
    """Optimizer."""
    schedule: ScheduleConfig = section(ScheduleConfig)
    """Learning-rate schedule."""
    checkpoint: CheckpointConfig = section(CheckpointConfig)
    """Checkpoints."""
    resilience: ResilienceConfig = section(ResilienceConfig)
    """Limits of failure."""
    tracker: TrackerConfig = section(TrackerConfig)
    """Trackers."""
    profile: ProfileConfig = section(ProfileConfig)
    """Traces of chosen steps."""
    seed: Seed = 0
    """Seed of init and data order."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device; auto: CUDA where there is one."""
    budget: str | None = None
    """Compute of the run, from which the rest is derived: FLOPs (1e19), or hours on its devices (24h); null: none."""
    accelerator: Literal["auto", "cpu", "a100", "h100", "h200", "b200"] = "auto"
    """Device that `model.size`, `budget` and `arriero plan` reckon with; auto: the one that is here."""
    GROUPS: ClassVar[dict[str, str | None]] = {"experiment": None}
    """Groups whose files set keys of any section."""


@dataclass(frozen=True)
class ClusterConfig:
    """Where a run is put."""

    kind: Literal["local", "slurm"] = "local"
    """Local torchrun, or Slurm."""
    nodes: Positive = 1
    """Nodes."""
    nproc: Positive = 1
    """Processes a node (one a GPU)."""
    threads: Positive | None = None
    """OMP threads a process; null: `OMP_NUM_THREADS` of the environment, else its share of the cores that may be used."""
    partition: str | None = None
    """Slurm partition; null: the cluster's default."""
    time: str = "24:00:00"
    """Slurm time limit."""
    mem: str | None = None
    """Slurm memory a node, such as `64G`; null: the share of the node that goes with its GPUs or CPUs."""
    cpus_per_task: Positive | None = None
    """Slurm CPUs of a node's task; null: the share of the node that goes with its GPUs, else nproc × (threads or 1)."""
    gpus_per_node: Count | None = None
    """Slurm GPUs a node; null: one a process, none with device=cpu."""
    gpu_health: bool = True
    """Look at the GPUs of every node before each attempt (nvidia-smi, Xids in the kernel's log); start nothing on bad ones,
    and under Slurm requeue without their hosts."""
    numa_binding: bool = True
    """Keep cores and memory of each rank on the NUMA node of its GPU, unless they are bound (`srun_options.cpu-bind`)."""
    account: str | None = None
    """Slurm account."""
    exclude: tuple[str, ...] = ()
    """Nodes that must not be used."""
    options: dict[str, Any] = field(default_factory=dict)
    """More options of sbatch by their long names, such as `{qos: high, constraint: h100, reservation: llama}`. They win over
    what arriero asks for; true: an option without a value, null: leave it out."""
    srun_options: dict[str, Any] = field(default_factory=dict)
    """More options of the srun that starts the processes, such as `{container-image: "arriero.sqsh"}`."""
    signal_before: Annotated[int, Bounds(min=0, unit="seconds")] = 120
    """Seconds before the time limit at which the job checkpoints and requeues."""
    follow: bool = True
    """Follow the submitted job's log and state until it ends."""
    prolog: Text = ""
    """Shell lines put before the job's command (modules, environment); several lines as a YAML block (`prolog: |`)."""
    port: Annotated[int, Bounds(min=0, max=65535)] = 0
    """Rendezvous port on the first node; 0: a free one, chosen for each attempt."""


@dataclass(frozen=True)
class LaunchRun(TrainRun):
    """`arriero launch`: a training run under the supervisor."""

    cluster: ClusterConfig = section(ClusterConfig)
    """Cluster."""
    dry_run: bool = False
    """Print what would be run or submitted, and stop."""
    cancel: bool = False
    """Cancel the run directory's submitted job, and stop."""


@dataclass(frozen=True, kw_only=True)
class PlanRun(TrainRun):
    """`arriero size` and `arriero plan`: a training run on paper; `data.path` and `run.dir` may be left out."""

    data: DataConfig = section(DataConfig, path="")
    """Packed dataset and plan; without a path, of `vocab_size` tokens."""
    run: RunConfig = section(RunConfig, dir="")
    """Run directory; nothing is written to it."""
    cluster: ClusterConfig = section(ClusterConfig)
    """Cluster; the world is nodes × nproc."""
    vocab_size: Tokens = 128_256
    """Tokens of the vocabulary where no packed dataset is given."""
    probe: bool = True
    """`arriero plan`: measure memory and communication on the real model, with tensors that hold no data."""
    output: AnyPath | None = None
    """File for the derived numbers as an experiment (YAML); null: printed only."""


@dataclass(frozen=True)
class RunDir:
    """An existing run directory."""

    dir: AnyPath
    """Directory of the run."""


@dataclass(frozen=True)
class OtherRun:
    """A run directory, or none."""

    dir: AnyPath | None = None
    """Directory of the run; null: a page about the data alone."""


@dataclass(frozen=True)
class OtherData:
    """A packed dataset other than the run's own."""

    path: PackedFolder | None = None
    """Packed dataset; null: the one in the run's config."""


@dataclass(frozen=True)
class EvaluateRun:
    """`arriero evaluate`: held-out loss by source."""

    run: RunDir
    """The run."""
    step: StepCount | None = None
    """Checkpoint step; null: the newest that verifies."""
    data: OtherData = field(default_factory=OtherData)
    """The packed dataset."""
    split: Literal["heldout", "train"] = "heldout"
    """Split of the packed dataset."""
    max_sequences: Sequences | None = None
    """Sequences of each source at the most; null: all."""
    batch_size: Sequences = 8
    """Sequences of one forward pass."""
    dtype: Literal["auto", "bf16", "fp32", "fp64"] = "auto"
    """Compute precision; auto: bf16 where the device multiplies in it natively, else fp32. On CUDA bf16 attends by flash and
    fp32 by FlexAttention; with fp64 the host waits for the device in each layer."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device."""


@dataclass(frozen=True)
class GenerateRun:
    """`arriero generate`: samples from a checkpoint."""

    run: RunDir
    """The run."""
    step: StepCount | None = None
    """Checkpoint step; null: the newest that verifies."""
    prompt: Text | None = None
    """Prompt; the begin-of-text token is put first."""
    prompts: AnyPath | None = None
    """File of prompts, JSONL with `prompt` or text separated by blank lines; a few-shot prompt is one entry."""
    max_tokens: Tokens = 128
    """New tokens at the most."""
    temperature: NotNegative = 0.8
    """Softmax temperature; 0: greedy."""
    top_k: Count = 0
    """Sample from the k likeliest tokens; 0: all."""
    top_p: PositiveShare = 1.0
    """Sample from the smallest set of tokens that holds this probability."""
    n: Positive = 1
    """Samples of each prompt."""
    seed: Seed = 0
    """Seed of sampling."""
    output: AnyPath | None = None
    """JSONL file for the samples; null: printed only."""
    dtype: Literal["auto", "bf16", "fp32", "fp64"] = "auto"
    """Compute precision; auto: bf16 where the device multiplies in it natively, else fp32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device."""


@dataclass(frozen=True)
class ExportRun:
    """`arriero export`: Hugging Face safetensors and tokenizer."""

    run: RunDir
    """The run."""
    output: AnyPath
    """Folder of the export; must not exist or be empty."""
    step: StepCount | None = None
    """Checkpoint step; null: the newest that verifies."""
    dtype: Literal["bf16", "fp32", "fp64"] = "fp32"
    """Stored precision."""


@dataclass(frozen=True)
class ImportRun:
    """`arriero import`: a Hugging Face Llama becomes a run whose weights can be continued."""

    input: AnyPath
    """Folder of the Hugging Face model."""
    run: RunDir
    """Run directory that is made."""


@dataclass(frozen=True)
class AverageRun:
    """`arriero average`: the mean of several checkpoints of a run."""

    run: RunDir
    """The run."""
    output: AnyPath
    """Run directory that is made; must not exist or be empty."""
    steps: tuple[Steps, ...] = ()
    """Steps of the checkpoints; empty: the `last` newest."""
    last: Positive | None = None
    """How many of the newest checkpoints, where no steps are named."""


@dataclass(frozen=True)
class ReportRun:
    """`arriero report`: one self-contained HTML page."""

    run: OtherRun = field(default_factory=OtherRun)
    """The run."""
    data: OtherData = field(default_factory=OtherData)
    """The packed dataset (the data run that made it is the folder above), or the directory of a data run."""
    output: AnyPath | None = None
    """Path of the page; null: `report.html` in the run directory, or else in that of the data run."""


@dataclass(frozen=True)
class CompareRun:
    """`arriero compare`: several runs side by side, in the terminal and on one HTML page."""

    runs: tuple[AnyPath, ...] = ()
    """Run directories, two or more; words without `=` on the command line are such directories."""
    output: AnyPath | None = None
    """Path of the page; null: `compare-A-B.html` in the folder that holds the first run."""
