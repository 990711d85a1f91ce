"""The cost of a pass, on models whose sizes are known."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers

from burnish.model.cost import BlockSize, Machine, Work, block_sizes, predict, together
from burnish.model.skeleton import anatomy_of, auto_class

LLAMA_8B = transformers.LlamaConfig(
    vocab_size=128256,
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
)
WORK = Work(sequences=100, tokens=4000, width=40)
EVEN = [BlockSize(1_000_000, 1_000_000)] * 10


def sizes(config: Any) -> tuple[BlockSize, ...]:
    with torch.device("meta"):
        network = auto_class(config).from_config(config)
    return block_sizes(network, config, anatomy_of(network, config))


def test_a_dense_models_blocks_are_its_parameters_without_the_two_tables() -> None:
    blocks = sizes(LLAMA_8B)
    assert sum(b.parameters for b in blocks) == 8_030_261_248 - 2 * 128256 * 4096 - 4096
    assert {b.active for b in blocks} == {218_112_000}


def test_a_token_is_multiplied_with_its_own_experts_only() -> None:
    blocks = sizes(transformers.DeepseekV3Config())
    assert sum(b.parameters for b in blocks) == pytest.approx(671e9, rel=0.01)
    assert sum(b.active for b in blocks) == pytest.approx(37e9, rel=0.05)
    assert blocks[0].joined == 0
    assert blocks[-1].joined > 0.9 * blocks[-1].parameters


def test_operations_are_two_for_a_parameter_and_a_token() -> None:
    blocks = sizes(LLAMA_8B)
    cost = predict(blocks, 4096, WORK, Machine(1e11, 1e9))
    attention = 4 * 32 * 4096 * 40 * 4000
    assert cost.flops == pytest.approx(2 * 6_979_584_000 * 4000 + attention)
    assert cost.disk_bytes == 2 * 6_979_584_000
    assert cost.states_bytes == 4000 * 4096 * 2 + 4 * 100 * 32 * 4096


def test_time_is_the_longer_of_reading_and_computing_and_the_first_read() -> None:
    computing = predict(EVEN, 8, WORK, Machine(flops=8e9, read=2e9))  # a block: 1 s to compute, 0.001 s to read
    assert computing.seconds == pytest.approx(10.001)
    reading = predict(EVEN, 8, WORK, Machine(flops=8e12, read=2e6))  # a block: 0.001 s to compute, 1 s to read
    assert reading.seconds == pytest.approx(10.001)
    assert reading.read_seconds == pytest.approx(10)
    assert computing.compute_seconds == pytest.approx(10)


def test_no_more_than_two_blocks_are_counted_in_memory() -> None:
    one = predict(EVEN, 8, WORK, Machine(1e9, 1e9), batch=1)
    many = predict(EVEN * 10, 8, WORK, Machine(1e9, 1e9), batch=1)
    assert one.peak_bytes == many.peak_bytes == pytest.approx(4e6, rel=0.01)


def test_a_second_site_keeps_its_states_too() -> None:
    one, two = (predict(EVEN, 8, replace(WORK, sites=n), Machine(1e9, 1e9)) for n in (1, 2))
    assert two.states_bytes - one.states_bytes == 4 * 100 * 10 * 8


def test_passes_together_take_the_sum_of_time_and_the_larger_memory() -> None:
    one = predict(EVEN, 8, WORK, Machine(1e9, 1e9))
    other = predict(EVEN, 8, replace(WORK, tokens=8000), Machine(1e9, 1e9))
    both = together([one, other])
    assert both.seconds == one.seconds + other.seconds
    assert both.disk_bytes == 2 * one.disk_bytes
    assert both.states_bytes == other.states_bytes
