"""The proof on a GPU: `gpu/prove.sh` runs these scripts and writes one report (docs/gpu.md).

`EMU=1` rehearses all of it on a machine without a GPU, on tiny models.
"""
