"""Names the two commands to twistd. Nothing of SIMS is imported until one of them is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from twisted.application.service import IService, IServiceMaker
from twisted.plugin import IPlugin
from zope.interface import implementer


@implementer(IPlugin, IServiceMaker)
class _Command:
    """One command of ``sims.tap``, by the names of its options and of what makes its service."""

    def __init__(self, tapname: str, description: str, options: str, make: str) -> None:
        self.tapname = tapname
        self.description = description
        self._options = options
        self._make = make

    @property
    def options(self) -> Any:
        """The class of its options."""
        return getattr(import_module("sims.tap"), self._options)

    def makeService(self, options: Any) -> IService:
        """Its service."""
        service: IService = getattr(import_module("sims.tap"), self._make)(options)
        return service


sims_server = _Command("sims-server", "A SIMS relay server.", "ServerOptions", "make_server")
sims_client = _Command("sims-client", "A SIMS client with a console.", "ClientOptions", "make_client")
