"""Providers by name: only what is asked for is loaded, and every way to fail says what to do."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from wise_creds import PluginError
from wise_creds._registry import find, installed, missing_sdk, sdk_translator


def _distribution(folder: Path, name: str, entries: str, **modules: str) -> None:
    """Make a plug-in as the importer sees it; no pip, no network."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[wise_creds.providers]\n{entries}\n")
    for module, source in modules.items():
        (folder / f"{module}.py").write_text(source)


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the import path."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


def test_the_built_in_provider_comes_through_the_strangers_door() -> None:
    """By its entry point, like any other."""
    assert find("files").__name__ == "FilesProvider"


def test_an_unknown_name_lists_what_there_is() -> None:
    """With the likely one first."""
    for name, hint in (
        ("file", "did you mean files?"),
        ("zzz", "installed: aws, files, vault"),
        ("a\nb", "installed: aws, files, vault"),
    ):
        with pytest.raises(PluginError) as caught:
            find(name)
        assert (caught.value.code, caught.value.hint) == ("WC121", hint)


def test_two_distributions_with_one_name_are_an_error_that_names_both(plugins: Path) -> None:
    """Neither the first nor the last wins."""
    _distribution(plugins, "one", "twice = one_plugin:P")
    _distribution(plugins, "two", "twice = two_plugin:P")
    with pytest.raises(PluginError, match="one, two") as caught:
        find("twice")
    assert caught.value.code == "WC122"


def test_a_missing_sdk_says_what_to_install(plugins: Path) -> None:
    """At import, or later inside a method; with the extra that brings it."""
    _distribution(plugins, "wise-creds-cloud", "cloud = cloud_plugin:P [sdk]", cloud_plugin="import no_such_sdk\n")
    with pytest.raises(PluginError, match="needs the module no_such_sdk") as caught:
        find("cloud")
    assert (caught.value.code, caught.value.hint) == ("WC123", "pip install 'wise-creds-cloud[sdk]'")
    late = sdk_translator("cloud")(ModuleNotFoundError(name="late_sdk"))
    assert late is not None
    assert "late_sdk" in late.message
    assert sdk_translator("cloud")(ValueError()) is None
    assert sdk_translator("nowhere")(ModuleNotFoundError(name="x")) is None


def test_without_an_extra_the_distribution_itself_is_named() -> None:
    """A reinstall brings its dependencies."""
    (entry,) = installed()["files"]
    problem = missing_sdk(entry, ModuleNotFoundError(name="x"))
    assert problem is not None
    assert problem.hint == "pip install 'wise-creds'"


@pytest.mark.parametrize("source", ["1/0\n", "P = 3\n", "class P: pass\n", "class P:\n    Options = int\n"])
def test_a_broken_plug_in_is_named_with_its_distribution(plugins: Path, source: str) -> None:
    """One that fails at import, and one that is no provider."""
    _distribution(plugins, "broken", "broken = broken_plugin:P", broken_plugin=source)
    sys.modules.pop("broken_plugin", None)
    with pytest.raises(PluginError, match="broken") as caught:
        find("broken")
    assert (caught.value.code, caught.value.__context__) == ("WC124", None)


def test_a_broken_plug_in_that_nobody_asked_for_disturbs_nobody(plugins: Path) -> None:
    """It is listed, not loaded."""
    _distribution(plugins, "broken", "broken = explodes:P", explodes="raise SystemExit\n")
    assert find("files").__name__ == "FilesProvider"
    assert sorted(installed()) == ["aws", "broken", "files", "vault"]
