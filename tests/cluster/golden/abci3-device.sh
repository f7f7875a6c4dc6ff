#!/bin/bash
#PBS -N train-0
#PBS -q rt_HG
#PBS -l select=1:mpiprocs=1:ompthreads=8
#PBS -l walltime=02:00:00
#PBS -j oe
#PBS -o /gs/user/rethesis/log0.scheduler
#PBS -m n
#PBS -r y
#PBS -S /bin/bash

cd /gs/user/rethesis || exit 1
export RETHESIS_DEADLINE=$(($(date +%s) + 7200)) RETHESIS_MARGIN=120
export OMP_NUM_THREADS=8 PYTHONUNBUFFERED=1
export RETHESIS_DATA=/gs/user/rethesis/data
source /etc/profile.d/modules.sh
module load hpcx
exec python -m common.study.job runs/0 >>/gs/user/rethesis/log0 2>&1
