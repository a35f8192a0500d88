"""A dozen tiny configurations that between them run every variant, algorithm, ending and loop of the package."""

from __future__ import annotations

SHARED = (
    "data=synthetic",
    "model.blocks=2",
    "model.dim=16",
    "model.heads=2",
    "model.sequence_length=16",
    "data.batch_size=4",
    "data.val_windows=4",
    "data.synthetic_vocab=16",
    "optim.warmup_steps=2",
    "trainer.max_steps=5",
    "trainer.log_every=1",
    "trainer.threads=1",
    "trainer.probe_every=2",
    "trainer.keep_checkpoint=none",
    "tracking=none",
)
CONFIGURATIONS: dict[str, tuple[str, ...]] = {
    "identity": ("residual=identity",),
    "identity_wide": ("residual=identity_wide", "data.task=copy"),
    "identity_hc": ("residual=identity_hc", "residual.streams=2"),
    "hc": ("residual=hc",),
    "hc, static": ("residual=hc", "residual.h_res=static", "residual.collapse=sum"),
    "mhc": ("residual=mhc", "data.task=recall"),
    "mhc, recomputed": ("residual=mhc", "residual.recompute=2", "seed=1"),
    "mhc, V4": ("residual=mhc", "residual.convention=v4", "residual.collapse=read", "residual.expand=scaled"),
    "mhc, bf16": ("residual=mhc", "residual.stream_dtype=bf16", "trainer.precision=bf16-mixed"),
    "mhc, Newton": ("residual=mhc", "residual.sinkhorn=newton", "residual.h_pre=static", "control=true"),
    "mhc, permutations": ("residual=mhc", "residual.sinkhorn=permutations", "residual.streams=3"),
    "orthogonal": ("residual=orthogonal", "model.ffn=gelu", "optim=cosine"),
    "row_stochastic": ("residual=row_stochastic", "residual.h_post=fixed", "model.tie_embeddings=true"),
    "column_stochastic": ("residual=column_stochastic", "residual.h_pre=fixed", "optim.clip_norm=0"),
    "unconstrained": ("residual=unconstrained", "residual.constraints=[unconstrained,doubly_stochastic]"),
}
# What is compared: every number that a step or a probe logs, but for times.
NOT_COMPARED = ("ms",)
