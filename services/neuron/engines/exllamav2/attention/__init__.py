"""Paged attention under the name `flash_attn`, the one package that ExLlamaV2 looks for.

The library pages its cache only if it can import flash-attn, which exists as a source package that
takes many minutes to compile; its own path without it is not causal during prefill and is never
used here. So a stand-in is put into `sys.modules` before the library is imported, with the best
backend that the machine has: `choice` says which, `stand_in` puts it there.
"""
