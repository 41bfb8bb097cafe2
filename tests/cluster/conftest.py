"""Real launchers on this machine: Slurm's daemons, Open MPI, two network namespaces as two machines.

All of it runs on loopback or in namespaces of its own, with its files in a temporary folder, and is taken down again.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from segearth.evaluation.results import read_rows
from segearth.paths import PROJECT_ROOT

SAME = ('aAcc', 'mIoU', 'mAcc', 'Images', 'Settings')
TIMEOUT = 240  # seconds of a command
LIMIT = 3  # images: no multiple of two
EVAL = (sys.executable, str(PROJECT_ROOT / 'eval.py'), '--config', 'cfg_demo')
OPTIONS = ('--limit', str(LIMIT), '--cfg-options', 'test_dataloader.num_workers=1', 'env_cfg.dist_cfg.timeout=60')
LEFT_BEHIND = ('SLURM_', 'OMPI_', 'PMIX_', 'MASTER_', 'TORCHELASTIC_')
SLURM_CONF = """
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
KillWait=20
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[1]} CPUs=8
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[2]} CPUs=8
PartitionName=all Nodes=ALL Default=YES State=UP
"""


def need(*programs: str) -> None:
    """Skips where a program is missing, or rights are."""
    os.environ['PATH'] += ':/usr/sbin:/sbin'
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.skip(f'needs {", ".join(missing)}; Debian: slurm-wlm, munge, openmpi-bin, iproute2')
    if os.geteuid():
        pytest.skip('needs to be root: to start Slurm, to make network namespaces')


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for opened in sockets:
        opened.bind(('127.0.0.1', 0))
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


def stop(processes: Sequence[subprocess.Popen]) -> None:
    for process in reversed(processes):
        process.terminate()
    for process in processes:
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(condition, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, 'it did not come so far in time'
        time.sleep(0.1)


class Commands:
    """Runs commands in a folder, with an environment that other launchers have left nothing in."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder = folder
        self.started: list[subprocess.Popen] = []
        clean = {name: value for name, value in os.environ.items() if not name.startswith(LEFT_BEHIND)}
        self.variables = {**clean, 'OMP_NUM_THREADS': '1', 'PYTHON': sys.executable, **variables}

    def start(self, *command: str, **variables: str) -> subprocess.Popen:
        process = subprocess.Popen(
            command, cwd=self.folder, env=self.variables | variables, start_new_session=True, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.started.append(process)
        return process

    def finish(self, process: subprocess.Popen) -> tuple[int, str]:
        """Exit code and output; what is not done in time is ended with all that it started."""
        try:
            output, _ = process.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            raise AssertionError(f'not done after {TIMEOUT} s: {output}') from None
        return process.returncode, output

    def run(self, *command: str, **variables: str) -> tuple[int, str]:
        return self.finish(self.start(*command, **variables))

    def end(self) -> None:
        """Ends what a failed test has left."""
        for process in self.started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def row(self, name: str) -> dict:
        """The only row of a spreadsheet."""
        (row,) = read_rows(self.folder / name)
        return row


@pytest.fixture(scope='session')
def data(tmp_path_factory) -> str:
    """The demo benchmark, drawn once."""
    return str(tmp_path_factory.mktemp('data'))


@pytest.fixture
def commands(tmp_path, data) -> Iterator[Commands]:
    commands = Commands(tmp_path, SEGEARTH_DATA=data)
    yield commands
    commands.end()


@pytest.fixture(scope='session')
def alone(tmp_path_factory, data) -> dict:
    """Figures of one process."""
    commands = Commands(tmp_path_factory.mktemp('alone'), SEGEARTH_DATA=data)
    code, output = commands.run(*EVAL, *OPTIONS)
    assert code == 0, output
    row = commands.row('results.xlsx')
    return {name: row[name] for name in SAME}


@pytest.fixture(scope='session')
def slurm_conf() -> Iterator[str]:
    """Slurm's configuration, while its daemons run: two nodes, both on this machine."""
    need('munged', 'slurmctld', 'slurmd', 'srun', 'sbatch', 'scancel', 'scontrol')
    folder = Path(tempfile.mkdtemp(prefix='slurm'))
    folder.chmod(0o755)  # pytest's folders let nobody else in, which Slurm and munge do not bear
    (folder / 'state').mkdir()
    config = folder / 'slurm.conf'
    config.write_text(SLURM_CONF.format(folder=folder, ports=free_ports(3)))
    key = folder / 'munge.key'
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    environment = {**os.environ, 'SLURM_CONF': str(config)}
    munge = [f'--{name}={folder}/munge.{end}' for name, end in
             (('key-file', 'key'), ('socket', 'socket'), ('pid-file', 'pid'), ('seed-file', 'seed'),
              ('log-file', 'log'))]  # fmt: skip
    daemons: list[subprocess.Popen] = []

    def start(*command: str) -> None:
        with open(folder / f'{command[0]}.out', 'ab') as log:
            daemons.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))

    def idle() -> bool:
        assert all(daemon.poll() is None for daemon in daemons), [path.read_text() for path in folder.glob('*.out')]
        states = subprocess.run(['sinfo', '-h', '-o', '%D %T'], env=environment, capture_output=True, text=True)
        return states.stdout.split() == ['2', 'idle']

    try:
        start('munged', '--foreground', '--force', *munge)
        wait_for((folder / 'munge.socket').exists)
        start('slurmctld', '-D')
        start('slurmd', '-D', '-N', 'n1')
        start('slurmd', '-D', '-N', 'n2')
        wait_for(idle)
        yield str(config)
        subprocess.run(['scancel', '--me'], env=environment, check=False)
        wait_for(idle)  # what a failed test has left is gone
    finally:
        stop(daemons)
        shutil.rmtree(folder)


@pytest.fixture
def slurm(commands, slurm_conf) -> Commands:
    commands.variables['SLURM_CONF'] = slurm_conf
    return commands
