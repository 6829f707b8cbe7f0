"""What a watch of config files yields."""

import asyncio
from pathlib import Path

from extauth.config.sources.files import FileSource
from extauth.errors import ConfigError
from extauth.rules.model import RuleSet


class Watched:
    """Collects what a watch tells."""

    def __init__(self, path: Path) -> None:
        self.rules: asyncio.Queue[RuleSet] = asyncio.Queue()
        self.errors: asyncio.Queue[ConfigError] = asyncio.Queue()
        source = FileSource(path)
        source.read()
        self._task = asyncio.create_task(self._run(source))

    async def _run(self, source: FileSource) -> None:
        async for rules in source.updates():
            if isinstance(rules, ConfigError):
                self.errors.put_nowait(rules)
            else:
                self.rules.put_nowait(rules)

    async def next(self) -> RuleSet:
        """The next rules; they are live within a second."""
        return await asyncio.wait_for(self.rules.get(), 5)

    async def domains(self) -> list[str]:
        return list((await self.next()).domains)

    async def error(self) -> str:
        return str(await asyncio.wait_for(self.errors.get(), 5))

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
