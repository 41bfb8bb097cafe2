#!/usr/bin/env bash
# Evaluates a config in several processes: bash dist_test.sh CONFIG [GPUS] [eval.py options]
# From the environment: GPUS (processes on this machine), NNODES, NODE_RANK, MASTER_ADDR, PORT or MASTER_PORT, PYTHON.
# On one machine without a port a free one is taken, so that several runs do not meet. docs/benchmarking.md has more.
set -euo pipefail

if [ $# -lt 1 ]; then
    sed -n '2,4s/^# //p' "$0" >&2
    exit 2
fi
CONFIG=$1
shift
if [[ ${1:-} =~ ^[0-9]+$ ]]; then
    GPUS=$1
    shift
fi
HERE=$(cd "$(dirname "$0")" && pwd)
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python
    if [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && [ -x "$HERE/.venv/bin/python" ]; then
        PYTHON=$HERE/.venv/bin/python
    fi
fi
PORT=${PORT:-${MASTER_PORT:-}}
check() {  # NAME VALUE LOWEST HIGHEST
    if ! [[ $2 =~ ^[0-9]{1,6}$ ]] || [ "$2" -lt "$3" ] || [ "$2" -gt "$4" ]; then
        echo "error: $1 is '$2'; allowed: $3 to $4" >&2
        exit 2
    fi
}
[[ ${GPUS:-1} =~ ^(gpu|cpu|auto)$ ]] || check GPUS "${GPUS:-1}" 1 1024
check NNODES "${NNODES:-1}" 1 100000
check NODE_RANK "${NODE_RANK:-0}" 0 $((${NNODES:-1} - 1))
check 'PORT (or MASTER_PORT)' "${PORT:-29500}" 1 65535
if [ "${NNODES:-1}" = 1 ] && [ -z "$PORT" ]; then
    MEETING=(--standalone --local_addr="${MASTER_ADDR:-127.0.0.1}")
else
    if [ -z "$PORT" ] && [ -n "${SLURM_JOB_ID:-}" ]; then  # as in segearth/evaluation/launchers.py: jobs do not meet
        PORT=$((12000 + SLURM_JOB_ID * 97 % 16381))
    fi
    MEETING=(--nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}"
             --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}")
fi

exec "$PYTHON" "$HERE/tools/launch.py" "${MEETING[@]}" --nproc_per_node="${GPUS:-1}" \
    "$HERE/eval.py" --config "$CONFIG" --launcher pytorch "$@"
