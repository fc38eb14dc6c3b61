"""Runs as SLURM jobs: what is written, what is refused, and that it is what the manual shows."""

import subprocess
from pathlib import Path

import pytest
from pages import DOCS, blocks

from ptychoflow.workflow.cli import run_command_line

BEAMLINE = next(one.text for one in blocks(DOCS / "tutorials" / "several-hosts.md") if one.file == "beamline.toml")
MANUAL = ("--nodes", "2", "--gpus", "4", "--time", "4:00:00")


@pytest.fixture(autouse=True)
def _beamline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("beamline.toml").write_text(BEAMLINE)


def submit(*arguments: str) -> int:
    return run_command_line(["submit", *arguments, "beamline.toml"])


def script(*arguments: str) -> str:
    assert submit(*arguments, "--output", "job") == 0
    subprocess.run(["bash", "-n", "job"], check=True)
    return Path("job").read_text()


def test_the_manual_shows_the_job_that_its_command_writes() -> None:
    page = list(blocks(DOCS / "how-to" / "torchrun-and-slurm.md"))
    commands = [one.text.split() for one in page if one.text.startswith("ptychoflow submit")]
    assert commands == [["ptychoflow", "submit", *MANUAL, "beamline.toml"]]
    assert submit(*MANUAL) == 0
    (shown,) = (one for one in page if one.file is not None)
    assert shown.file is not None
    assert Path(shown.file).read_text() == shown.text


def test_parts_that_the_configuration_places_elsewhere_are_not_in_the_job() -> None:
    acquisition_away = script("--set", "network.acquisition_host=10.0.0.1")
    assert "ptychoflow acquire" not in acquisition_away
    assert "ptychoflow edge" not in acquisition_away
    assert "network.acquisition_host=$head" not in acquisition_away
    assert "network.hub_host=$head" in acquisition_away
    Path("job").unlink()
    all_away = script("--edge", "--set", "network.acquisition_host=10.0.0.1", "--set", "network.hub_host=10.0.0.4")
    assert "ptychoflow dashboard" not in all_away
    assert "ptychoflow edge" in all_away
    assert "network.hub_host=$head" not in all_away


def test_a_job_of_one_node_without_keys_stays_on_loopback() -> None:
    Path("beamline.toml").write_text(BEAMLINE.replace('keys_dir = "keys"\n', ""))
    assert "_host=$head" not in script("--ranks", "3")


def test_options_reach_slurm_and_settings_the_parts() -> None:
    text = script("--partition", "gpu", "--account", "beam-7", "--cpus", "6", "--set", "run.directory=my runs")
    assert "#SBATCH --partition=gpu\n#SBATCH --account=beam-7\n" in text
    assert "--cpus-per-task=6\n" in text
    assert "--set 'run.directory=my runs'\n" in text


def test_names_of_several_lines_run_nothing_and_hide_no_option_from_slurm() -> None:
    """SLURM reads options up to the first line that is no comment."""
    file = Path("my\nbeamline.toml")
    file.write_text(BEAMLINE)
    assert run_command_line(["submit", "--set", 'run.directory=my\ntouch "pwned" #', "--output", "job", str(file)]) == 0
    text = Path("job").read_text()
    subprocess.run(["bash", "-n", "job"], check=True)
    before_options = text[: text.index("#SBATCH --output")].splitlines()
    assert all(line.startswith("#") for line in before_options)
    parts = text[text.index("settings=(") : text.index("parts=()")]
    bash = f'head=h\n{parts}printf "%s\\0" "${{settings[@]}}"'
    given = subprocess.run(["bash", "-c", bash], check=True, capture_output=True, text=True).stdout.split("\0")
    assert str(file) in given
    assert 'run.directory=my\ntouch "pwned" #' in given


def test_what_is_said_of_a_script_can_be_typed(capfd: pytest.CaptureFixture[str]) -> None:
    assert submit("--output", "my job") == 0
    assert "`sbatch 'my job'`" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--nodes", "0"), "--nodes 0 is wrong"),
        (("--ranks", "0"), "--ranks 0 is wrong"),
        (("--cpus", "0"), "--cpus 0 is wrong"),
        (("--port", "0"), "--port 0 is wrong"),
        (("--gpus", "-1"), "--gpus -1 is wrong"),
        (("--port", "70000"), "--port 70000 is wrong"),
        (("--time", "soon"), "--time soon is wrong: give minutes (30), hours:minutes:seconds (4:00:00) or"),
        (("--account", "a b"), "--account a b is wrong: use letters, digits and"),
        (("--time", "3"), "--time 3 is too short"),
        (("--time", "0:04:59"), "--time 0:04:59 is too short"),
        (("--partition", "a\n#SBATCH --exclusive"), "--partition"),
        (("--edge", "--set", "acquisition.edge=false"), "acquisition.edge = false"),
        (("--set", "acquisition.trainer=false"), "needs no nodes"),
        (("--set", "network.frames_port=0"), "network.frames_port: port 0"),
    ],
)
def test_jobs_that_could_not_work_are_refused_in_one_line(
    arguments: tuple[str, ...], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert submit(*arguments) == 2
    error = capfd.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not list(Path().glob("*.sbatch"))


@pytest.mark.parametrize(("line", "said"), [('name = "beamtime-42"\n', "run.name"), ('keys_dir = "keys"\n', "keys")])
def test_what_several_nodes_need_is_said(line: str, said: str, capfd: pytest.CaptureFixture[str]) -> None:
    Path("beamline.toml").write_text(BEAMLINE.replace(line, ""))
    assert submit("--nodes", "2") == 2
    assert said in capfd.readouterr().err


@pytest.mark.parametrize("time", ["5", "4:00:00", "1-0", "1-12:30", "90:00"])
def test_times_as_slurm_writes_them_are_taken(time: str) -> None:
    assert f"#SBATCH --time={time}\n" in script("--time", time)


def test_a_script_that_was_changed_is_never_overwritten(capfd: pytest.CaptureFixture[str]) -> None:
    assert submit() == 0
    assert submit() == 0, "the same again changes nothing"
    job = Path("beamtime-42.sbatch")
    job.write_text(job.read_text() + "# mine\n")
    assert submit() == 2
    assert "--output" in capfd.readouterr().err
    assert job.read_text().endswith("# mine\n")


def test_where_there_is_no_slurm_the_script_is_written_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert submit("--now") == 2
    assert "no `sbatch` here" in capfd.readouterr().err
    assert Path("beamtime-42.sbatch").exists()
