import pytest

from lightning_compress.search.sweeps.keys import key_path, key_paths, put

CONFIG = {
    "seed_everything": 0,
    "model": {"class_path": "project.Net", "init_args": {"lr": 0.1, "name": None}, "dict_kwargs": {"width": 4}},
    "trainer": {
        "callbacks": [
            {
                "class_path": "lightning_compress.PruningCallback",
                "init_args": {"sparsity": 0.9, "schedule": {"class_path": "Cubic", "init_args": {"until": 0.7}}},
            },
            {"class_path": "lightning_compress.QATCallback", "init_args": {"weight_bits": 8}},
            {"class_path": "lightning_compress.QATCallback", "init_args": {"weight_bits": 4}},
        ]
    },
}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("seed_everything", ("seed_everything",)),
        ("model.lr", ("model", "init_args", "lr")),
        ("model.init_args.lr", ("model", "init_args", "lr")),
        ("model.width", ("model", "dict_kwargs", "width")),
        ("trainer.callbacks.0.sparsity", ("trainer", "callbacks", 0, "init_args", "sparsity")),
        ("trainer.callbacks.0.init_args.sparsity", ("trainer", "callbacks", 0, "init_args", "sparsity")),
        ("trainer.callbacks.PruningCallback.sparsity", ("trainer", "callbacks", 0, "init_args", "sparsity")),
        (
            "trainer.callbacks.PruningCallback.schedule.until",
            ("trainer", "callbacks", 0, "init_args", "schedule", "init_args", "until"),
        ),
        ("trainer.callbacks.2", ("trainer", "callbacks", 2)),
        ("trainer.callbacks.0.class_path", ("trainer", "callbacks", 0, "class_path")),
    ],
)
def test_a_key_means_a_value(name, expected):
    assert key_path(CONFIG, name) == expected


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("modl.lr", "got 'modl' of the config, which has seed_everything, model, trainer; did you mean 'model'?"),
        ("model.rate", "got 'rate' of model, which has lr, name, width"),
        ("trainer.callbacks.0.sparsty", "which has sparsity, schedule; did you mean 'sparsity'?"),
        ("trainer.callbacks.Pruning.x", r"which has PruningCallback, QATCallback, QATCallback; did you mean 'Pruning"),
        ("trainer.callbacks.3.x", "got '3' of trainer.callbacks"),
        (
            "trainer.callbacks.QATCallback.weight_bits",
            r"need one QATCallback for .*, got 2 of them: write trainer\.callbacks\.1 or trainer\.callbacks\.2",
        ),
        ("model.lr.log", "got 'log' of model.init_args.lr, which is 0.1"),
        ("model.name.first", "which is None"),
    ],
)
def test_a_wrong_name_is_refused_with_what_there_is(name, said):
    with pytest.raises(ValueError, match=said):
        key_path(CONFIG, name)


def test_values_are_put_into_a_copy():
    value = {"class_path": "Linear"}
    changed = put(CONFIG, {("model", "init_args", "lr"): 0.5, ("trainer", "callbacks", 1): value})
    assert changed["model"]["init_args"]["lr"] == 0.5
    assert changed["trainer"]["callbacks"][1] == value
    assert changed["trainer"]["callbacks"][1] is not value
    assert CONFIG["model"]["init_args"]["lr"] == 0.1


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["model.lr", "model.init_args.lr"], "got 'model.lr' and 'model.init_args.lr', which is the same value"),
        (
            ["trainer.callbacks.PruningCallback.sparsity", "trainer.callbacks.0"],
            "got 'trainer.callbacks.0' and 'trainer.callbacks.PruningCallback.sparsity', which is a part of it",
        ),
    ],
    ids=["same", "part"],
)
def test_keys_of_one_value_are_refused(names, said):
    for order in (names, names[::-1]):
        with pytest.raises(ValueError, match=said if order is names else "need keys of different values in sweep, got"):
            key_paths(CONFIG, order)
