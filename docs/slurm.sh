#!/bin/bash
# The pipeline on several machines of a SLURM cluster: `sbatch docs/slurm.sh`, from the project's root on a file system that all machines
# see. DVC runs on the first machine; stages that share their work start one torchrun on each machine (docs/distributed.md).
# Set --nodes and --gpus-per-node (without GPUs, leave that line out and set PROCESSES_PER_NODE); what follows reads them.
# More words go to DVC: `sbatch docs/slurm.sh -S profile=paper-cuhk-market`.
#SBATCH --job-name=hpl
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --output=hpl-%j.log
set -euo pipefail

per_node=${PROCESSES_PER_NODE:-${SLURM_GPUS_ON_NODE:-1}}
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 20000)) # one of its own for each job that shares the machine

# --kill-on-bad-exit: a machine that fails ends the step on all machines. --export=ALL: the virtual environment that is active now.
export HPL_LAUNCHER="srun --nodes=$SLURM_JOB_NUM_NODES --ntasks-per-node=1 --kill-on-bad-exit=1 --export=ALL \
torchrun --nnodes=$SLURM_JOB_NUM_NODES --nproc-per-node=$per_node --max-restarts=0 \
--rdzv-backend=c10d --rdzv-endpoint=$first:$port --rdzv-id=$SLURM_JOB_ID"

dvc exp run -S num_processes=$((SLURM_JOB_NUM_NODES * per_node)) "$@"
