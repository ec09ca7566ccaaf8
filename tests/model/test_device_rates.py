"""Peaks of devices, against figures of NVIDIA's data sheets."""

import pytest
import torch

from model.training.device_rates import device_peak, measured_rate, published_peak


@pytest.mark.parametrize(
    ("name", "number_format", "tera"),
    [
        ("NVIDIA A100-SXM4-40GB", "bf16", 312),
        ("NVIDIA A100-PCIE-40GB", "tf32", 156),
        ("NVIDIA A100 80GB PCIe", "fp32", 19.5),
        # A sheet's 1,979 and 4,500 are with sparsity.
        ("NVIDIA H100 80GB HBM3", "bf16", 1979 / 2),
        ("NVIDIA H200", "bf16", 1979 / 2),
        ("NVIDIA H100 PCIe", "bf16", 1513 / 2),
        ("NVIDIA H100 NVL", "bf16", 1671 / 2),
        ("NVIDIA B200", "bf16", 4500 / 2),
        ("NVIDIA L40S", "bf16", 362.05),
        ("NVIDIA L4", "bf16", 242 / 2),
        ("NVIDIA GeForce RTX 4090", "bf16", 330.4 / 2),
        ("Tesla V100-SXM2-32GB", "fp32", 15.7),
        ("Tesla T4", "fp32", 8.1),
    ],
)
def test_a_peak_is_the_dense_one_of_the_data_sheet(name, number_format, tera):
    assert published_peak(name, number_format) == pytest.approx(tera * 1e12, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "number_format"),
    [
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "bf16"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bf16"),
        ("NVIDIA GeForce RTX 4090 D", "bf16"),
        ("NVIDIA H20", "bf16"),
        ("AMD Instinct MI300X", "bf16"),
        ("Tesla T4", "bf16"),
        ("Tesla V100-SXM2-16GB", "tf32"),
    ],
)
def test_what_no_sheet_names_has_no_published_peak(name, number_format):
    assert published_peak(name, number_format) is None


def test_a_processor_s_peak_is_measured_and_said_to_be_so_and_draws_no_number():
    before = torch.random.get_rng_state()
    peak = device_peak(torch.device("cpu"), torch.float32)
    assert not peak.is_published and peak.flops > 1e8
    assert "measured product rate" in str(peak)
    assert measured_rate(torch.device("cpu"), torch.bfloat16, side=64) > 0
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_known_device_s_peak_follows_the_precision_of_its_products(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    device = torch.device("cuda")
    assert device_peak(device, torch.float32).format == "fp32"
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    peak = device_peak(device, torch.float32)
    assert (peak.format, peak.flops, peak.is_published) == ("tf32", 494.5e12, True)
    assert device_peak(device, torch.bfloat16).flops == 989.5e12
