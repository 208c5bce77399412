from __future__ import annotations

from services.neuron.weights.layer_bytes import LayerBytes, tallied

TENSORS = [
    ("token_embd.weight", 100),
    ("output_norm.weight", 1),
    ("rope_freqs.weight", 2),
    ("blk.0.attn_q.weight", 10),
    ("blk.0.ffn_up_exps.weight", 30),
    ("blk.0.ffn_gate_inp.weight", 5),
    ("blk.1.attn_q.weight", 20),
    ("blk.1.ffn_down_exps.weight", 40),
    ("blk.1.ffn_up_shexp.weight", 6),
]


def test_weights_are_counted_by_block_expert_output_and_host():
    found = tallied(TENSORS)

    assert found == LayerBytes(blocks=(45, 66), experts=(30, 40), output=1, shared=100, host=102)
    assert found.count == 3


def test_an_output_of_its_own_shares_nothing():
    found = tallied([*TENSORS, ("output.weight", 90)])

    assert (found.output, found.shared) == (91, 0)


def test_layers_go_to_gpus_from_the_end_and_the_output_first():
    found = tallied(TENSORS)

    assert [found.on_gpus(layers) for layers in range(4)] == [0, 101, 167, 212]
    assert [found.on_host(layers) for layers in range(4)] == [214, 213, 147, 102]
    assert found.on_gpus(3, cpu_experts=1) == 182
    assert found.on_gpus(2, cpu_experts=1) == 167  # the block whose experts stay is not there
    assert found.on_gpus(3, cpu_experts=9) == 142


def test_files_without_blocks_have_no_layers():
    assert tallied([("token_embd.weight", 5)]).count == 0
