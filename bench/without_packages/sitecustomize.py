"""Hides the packages named in WITHOUT_PACKAGES from every Python that has this folder on its path:
neither they nor what their installation registered can be found, as where they are missing."""

import os
import re
import sys
from importlib.machinery import ModuleSpec, PathFinder

HIDDEN = set(os.environ.get("WITHOUT_PACKAGES", "").split())


class FinderOfTheRest(PathFinder):
    @classmethod
    def find_spec(cls, name: str, *arguments: object) -> ModuleSpec | None:
        if name.partition(".")[0] in HIDDEN:
            return None
        return super().find_spec(name, *arguments)

    @classmethod
    def find_distributions(cls, *arguments: object) -> list:
        found = super().find_distributions(*arguments)
        return [d for d in found if re.sub(r"[-.]+", "_", d.name.lower()) not in HIDDEN]


sys.meta_path[:] = [FinderOfTheRest if f is PathFinder else f for f in sys.meta_path]
