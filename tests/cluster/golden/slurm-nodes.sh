#!/bin/bash
#SBATCH --job-name=train-0
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=4
#SBATCH --mem=400000M
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@60
#SBATCH --output=/gs/user/rethesis/log0
#SBATCH --open-mode=append
#SBATCH --requeue

cd /gs/user/rethesis || exit 1
export RETHESIS_DEADLINE=$(($(date +%s) + 86400)) RETHESIS_MARGIN=120
export OMP_NUM_THREADS=8 PYTHONUNBUFFERED=1
export RETHESIS_DATA=/gs/user/rethesis/data
export MASTER_ADDR=$(hostname) MASTER_PORT=$((20000 + $$ % 20000))
exec srun --kill-on-bad-exit=1 -n 8 --ntasks-per-node=4 --cpus-per-task=8 python -m common.study.job runs/0 >>/gs/user/rethesis/log0 2>&1
