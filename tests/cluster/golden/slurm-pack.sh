#!/bin/bash
#SBATCH --job-name=count-0
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=8000M
#SBATCH --time=01:00:00
#SBATCH --signal=B:USR1@60
#SBATCH --output=/gs/user/rethesis/log0
#SBATCH --open-mode=append
#SBATCH --requeue

cd /gs/user/rethesis || exit 1
export RETHESIS_DEADLINE=$(($(date +%s) + 3600)) RETHESIS_MARGIN=120
export OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1
export RETHESIS_DATA=/gs/user/rethesis/data
trap 'kill -USR1 $(jobs -p) 2>/dev/null' USR1
trap 'kill -TERM $(jobs -p) 2>/dev/null' TERM
python -m common.study.job runs/0 >>/gs/user/rethesis/log0 2>&1 &
python -m common.study.job runs/1 >>/gs/user/rethesis/log1 2>&1 &
python -m common.study.job runs/2 >>/gs/user/rethesis/log2 2>&1 &
python -m common.study.job runs/3 >>/gs/user/rethesis/log3 2>&1 &
while [ -n "$(jobs -rp)" ]; do wait; done
