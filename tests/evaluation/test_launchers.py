"""What launchers say in the environment."""

from __future__ import annotations

import os

import pytest

from segearth.errors import ConfigError
from segearth.evaluation.distributed import join_processes
from segearth.evaluation.launchers import LAUNCHERS, read_place


@pytest.fixture
def bare(monkeypatch):
    """An environment without any launcher's variables; a function that sets some."""
    for name in list(os.environ):
        is_prefixed = name.startswith(('SLURM_', 'OMPI_', 'PMIX_', 'MASTER_', 'TORCHELASTIC_'))
        if is_prefixed or name in LAUNCHERS['pytorch'].ranks:
            monkeypatch.delenv(name)
    return lambda **values: [monkeypatch.setenv(name, value) for name, value in values.items()]


STEP = {'SLURM_PROCID': '1', 'SLURM_NTASKS': '2', 'SLURM_LOCALID': '1', 'SLURM_STEP_NUM_NODES': '1'}
MPI = {'OMPI_COMM_WORLD_RANK': '1', 'OMPI_COMM_WORLD_SIZE': '2', 'OMPI_COMM_WORLD_LOCAL_RANK': '1'}


def test_ports_come_from_the_job(bare):
    def ports(launcher, *settings):
        found = []
        for values in settings:
            bare(**values)
            found.append(read_place(launcher).port)
        return found

    bare(**STEP)
    jobs = [{'SLURM_JOB_ID': str(job), 'SLURM_STEP_ID': str(step)} for job in range(100, 150) for step in range(4)]
    found = ports('slurm', *jobs)
    assert len(set(found)) == len(jobs)  # neighbours do not meet
    assert min(found) > 1024 and max(found) < 28500  # below what systems give out, and torch's usual port
    assert found == ports('slurm', *jobs)
    bare(**MPI)
    assert len(set(ports('mpi', {'PMIX_NAMESPACE': '1143209985'}, {'PMIX_NAMESPACE': 'prterun-host-77@1'}))) == 2
    place = read_place('mpi')
    assert (place.rank, place.world_size, place.address) == (1, 2, '127.0.0.1')


@pytest.mark.parametrize(('launcher', 'values'), [
    ('pytorch', {'RANK': '1', 'WORLD_SIZE': '2', 'LOCAL_RANK': '0'}),
    ('slurm', {**STEP, 'SLURM_JOB_ID': '7', 'SLURM_STEP_ID': '0'}),
    ('mpi', {**MPI, 'PMIX_NAMESPACE': '5', 'OMPI_COMM_WORLD_LOCAL_SIZE': '1'}),
])  # fmt: skip
def test_what_the_user_sets_is_obeyed(bare, launcher, values):
    bare(**values, MASTER_ADDR='head', MASTER_PORT='4321')
    place = read_place(launcher)
    assert place.where == 'head:4321'
    assert place.rank == 1


@pytest.mark.parametrize(('launcher', 'values', 'message'), [
    ('slurm', {**STEP, 'SLURM_JOB_ID': '7'}, 'outside srun: 2 tasks.*srun python eval.py'),
    ('slurm', {**STEP, 'SLURM_JOB_ID': '7', 'SLURM_STEP_ID': '4294967290'}, 'outside srun'),  # an interactive shell
    ('slurm', {'SLURM_JOB_ID': '7', 'SLURM_NTASKS': '2'}, 'finds no SLURM_PROCID, SLURM_LOCALID'),  # salloc
    ('slurm', {**STEP, 'SLURM_NTASKS': 'two'}, "SLURM_NTASKS is 'two'.*whole number, 1 or more"),
    ('slurm', STEP, 'set MASTER_PORT'),
    ('pytorch', {'RANK': '0', 'WORLD_SIZE': '2'}, 'finds no LOCAL_RANK'),
    ('pytorch', {'RANK': '0', 'WORLD_SIZE': '2', 'LOCAL_RANK': '0'}, 'set MASTER_PORT.*dist_test.sh'),
    ('pytorch', {'RANK': '2', 'WORLD_SIZE': '2', 'LOCAL_RANK': '0'}, 'ranks go from 0 to 1'),
    ('pytorch', {'RANK': '-1', 'WORLD_SIZE': '2', 'LOCAL_RANK': '0'}, "RANK is '-1'"),
    ('pytorch', {'RANK': '0', 'WORLD_SIZE': '1', 'LOCAL_RANK': '0', 'MASTER_PORT': '99999'}, "'99999'.*1 to 65535"),
    ('mpi', {**MPI, 'PMIX_NAMESPACE': '5', 'OMPI_COMM_WORLD_LOCAL_SIZE': '1'}, 'mpirun -x MASTER_ADDR'),
    ('mpi', MPI, 'set MASTER_PORT'),
])  # fmt: skip
def test_partial_environments_are_refused_at_once(bare, launcher, values, message):
    bare(**values)
    with pytest.raises(ConfigError, match=message):
        join_processes(launcher)


def test_launchers_say_what_they_miss(monkeypatch):
    for name in ('RANK', 'SLURM_PROCID'):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match='--launcher pytorch finds no RANK.*dist_test.sh'):
        join_processes('pytorch')
    with pytest.raises(ConfigError, match='SLURM_PROCID'):
        join_processes('slurm')
