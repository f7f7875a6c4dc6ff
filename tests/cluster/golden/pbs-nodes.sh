#!/bin/bash
#PBS -N train-0
#PBS -l select=2:ncpus=32:mem=400000mb:ngpus=4:mpiprocs=4:ompthreads=8
#PBS -l place=scatter
#PBS -l walltime=24:00:00
#PBS -j oe
#PBS -o /gs/user/rethesis/log0.scheduler
#PBS -m n
#PBS -r y
#PBS -S /bin/bash

cd /gs/user/rethesis || exit 1
export RETHESIS_DEADLINE=$(($(date +%s) + 86400)) RETHESIS_MARGIN=120
export OMP_NUM_THREADS=8 PYTHONUNBUFFERED=1
export RETHESIS_DATA=/gs/user/rethesis/data
export MASTER_ADDR=$(hostname) MASTER_PORT=$((20000 + $$ % 20000))
exec mpirun -n 8 --map-by ppr:4:node --bind-to none -hostfile "$PBS_NODEFILE" -x MASTER_ADDR -x MASTER_PORT -x RETHESIS_DEADLINE -x RETHESIS_MARGIN -x OMP_NUM_THREADS -x RETHESIS_DATA -x PATH ${LD_LIBRARY_PATH:+-x LD_LIBRARY_PATH} python -m common.study.job runs/0 >>/gs/user/rethesis/log0 2>&1
