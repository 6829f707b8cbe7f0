"""How many workers a service has."""

from extauth.cores import usable_cores
from extauth.errors import SettingsError
from extauth.settings import Settings


def count_workers(settings: Settings) -> int:
    """The number that the settings ask for; raises SettingsError if it cannot work with the other settings."""
    if settings.workers == "auto":
        workers, named = usable_cores(), f"EXTAUTH_WORKERS=auto (here {usable_cores()})"
    else:
        workers, named = settings.workers, f"EXTAUTH_WORKERS={settings.workers}"
    if workers == 1:
        return 1
    if settings.counts_in_memory:
        raise SettingsError(
            f"{named} cannot be used with EXTAUTH_REDIS_URL=memory:, because each worker would count for itself; "
            "set EXTAUTH_WORKERS=1, or EXTAUTH_REDIS_URL to a Redis"
        )
    if settings.engine != "h2":
        raise SettingsError(
            f"{named} cannot be used with EXTAUTH_ENGINE={settings.engine}, which cannot take connections that another "
            "process has accepted; set EXTAUTH_WORKERS=1, or EXTAUTH_ENGINE=h2"
        )
    return workers


def settings_of_worker(settings: Settings, workers: int) -> Settings:
    """The settings of each of `workers` workers: what bounds the whole replica is divided among them."""
    return settings.model_copy(
        update={
            "max_connections": -(-settings.max_connections // workers),
            "max_waiting": -(-settings.max_waiting // workers),
            "local_bytes": max(settings.local_bytes // workers, 1 << 20),
        }
    )
