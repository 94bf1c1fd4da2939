"""The project itself: boundaries, public names, documents that tell the truth."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import wise_creds
from wise_creds import testing
from wise_creds.cli import cli

ROOT = Path(__file__).parent.parent
CORE = sorted((ROOT / "wise_creds").rglob("*.py"))
PROVIDERS = sorted((ROOT / "providers").rglob("*.py"))
# Each floor imports only lower ones; modules in one string share a floor and do not import each other in a circle.
FLOORS = """
errors clock _quiet _fork
secret
shield namespace
token provider documents _engine _pem tls _expand _problems
_registry _material _slots _retry _watch
credentials
config
_loader _token_request
_token_cache
fetcher _generation
_listeners
_pools _refresh
_rotator
_wiring
_clients connection _user
_open staged
validation rotation
testing
_demo _rotate_cli cli __main__
"""


def _imports(path: Path) -> set[str]:
    """The wise_creds modules that a file imports at run time."""
    tree = ast.parse(path.read_text())
    skipped = {id(inner) for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
               for inner in ast.walk(node)}  # fmt: skip
    found = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= (
                {node.module} if node.module != "wise_creds" else {f"wise_creds.{name.name}" for name in node.names}
            )
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return found


def test_the_core_imports_no_provider_and_no_sdk() -> None:
    """It knows them by their entry points only."""
    foreign = {name for path in CORE for name in _imports(path) if re.match(r"wise_creds_|boto|hvac", name)}
    assert foreign == set()


def test_providers_import_public_names_only() -> None:
    """As a stranger's plug-in has to."""
    private = {name for path in PROVIDERS for name in _imports(path) if re.match(r"wise_creds\..*\b_", name)}
    assert private == set()


def test_each_floor_imports_only_lower_ones() -> None:
    """A secret travels upwards; nothing reaches up or around in a circle."""
    level = {name: number for number, line in enumerate(FLOORS.strip().splitlines()) for name in line.split()}
    wrong = []
    for path in CORE:
        name = path.relative_to(ROOT / "wise_creds").parts[0].removesuffix(".py")
        if name == "__init__":
            continue
        others = {imported.split(".")[1] for imported in _imports(path) if imported.startswith("wise_creds.")}
        wrong += [f"{name} -> {other}" for other in others & set(level) if level[other] > level[name]]
    assert wrong == []
    assert {path.relative_to(ROOT / "wise_creds").parts[0].removesuffix(".py") for path in CORE} - {"__init__"} <= set(
        level
    )


def test_public_names_are_complete_and_resolve() -> None:
    """Sorted, lazily, and unknown ones are AttributeErrors."""
    assert dir(wise_creds) == sorted(wise_creds.__all__)
    for module in (wise_creds, testing):
        for name in module.__all__:
            assert getattr(module, name) is not None
        with pytest.raises(AttributeError, match="nothing_like_that"):
            _ = module.nothing_like_that


def test_importing_the_package_costs_next_to_nothing() -> None:
    """No I/O, no heavy library."""
    code = "import sys, wise_creds; print(sorted({'httpx', 'pydantic', 'ssl', 'cryptography', 'click'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_entry_points_load() -> None:
    """One console script, and the providers."""
    (script,) = (entry for entry in entry_points(group="console_scripts") if entry.value.startswith("wise_creds"))
    assert (script.name, callable(script.load())) == ("wise-creds", True)
    found = {entry.name: entry.load().__name__ for entry in entry_points(group="wise_creds.providers")}
    assert (found["aws"], found["files"]) == ("AwsProvider", "FilesProvider")


def test_modules_stay_small() -> None:
    """None above 300 lines."""
    assert {
        str(path.relative_to(ROOT)) for path in (*CORE, *PROVIDERS) if len(path.read_text().splitlines()) > 300
    } == set()


def test_every_environment_variable_and_command_stands_in_the_readme() -> None:
    """What no test compares drifts."""
    readme = (ROOT / "README.md").read_text()
    variables = {found for path in CORE for found in re.findall(r'"(WISE_CREDS_[A-Z]+)"', path.read_text())}
    missing = {name for name in variables if f"`${name}`" not in readme}
    missing |= {name for name in cli.commands if f"wise-creds {name}" not in readme}
    missing |= {option for parameter in cli.commands["validate"].params for option in parameter.opts
                if option.startswith("--") and option not in readme}  # fmt: skip
    assert missing == set()


def test_every_configuration_key_is_documented() -> None:
    """In docs/configuration.md, and no other is."""
    from wise_creds.config import NamespaceOptions

    text = (ROOT / "docs/configuration.md").read_text()
    documented = set(re.findall(r"^\| `([a-z_]+)` \|", text, re.MULTILINE))
    assert documented == set(NamespaceOptions.model_fields) | {"directory", "file", "fields"}


def test_the_readmes_library_example_runs(mock_wise: testing.MockWise, monkeypatch: pytest.MonkeyPatch) -> None:
    """Word for word, against the stand-in."""
    monkeypatch.setenv("WISE_CREDS_CONFIG", str(mock_wise.config))
    (example,) = (code for code in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
                  if "connect(" in code and "async" not in code)  # fmt: skip
    exec(compile(example, "README.md", "exec"), {})
    assert mock_wise.requests[-1].path == "/v2/profiles"


def test_links_between_documents_lead_somewhere() -> None:
    """Files, not addresses."""
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "providers/README.md"]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path}: {target}"


def test_the_wheel_holds_code_types_and_entry_points(tmp_path: Path) -> None:
    """Built as for a release."""
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entries,) = (archive.read(name).decode() for name in names if name.endswith("entry_points.txt"))
    assert {
        "wise_creds/py.typed",
        "wise_creds_files/py.typed",
        "wise_creds_aws/py.typed",
        "wise_creds_vault/py.typed",
        "wise_creds/testing/_server.py",
    } <= names
    assert not {name for name in names if name.startswith(("tests", "providers", "docs"))}
    assert "files = wise_creds_files:FilesProvider" in entries.partition("[wise_creds.providers]")[2]


def test_every_error_says_what_to_do() -> None:
    """Each place that makes one gives a hint, or hands on a LoadError."""
    silent = []
    for path in (*CORE, *PROVIDERS):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
                given = {keyword.arg for keyword in node.keywords}
                makes_one = (name.endswith("Error") and "code" in given) or name == "option_problem"
                silent += [f"{path.name}:{node.lineno}"] if makes_one and "hint" not in given else []
                silent += [f"{path.name}:{node.lineno}"] if name == "error" and len(node.args) == 3 else []
    assert silent == []


def test_the_terraform_snippet_is_well_formed() -> None:
    """Parsed and laid out as Terraform has it; `validate` would need its registry."""
    terraform = shutil.which("terraform")
    if terraform is None:
        pytest.skip("terraform is not installed")
    done = subprocess.run([terraform, "fmt", "-check", "-"], input=(ROOT / "docs" / "aws.tf").read_bytes(),
                          capture_output=True, timeout=60, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
