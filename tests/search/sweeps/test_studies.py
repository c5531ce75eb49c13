import sys
import threading

import optuna
import pytest

from lightning_compress.search.sweeps.settings import Settings
from lightning_compress.search.sweeps.studies import find_sampler, open_study, stored_settings

RANGES = {"model.x": {"low": 1, "high": 100}}


def settings(limit=None, ranges=RANGES):
    return Settings("val_acc", "max", ".lcz", limit, ranges, {"model": {"x": 1}})


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/s.db"


def test_a_study_is_made_once_and_joined(url):
    first = open_study(url, "a", settings())
    second = open_study(url, "a", settings())
    assert first._study_id == second._study_id
    assert stored_settings(second)["ranges"] == RANGES
    assert [direction.name for direction in second.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert [direction.name for direction in open_study(url, "b", settings(100)).directions] == ["MAXIMIZE"]


def test_workers_may_begin_at_the_same_instant(url):
    found, errors = [], []

    def opened():
        try:
            found.append(open_study(url, "a", settings()))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=opened) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len({study._study_id for study in found}) == 1


def test_a_worker_with_other_settings_is_refused(url):
    open_study(url, "a", settings())
    other = settings(ranges={"model.x": {"low": 1, "high": 50}})
    with pytest.raises(
        ValueError, match=r"need the settings of the study 'a' to join it: ranges\.model\.x\.high is 100 t"
    ):
        open_study(url, "a", other)
    with pytest.raises(ValueError, match="to join it: bytes is None there and 100 here; pass another --name"):
        open_study(url, "a", settings(100))


def test_a_study_of_other_code_is_refused(url):
    study = optuna.create_study(storage=url, study_name="theirs", directions=["maximize", "minimize"])
    study.optimize(lambda trial: [trial.suggest_float("x", 0, 1), 0.0], n_trials=1)
    with pytest.raises(ValueError, match="need a study that a sweep has made, got 'theirs' of other code"):
        open_study(url, "theirs", settings())


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("study.db", "need --study as the address of a database, such as sqlite:///study.db .*, got one that raises"),
        ("sqlite:////no/such/folder/s.db", "got one that raises OperationalError: .*unable to open database file"),
    ],
    ids=["file", "folder"],
)
def test_an_address_that_leads_to_no_database(address, said):
    with pytest.raises(ValueError, match=said):
        open_study(address, "a", settings())


def test_a_missing_driver_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    with pytest.raises(ImportError, match="need the driver of the database to open --study: .*psycopg"):
        open_study("postgresql://me@nowhere/db", "a", settings())


def test_samplers_are_those_of_optuna():
    assert isinstance(find_sampler("NSGAIISampler", 1), optuna.samplers.NSGAIISampler)
    with pytest.raises(ValueError, match="need --sampler as one of .*TPESampler.*, got 'Best'"):
        find_sampler("Best", None)
    with pytest.raises(ValueError, match="need --sampler as one that a seed is enough for, got 'GridSampler'"):
        find_sampler("GridSampler", None)


def test_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r"need optuna to sweep: pip install 'lightning-compress\[sweep\]'"):
        find_sampler("TPESampler", None)


def test_a_heartbeat_is_a_second_at_least(url):
    with pytest.raises(ValueError, match="need --heartbeat >= 1, got 0"):
        open_study(url, "a", settings(), heartbeat=0)
