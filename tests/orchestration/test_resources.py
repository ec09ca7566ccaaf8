"""Work that does not fit on this machine is refused before Ray would wait for it without end."""

import os
import re

import pytest
import torch

from orchestration.errors import RecipeError
from orchestration.params import StageParams
from orchestration.recipe import ClusterParams, Recipe
from orchestration.resources import Resources, missing_here, missing_in_cluster
from orchestration.stage import Stage
from orchestration.storage.store import Store
from orchestration.training import TrainingParams
from orchestration.workflow import Workflow
from pipelines.commands.options import console

TWO_CORES = ClusterParams(num_cpus=2)


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)


@pytest.mark.parametrize(
    ("needed", "words"),
    [
        (Resources(), None),
        (Resources(2, 1), None),
        (Resources(1, 0.25), None),
        (Resources(3), "a worker needs 3 CPU cores, there are 2"),
        (Resources(1, 2), "a worker needs 2 GPUs, there are 1"),
        (Resources(1, 0, 3), "3 workers at once need 3 CPU cores, there are 2"),
        (TrainingParams(steps=1, use_gpu=True, num_workers=2).resources, "need 2 GPUs, there are"),
    ],
)
def test_what_a_machine_lacks_is_said_in_numbers(needed, words):
    found = missing_here(needed, TWO_CORES)
    assert found is None if words is None else words in found


def test_nothing_is_said_of_a_cluster_that_is_joined(monkeypatch):
    assert missing_here(Resources(999), ClusterParams(address="ray://head:10001")) is None
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    assert missing_here(Resources(999), ClusterParams()) is None


@pytest.mark.parametrize(
    ("needed", "nodes", "words"),
    [
        (Resources(4), [(1, 0)] * 4, "a worker needs 4 CPU cores of one node; .* room for none"),
        (Resources(4), [(1, 0)] * 3 + [(4, 0)], None),
        (Resources(4, 1), [(8, 0), (2, 1)], "4 CPU cores and 1 GPU of one node"),
        (Resources(4, 1), [(8, 0), (4, 1)], None),
        (Resources(4, 1, 3), [(16, 2), (7, 1)], None),
        (Resources(4, 1, 3), [(16, 2), (3, 1)], "3 workers at once need .* each, .* room for 2$"),
        (Resources(4, 1, 3), [(7, 8), (7, 8)], "need 12 CPU cores|room for 2$"),
        (Resources(2, 0, 4), [(5, 0), (3, 0), (1, 0)], "4 workers at once need .* room for 3$"),
        (Resources(2, 0, 4), [(5, 0), (2, 0), (3, 0)], None),
        (Resources(1, 0, 2), [], "2 workers at once need 2 CPU cores, there are 0"),
    ],
)
def test_workers_are_counted_node_by_node(monkeypatch, needed, nodes, words):
    """A dead node counts nothing; a node without GPUs has no such entry."""
    alive = [{"CPU": float(cpus)} | ({"GPU": float(gpus)} if gpus else {}) for cpus, gpus in nodes]
    listed = [{"Alive": True, "Resources": each} for each in alive]
    dead = {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}
    monkeypatch.setattr("ray.nodes", lambda: [*listed, dead])
    found = missing_in_cluster(needed)
    assert found is None if words is None else re.search(words, found)


def test_a_session_without_a_limit_has_the_cores_of_the_machine():
    most = os.cpu_count()
    assert missing_here(Resources(most), ClusterParams()) is None
    assert f"there are {most}" in missing_here(Resources(most + 1), ClusterParams())


def test_a_workflow_that_does_not_fit_starts_nothing(tmp_path):
    ran = []
    stages = [
        Stage("small", lambda context: ran.append(1), StageParams()),
        Stage("large", lambda context: ran.append(2), StageParams(), resources=Resources(1, 4)),
    ]
    workflow = Workflow(Recipe(name="fits", cluster=TWO_CORES), tuple(stages))
    with pytest.raises(RecipeError, match="nothing was started\nlarge: a worker needs 4 GPUs"):
        workflow.run(Store(tmp_path), console)
    workflow.check(workflow.plan(Store(tmp_path)))  # a plan says it and is no failure
    assert len(workflow.missing_here(workflow.plan(Store(tmp_path)))) == 1
    assert ran == [] and not list(tmp_path.iterdir())
