"""``beit3 demo --task``: the workdir stands for the fine-tuning of the pretrained network."""

from types import SimpleNamespace

from pipelines import open_recipe
from pipelines.commands import demo, run


def test_the_control_from_scratch_runs_before_the_fine_tuning_of_the_pretrained_network(
    monkeypatch,
):
    ran: list[tuple[str, bool]] = []

    def opened(name, workdir, overrides, console):
        is_control = "network.fresh_weights=true" in overrides
        return SimpleNamespace(name=name, control=is_control, store=SimpleNamespace(uri=workdir))

    monkeypatch.setattr(open_recipe, "open_recipe", opened)
    monkeypatch.setattr(run, "run_opened", lambda each, **_: ran.append((each.name, each.control)))
    monkeypatch.setattr(demo, "_scores", lambda each: {"dev/accuracy": 0.5})
    demo.demo(workdir="runs/demo", task="vqa")
    assert ran == [("tiny", False), ("finetune/tiny-vqa", True), ("finetune/tiny-vqa", False)]
