"""The versions that pyproject.toml allows are those that are tested: constraints-oldest.txt to constraints.txt."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

CHECKOUT = Path(__file__).parent.parent
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
NEWEST_ONLY = {"demo": EXTRAS["demo"], "dev": EXTRAS["dev"]}
TESTED_AT_BOTH_ENDS = {
    "dependencies": PROJECT["dependencies"],
    **{extra: lines for extra, lines in EXTRAS.items() if extra not in NEWEST_ONLY},
}


def requirements(groups: dict[str, list[str]]) -> list[Requirement]:
    found = [Requirement(line) for lines in groups.values() for line in lines]
    return [requirement for requirement in found if requirement.name != PROJECT["name"]]


def pinned(name: str) -> dict[str, Version]:
    lines = [line.partition("#")[0].strip() for line in (CHECKOUT / name).read_text().splitlines()]
    pairs = [line.split("==") for line in lines if line]
    return {canonicalize_name(package): Version(version) for package, version in pairs}


def lowest(requirement: Requirement) -> Version | None:
    bounds = [Version(part.version) for part in requirement.specifier if part.operator in (">=", "==")]
    return max(bounds, default=None)


OLDEST, NEWEST = pinned("constraints-oldest.txt"), pinned("constraints.txt")


def test_each_lower_bound_is_the_version_tested_as_the_oldest():
    for requirement in requirements(TESTED_AT_BOTH_ENDS):
        assert OLDEST[canonicalize_name(requirement.name)] == lowest(requirement), requirement


@pytest.mark.parametrize("requirement", requirements({**TESTED_AT_BOTH_ENDS, **NEWEST_ONLY}), ids=str)
def test_the_versions_measured_with_are_allowed(requirement):
    assert requirement.specifier.contains(NEWEST[canonicalize_name(requirement.name)])


def test_the_demo_s_oldest_version_is_the_one_measured_with():
    for requirement in requirements({"demo": EXTRAS["demo"]}):
        assert lowest(requirement) == NEWEST[canonicalize_name(requirement.name)]
