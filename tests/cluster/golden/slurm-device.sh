#!/bin/bash
#SBATCH --job-name=train-0
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --mem=32000M
#SBATCH --time=02:00:00
#SBATCH --signal=B:USR1@60
#SBATCH --output=/gs/user/rethesis/log0
#SBATCH --open-mode=append
#SBATCH --requeue

cd /gs/user/rethesis || exit 1
export RETHESIS_DEADLINE=$(($(date +%s) + 7200)) RETHESIS_MARGIN=120
export OMP_NUM_THREADS=8 PYTHONUNBUFFERED=1
export RETHESIS_DATA=/gs/user/rethesis/data
exec python -m common.study.job runs/0 >>/gs/user/rethesis/log0 2>&1
