#!/bin/bash
#$ -N train-0
#$ -l gpu_1=1
#$ -l h_rt=02:00:00
#$ -j y
#$ -o /gs/user/rethesis/log0
#$ -r y
#$ -S /bin/bash

cd /gs/user/rethesis || exit 1
export RETHESIS_DEADLINE=$(($(date +%s) + 7200)) RETHESIS_MARGIN=120
export OMP_NUM_THREADS=8 PYTHONUNBUFFERED=1
export RETHESIS_DATA=/gs/user/rethesis/data
source /etc/profile.d/modules.sh
module load openmpi
exec python -m common.study.job runs/0 >>/gs/user/rethesis/log0 2>&1
