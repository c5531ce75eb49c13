"""Studies of Optuna: where the trials of a sweep are kept, and which of them count."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lightning_compress.arguments import check_number
from lightning_compress.search.sweeps.settings import Settings

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

__all__ = ["counted", "fail_lost", "find_sampler", "open_study", "retry", "stored_settings"]

_SETTINGS = "lightning_compress"  # attribute of a study
_RETRIES = 3  # of a trial whose worker is lost
_OPENINGS = 10  # tries to open a new database, which several workers make at once
_PAUSE = 0.5  # seconds between them
_WAIT = 60  # seconds that a worker waits for another one that is writing to SQLite


def open_study(
    url: str,
    name: str,
    settings: Settings,
    *,
    sampler: str = "TPESampler",
    seed: int | None = None,
    heartbeat: int = 30,
) -> Study:
    """Make a study, or join it.

    A trial whose worker has been silent for two heartbeats is taken up again, three times at most.

    Args:
        url: of a database, as SQLAlchemy writes it: ``"sqlite:///study.db"``, ``"postgresql://user@host/database"``.
        name: of the study in the database.
        settings: those of this worker.
        sampler: name of a class of ``optuna.samplers``.
        seed: of the sampler.
        heartbeat: seconds between two signs of life of a worker.

    Raises:
        ImportError: Optuna, or the driver of the database, is not installed.
        ValueError: the study belongs to other settings, there is no such database, or the sampler cannot be made.
    """
    import optuna

    _check_heartbeat(heartbeat)
    chosen = find_sampler(sampler, seed)
    storage = _storage(url, heartbeat)
    study = optuna.create_study(
        storage=storage, study_name=name, directions=settings.directions, sampler=chosen, load_if_exists=True
    )
    known = stored_settings(study)
    if not known and study.get_trials(deepcopy=False):
        raise ValueError(f"need a study that a sweep has made, got {name!r} of other code: pass another --name")
    difference = settings.difference(known) if known else ""
    if difference:
        raise ValueError(f"need the settings of the study {name!r} to join it: {difference}; pass another --name")
    if not known:
        study.set_user_attr(_SETTINGS, asdict(settings))
    return study


def find_sampler(name: str, seed: int | None) -> BaseSampler:
    """A sampler of Optuna by the name of its class.

    Raises:
        ImportError: Optuna, or a package that the sampler needs, is not installed.
        ValueError: there is no such sampler, or it cannot be made from a seed alone.
    """
    try:
        from optuna import samplers
    except ImportError as error:
        raise ImportError("need optuna to sweep: pip install 'lightning-compress[sweep]'") from error
    names = [one for one in samplers.__all__ if one.endswith("Sampler") and not one.startswith("Base")]
    if name not in names:
        raise ValueError(f"need --sampler as one of {', '.join(names)}, got {name!r}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some are experimental in Optuna
        try:
            found: BaseSampler = getattr(samplers, name)(seed=seed)
        except TypeError as error:
            raise ValueError(f"need --sampler as one that a seed is enough for, got {name!r}: {error}") from error
    return found


def stored_settings(study: Study) -> dict[str, Any]:
    """The settings that a study holds; empty if it has none."""
    found: dict[str, Any] = study.user_attrs.get(_SETTINGS, {})
    return found


def counted(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials of a study without those that another one has taken up again, and without surplus ones.

    Two workers that begin a trial at the same instant may begin one too many; the later one is a surplus.
    """
    again = {number for trial in trials for number in trial.system_attrs.get("retry_history", ())}
    return [trial for trial in trials if trial.number not in again and "surplus" not in trial.user_attrs]


def fail_lost(study: Study) -> None:
    """Give the trials of workers that have fallen silent to the next worker."""
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)


def retry(study: Study, trial: FrozenTrial) -> None:
    """Give a trial to the next worker; its values are those that it had."""
    _retrying()(study, trial)


def _retrying() -> Any:
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=_RETRIES)


def _storage(url: str, heartbeat: int, tries: int = _OPENINGS) -> RDBStorage:
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return _opened(url, heartbeat)
    except ImportError as error:
        raise ImportError(f"need the driver of the database to open --study: {error.__context__ or error}") from error
    except (SQLAlchemyError, ValueError) as error:
        if tries > 1 and _made_meanwhile(error):
            time.sleep(_PAUSE)
            return _storage(url, heartbeat, tries - 1)
        reason = str(error).splitlines()[0]
        raise ValueError(
            "need --study as the address of a database, such as sqlite:///study.db or postgresql://user@host/database, "
            f"got one that raises {type(error).__name__}: {reason}"
        ) from error


def _opened(url: str, heartbeat: int) -> RDBStorage:
    import optuna

    options: Mapping[str, Any] = {"connect_args": {"timeout": _WAIT}} if url.startswith("sqlite") else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.storages.RDBStorage(
            url,
            engine_kwargs={"pool_pre_ping": True, **options},
            heartbeat_interval=heartbeat,
            heartbeat_stale_trial_callback=_retrying(),
        )


def _made_meanwhile(error: Exception) -> bool:
    """Whether another worker was making the tables of a new database at the same instant."""
    return type(error).__name__ == "IntegrityError" or "already exists" in str(error)


def _check_heartbeat(heartbeat: int) -> None:
    check_number(heartbeat=heartbeat)
    if heartbeat < 1:
        raise ValueError(f"need --heartbeat >= 1, got {heartbeat!r}")
